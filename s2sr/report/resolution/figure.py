"""The figure of a product's resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from s2sr.model.field import SplatField
from s2sr.report.figures import COLOURS, DPI, FAINT, INK, TEXT
from s2sr.report.resolution import CRITERION, EDGES, KNOWN, RINGS, Resolution, ring_correlation


def curves(
    found: Resolution,
    halves: Sequence[SplatField],
    *,
    truth: Resolution | None = None,
    forecast: float | None = None,  # cycles per LR pixel up to which an error of 1/4 of the power was forecast
    metre: float | None = None,
) -> Figure:
    """C against frequency per band, with that of the truth, if known, and the correlation of the halves."""
    scale = halves[0].scale
    first, second = (half.render().cpu().numpy() for half in halves)
    agreement = ring_correlation(first, second, scale, found.widths)
    figure = Figure(figsize=(9.6, 6), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.08, 0.11, 0.89, 0.74))
    for b, (band, resolved) in enumerate(zip(found.bands, found.frequencies, strict=True)):
        f, colour = RINGS / found.widths[b], COLOURS[b % len(COLOURS)]
        c = np.where(found.error[b] <= KNOWN, found.correlation[b], np.nan)
        length = f" = {metre / (2 * resolved):.1f} m" if metre else ""
        axes.fill_between(f, c - found.error[b], c + found.error[b], color=colour, alpha=0.15, lw=0)
        axes.plot(f, c, color=colour, lw=2, label=f"{band}: up to {resolved:.2f}{length}")
        axes.plot(f, agreement[b], color=colour, lw=1, ls=":")
        if truth:
            axes.plot(f, truth.correlation[b], color=colour, lw=1.2, ls="--")
        axes.plot(resolved, CRITERION, "o", color=colour, ms=7, mec="white", zorder=4)
    axes.axhline(CRITERION, color=FAINT, lw=1)
    if forecast:
        promised = math.sqrt(1 - 1 / 4)  # C of an estimate whose error has 1/4 of the power
        axes.plot(forecast, promised, "*", color=INK, ms=13, mec="white", zorder=4)
        beside: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "top"}  # the curves lie above
        beside["path_effects"] = [withStroke(linewidth=3, foreground="white")]
        axes.annotate("forecast", (forecast, promised), (-6, -3), size=TEXT - 2, color=INK, **beside)
    axes.set(xlim=(0, EDGES[-1] / found.widths.min()), ylim=(-0.02, 1.02))
    axes.set_xlabel("cycles per LR pixel", size=TEXT)
    axes.set_ylabel("correlation", size=TEXT)
    axes.tick_params(labelsize=TEXT - 2)
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", fontsize=TEXT - 2, frameon=False)
    style: dict[str, Any] = {"color": FAINT, "size": TEXT - 2, "va": "top"}
    figure.text(0.08, 0.97, "Which detail is real", **style | {"color": INK, "size": TEXT, "weight": "bold"})
    lines = "solid: product with truth, estimated from two halves" + (", dashed: measured" if truth else "")
    figure.text(0.08, 0.925, lines, **style)
    figure.text(0.08, 0.885, "dotted: one half with the other, including what their common prior made up", **style)
    return figure
