"""Diagnostics during a fit: residuals of the frames, and shifts of the observations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from s2sr.report.figures import COLOURS, DPI, FAINT, GAP, INK, MASKED, TEXT, figure_of
from s2sr.report.metrics import Array, as_numpy


def residual_map(residual: Array, title: str = "Mean residual") -> Figure:
    """A map of frame - model in units of the noise, [y, x] or [b, y, x] (mean over bands); red: frame brighter."""
    values = as_numpy(residual).astype(float)
    values = values.mean(0) if values.ndim == 3 else values
    finite = values[np.isfinite(values)]
    limit = max(float(np.percentile(abs(finite), 99)) if finite.size else 0.0, 1e-9)
    zoom = max(1, 640 // max(values.shape))
    height, width = (n * zoom for n in values.shape)
    total = (width + 130, height + 80)
    figure = figure_of(*total)
    axes = figure.add_axes((GAP / total[0], GAP / total[1], width / total[0], height / total[1]))
    drawn = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="none", aspect="auto")
    axes.set_facecolor(str(MASKED / 255))
    axes.set(xticks=[], yticks=[])
    bar = figure.add_axes(((width + 2 * GAP) / total[0], GAP / total[1], 16 / total[0], height / total[1]))
    figure.colorbar(drawn, cax=bar).set_label("noise standard deviations", size=TEXT - 2)
    rms = math.sqrt(float((finite**2).mean())) if finite.size else math.nan
    figure.text(GAP / total[0], 1 - 14 / total[1], title, size=TEXT, weight="bold", color=INK, va="top")
    figure.text(GAP / total[0], 1 - 38 / total[1], f"rms {rms:.2f}", size=TEXT - 2, color=FAINT, va="top")
    return figure


def shift_plot(shifts: Array, dates: Sequence[str], true: Array | None = None) -> Figure:
    """Shifts [t, 2] (dy, dx; LR pixels) within the outline of one LR pixel, numbered by date; rings: true shifts."""
    found = as_numpy(shifts)
    order = sorted(range(len(dates)), key=lambda t: dates[t])
    points = [found] if true is None else [found, as_numpy(true)]
    reach = max(0.5, *(float(abs(p).max()) for p in points)) * 1.12
    columns = math.ceil(len(dates) / 24)
    side, width = 720, 720 + 130 * columns
    figure = figure_of(width + 120, side + 120)
    axes = figure.add_axes((80 / (width + 120), 70 / (side + 120), side / (width + 120), side / (side + 120)))
    axes.set(xlim=(-reach, reach), ylim=(reach, -reach), aspect="equal")
    axes.set_xlabel("dx, LR pixels", size=TEXT)
    axes.set_ylabel("dy, LR pixels (down is positive)", size=TEXT)
    axes.tick_params(labelsize=TEXT - 2)
    axes.axhline(0, color="#dddddd", lw=1, zorder=0)
    axes.axvline(0, color="#dddddd", lw=1, zorder=0)
    cell = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)])
    axes.plot(*cell.T, color=FAINT, lw=1.2, ls="--", zorder=1)
    axes.text(-0.49, -0.49, "one LR pixel", size=TEXT - 3, color=FAINT, va="top")
    if true is not None:
        axes.scatter(points[1][:, 1], points[1][:, 0], s=110, facecolors="none", edgecolors=COLOURS[1], label="true")
    axes.scatter(found[:, 1], found[:, 0], s=26, color=COLOURS[0], zorder=3, label="estimated")
    if true is not None:
        axes.legend(loc="lower right", bbox_to_anchor=(1.01, 1.0), ncols=2, fontsize=TEXT - 2, frameon=False)
    pixels = axes.transData.transform(found[:, ::-1])
    for number, (t, place) in enumerate(zip(order, _label_places(pixels[order]), strict=True), start=1):
        leader = {"arrowstyle": "-", "color": "#bbbbbb", "lw": 0.8, "shrinkA": 0, "shrinkB": 4}
        style: dict[str, Any] = {"size": TEXT - 3, "color": INK, "ha": "center", "va": "center", "arrowprops": leader}
        offset = (place[0] * 72 / DPI, place[1] * 72 / DPI)  # in points it holds for every format
        axes.annotate(str(number), (found[t, 1], found[t, 0]), offset, textcoords="offset points", **style)
        column, line = divmod(number - 1, 24)
        x, y = (836 + 130 * column) / (width + 120), 1 - (56 + 30 * line) / (side + 120)
        figure.text(x, y, str(number), size=TEXT - 2, color=INK, va="top", ha="right")
        figure.text(x + 8 / (width + 120), y, dates[t][:10], size=TEXT - 2, color=INK, va="top")
    spread = found.std(0)
    note = f"standard deviation dy {spread[0]:.3f}, dx {spread[1]:.3f} LR pixels"
    figure.text(80 / (width + 120), 1 - 16 / (side + 120), note, size=TEXT - 1, color=FAINT, va="top")
    return figure


def _label_places(points: np.ndarray) -> list[tuple[float, float]]:
    """An offset (screen pixels) for the label of each point [n, 2], clear of all points and of the labels before it."""
    taken = list(points)
    places = []
    for point in points:
        others = np.array([p for p in taken if p is not point])
        choices = [
            (r * math.cos(a), r * math.sin(a)) for r in (16, 26, 38, 52) for a in np.arange(0.25, 2, 0.25) * math.pi
        ]
        free = [np.hypot(*(others - point - offset).T).min() if len(others) else np.inf for offset in choices]
        best = next((k for k, gap in enumerate(free) if gap > 17), int(np.argmax(free)))
        places.append(choices[best])
        taken.append(point + choices[best])
    return places
