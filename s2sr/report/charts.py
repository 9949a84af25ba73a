"""Scores as curves: against the evaluations of one run, and against the value that a sweep varies.

Panels are stacked on a common x-axis, never two y-axes in one panel: it shows where scores diverge, and nobody has to
find out which curve belongs to which axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s2sr.report.figures import COLOURS, DPI, FAINT, INK, TEXT, figure_of
from s2sr.report.glossary import METRICS
from s2sr.report.jobs import SIGMA, Job, alike, best, judging, lines

MARKERS = "osD^v"  # where there are more lines than colours
WIDTH, LEFT, RIGHT = 1100, 110, 120  # screen pixels
# A run's curves: title, key in its history, the baseline's key and name
CURVES = (
    ("objective, nats", "fit/loss", "", ""),
    ("held-out error, reflectance", "heldout/holdout_rmse", "heldout/holdout_rmse_temporal_mean", "temporal mean"),
    ("edge contrast, 1/px", "sharpness/edge_contrast", "sharpness/edge_contrast_bicubic", "bicubic"),
    ("PSNR, dB", "fidelity/psnr", "fidelity/psnr_bicubic", "bicubic"),
)
# Scores drawn for a sweep, the name of their optimum, and its direction
MARKED = {
    "holdout_rmse": ("least", "lower"),
    "edge_contrast": ("sharpest", "higher"),
    "psnr": ("best", "higher"),
}


def progress(history: Sequence[Mapping[str, str]]) -> Figure:
    """The objective and, per level, the scores of one run; rows as in metrics.csv, with `level` where one ends.

    Objectives of different levels are not comparable (stage and noise differ), so no line connects them.
    """
    ends = [(float(row["evals"]), row["level"]) for row in history if row.get("level")]
    known = [curve for curve in CURVES if any(row.get(curve[1]) for row in history)]
    figure, panels = _stack([title for title, *_ in known], top=62 if ends else 42, bottom=75, pitch=215)
    for axes, (_, key, base, name) in zip(panels, known, strict=True):
        x, y = _column(history, key)
        breaks = np.searchsorted(x, [end for end, _ in ends if key == "fit/loss"], side="right")
        for part in np.split(np.arange(len(x)), breaks):
            marker = "o" if len(x) < 30 or len(part) == 1 else ""
            axes.plot(x[part], y[part], color=COLOURS[0], marker=marker, lw=1.6, ms=5, zorder=3)
        if key == "fit/loss" and y.min() > 0 and y.max() > 20 * y.min():
            axes.set_yscale("log")
        _baseline(axes, *_column(history, base), name)
        for end, _ in ends:
            axes.axvline(end, color=FAINT, lw=0.8, ls=":", zorder=1)
    for axes in panels:
        axes.set_xlim(0, max(float(row["evals"]) for row in history) * 1.02)
    for k, (end, level) in enumerate(ends[:12]):  # labels alternate between two rows
        where: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "right"}
        panels[0].annotate(level, (end, 1), (0, 16 + 12 * (k % 2)), size=TEXT - 4, color=FAINT, **where)
    if panels:
        panels[-1].set_xlabel("evaluations of the objective", size=TEXT)
    return figure


def swept_scores(jobs: Sequence[Job], keys: Sequence[str]) -> Figure:
    """The scores of `MARKED` against the swept value, one line per value of the other keys.

    The least held-out error and the sharpest product, among runs judged by the same samples, are marked through all
    panels, as is sigma with its standard error if a run estimated it by the evidence.
    """
    axis, numeric, by_line = lines(jobs, keys)
    values = list(dict.fromkeys(job.overrides.get(axis, job.folder.name) for job in jobs))

    def place(job: Job) -> float:
        value = job.value(axis) if numeric else None
        return float(values.index(job.overrides.get(axis, job.folder.name))) if value is None else value

    known = [key for key in MARKED if any(job.number(key) is not None for job in jobs)]
    rotated = not numeric and sum(map(len, values)) > 90
    names = [members[0].label([key for key in keys if key != axis], 80) for members in by_line.values()]
    columns = max(1, min(3, 105 // (max(map(len, names)) + 5)))
    legend = 28 * math.ceil(len(names) / columns) * (len(names) > 1)
    titles = [f"{METRICS[key].label}, {METRICS[key].unit}" for key in known]
    figure, panels = _stack(titles, top=50 + legend, bottom=260 if rotated else 80, pitch=270)
    for axes, key in zip(panels, known, strict=True):
        for k, (name, members) in enumerate(zip(names, by_line.values(), strict=True)):
            x, y = _points(members, key, place)
            turn, colour = divmod(k, len(COLOURS))
            look: dict[str, Any] = {"marker": MARKERS[turn % len(MARKERS)], "color": COLOURS[colour], "label": name}
            axes.plot(x, y, ls="-" if numeric else "", **look, clip_on=False, zorder=3)  # no line between categories
        for k, members in enumerate(alike(jobs, keys)):
            x, y = _points(members, f"{key}_bicubic", place)
            once = np.unique(x)
            _baseline(axes, once, np.array([y[x == each].mean() for each in once]), "" if k else "bicubic")
        for optimum in _mark_best(axes, jobs, keys, key, place):
            for other in panels:
                other.axvline(optimum, color=INK, lw=0.9, ls="--", zorder=1)
        if axis in SIGMA:
            _evidence(axes, jobs, labelled=axes is panels[0])
    places = {value: place(job) for job in jobs for value in [job.overrides.get(axis, job.folder.name)]}
    for axes in panels:
        _ticks(axes, places, numeric, rotated, labelled=axes is panels[-1])
    if panels:
        unit = ", pixels of the band's own grid (mean over the bands)" if axis in SIGMA else ""
        panels[-1].set_xlabel(f"{axis or 'job'}{unit}", size=TEXT)
    if panels and len(by_line) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        corner = (LEFT / WIDTH, 1 - 8 / (figure.get_size_inches()[1] * DPI))
        style: dict[str, Any] = {"ncols": columns, "fontsize": TEXT - 2, "frameon": False, "borderpad": 0}
        figure.legend(handles, labels, loc="upper left", bbox_to_anchor=corner, **style)
    return figure


def _stack(titles: Sequence[str], *, top: int, bottom: int, pitch: int) -> tuple[Figure, list[Axes]]:
    """A panel for each title, from the top; numbers are screen pixels, `pitch` from panel to panel."""
    height = top + bottom + pitch * max(1, len(titles)) - 55
    figure = figure_of(WIDTH, height)
    panels: list[Axes] = []
    for index, title in enumerate(titles):
        low = height - top - pitch * index - (pitch - 55)
        place = (LEFT / WIDTH, low / height, (WIDTH - LEFT - RIGHT) / WIDTH, (pitch - 55) / height)
        axes = figure.add_axes(place, sharex=panels[0] if panels else None)
        axes.set_title(title, size=TEXT, weight="bold", color=INK, loc="left")
        axes.margins(x=0.03, y=0.14)
        axes.grid(color="#e6e6e6", lw=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=TEXT - 2, labelbottom=index == len(titles) - 1)
        axes.spines[["top", "right"]].set_visible(False)
        panels.append(axes)
    return figure, panels


def _baseline(axes: Axes, x: np.ndarray, y: np.ndarray, name: str) -> None:
    if len(y):
        axes.plot(x, y, ls="--", lw=1, marker="_", ms=12, color=FAINT, zorder=1)
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
        axes.annotate(name, (1, y[-1]), (8, 0), size=TEXT - 3, color=FAINT, **place)


def _mark_best(
    axes: Axes, jobs: Sequence[Job], keys: Sequence[str], key: str, place: Callable[[Job], float]
) -> set[float]:
    """A star at the optimum of a score, among runs that are judged alike; returns where the optima are."""
    word, better = MARKED[key]
    marked = [chosen for members in alike(jobs, keys) if (chosen := best(members, key, better))]
    for chosen in marked:
        note = f"{word} {METRICS[key].text(chosen.metrics[key])} at {chosen.label(keys, 50)}"
        apart = f"{word} for each {', '.join(judging(keys))}"
        axes.set_title(note if len(marked) == 1 else apart, size=TEXT - 2, color=FAINT, loc="right")
        axes.plot(place(chosen), chosen.metrics[key], marker="*", ms=20, color="none", mec=INK, mew=1.3, zorder=4)
    return {place(chosen) for chosen in marked}


def _evidence(axes: Axes, jobs: Sequence[Job], *, labelled: bool) -> None:
    """Bands of one standard error around sigma, for runs that estimated it by the evidence."""
    for k, (sigma, error) in enumerate(dict.fromkeys(found for job in jobs if (found := job.evidence()))):
        axes.axvspan(sigma - error, sigma + error, color=COLOURS[3], alpha=0.35, lw=0, zorder=0)
        axes.axvline(sigma, color=COLOURS[3], lw=1.4, zorder=1)
        if labelled:
            note = f"by the evidence {sigma:.3f} ± {error:.3f}"
            place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axes.annotate(note, (sigma, 1), (4, -10 - 14 * k), size=TEXT - 3, color=FAINT, **place)


def _ticks(axes: Axes, places: Mapping[str, float], numeric: bool, rotated: bool, *, labelled: bool) -> None:
    ticks = sorted(set(places.values()))
    if numeric and ticks[0] > 0 and ticks[-1] >= 100 * ticks[0]:
        axes.set_xscale("log")
    gap = min(np.diff(ticks), default=1.0)
    if not numeric or (axes.get_xscale() == "linear" and len(ticks) <= 8 and gap * 20 > ticks[-1] - ticks[0]):
        names = [f"{x:.4g}" for x in ticks] if numeric else [n if len(n) <= 28 else n[:27] + "…" for n in places]
        turn: dict[str, Any] = {"rotation": 90} if len(ticks) > 12 else {"rotation": 30, "ha": "right"}
        axes.set_xticks(ticks, names, **(turn if rotated else {}))
        axes.set_xticks([], minor=True)
    axes.tick_params(labelbottom=labelled)


def _points(jobs: Sequence[Job], key: str, place: Callable[[Job], float]) -> tuple[np.ndarray, np.ndarray]:
    """(places, values) of the jobs that have a value, from left to right."""
    found = np.array(sorted((place(job), y) for job in jobs if (y := job.number(key)) is not None)).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _column(history: Sequence[Mapping[str, str]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """(evaluations, values) of the rows that have a finite one."""
    points = [(float(row["evals"]), float(row[key])) for row in history if row.get(key)]
    found = np.array([point for point in points if math.isfinite(point[1])]).reshape(-1, 2)
    return found[:, 0], found[:, 1]
