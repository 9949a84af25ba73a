"""Building blocks of figures: images as colours, windows of them, and sheets of panels.

An image pixel is drawn as a whole number of screen pixels; or images are area-averaged to screen pixels.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from s2sr.files import atomic
from s2sr.report.metrics import Array, area_average, as_numpy, percentile

Window = tuple[int, int, int, int]  # first row, first column, rows, columns: LR pixels

DPI = 100  # sets only the ratio of text to pixels
GAP = 20  # screen pixels between panels
TEXT = 13  # points
# a fifth of the default's time for a tenth more bytes: noise has no repetitions to find
PNG: dict[str, Any] = {"compress_level": 1, "compress_type": zlib.Z_RLE}
ROWS = 64  # rows coloured at a time, to stay in the cache
MASKED = 215  # grey value of pixels without data
INK, FAINT = "#1a1a1a", "#6a6a6a"
COLOURS = ("#0b62a8", "#d1495b", "#2e8b57", "#e09f3e", "#7d5ba6", "#5c6b73", "#00a5a8", "#9c6644")


def channels(bands: Sequence[str]) -> list[int]:
    """The bands to show as red, green and blue: B04, B03, B02, else the first three, else the first alone."""
    natural = ["B04", "B03", "B02"]
    if set(natural) <= set(bands):
        return [list(bands).index(name) for name in natural]
    return [0, 1, 2] if len(bands) >= 3 else [0]


@dataclass(frozen=True)
class Stretch:
    """The reflectance shown as black and as white, per channel of `channels`."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, image: Array, bands: Sequence[str]) -> Stretch:
        """The 0.5 and 99.5 percentiles of an image [b, y, x]."""
        limits = []
        for k in channels(bands):
            band = as_numpy(image)[k]
            finite = np.isfinite(band)
            known = band if finite.all() else band[finite]
            limits.append([percentile(known, p) for p in (0.5, 99.5)] if known.size else (0.0, 1.0))
        low, high = zip(*limits, strict=True)
        return cls(low, high)


def rgb(image: Array, bands: Sequence[str], stretch: Stretch | None = None) -> np.ndarray:
    """uint8 [y, x, 3], or [y, x] if there are fewer than three bands, of an image [b, y, x]; no data is light grey."""
    stretch = stretch or Stretch.of(image, bands)
    shown = [as_numpy(image)[k] for k in channels(bands)]
    coded = np.empty((*shown[0].shape, len(shown)), np.uint8)
    for first in range(0, len(coded), ROWS):
        rows = slice(first, first + ROWS)
        missing = np.zeros(coded[rows].shape[:2], bool)
        for k, (channel, low, high) in enumerate(zip(shown, stretch.low, stretch.high, strict=True)):
            levels = np.subtract(channel[rows], low, dtype=np.float32)
            unknown = ~np.isfinite(levels)
            missing |= unknown
            levels[unknown] = 0
            levels *= 255 / max(high - low, 1e-9)
            levels += 0.5
            coded[rows, :, k] = levels.clip(0.5, 255.5, out=levels)
        coded[rows][missing] = MASKED
    return coded[..., 0] if coded.shape[-1] == 1 else coded


def png(picture: np.ndarray) -> Image.Image:
    """An image that saves as a PNG with exactly these pixels, uint8 [y, x] or [y, x, 3]."""
    image = Image.fromarray(picture)
    image.encoderinfo = PNG
    return image


def write_png(path: Path, picture: np.ndarray) -> None:
    """The picture as a PNG, whole or not at all."""
    with atomic(path) as target:
        png(picture).save(target)


def save(figure: Figure, path: Path) -> None:
    """The figure as a PNG, whole or not at all."""
    with atomic(path) as target:
        figure.savefig(target, dpi=DPI, pil_kwargs=PNG)


def pixels(figure: Figure) -> np.ndarray:
    """The figure as uint8 [y, x, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


@dataclass(frozen=True)
class Panel:
    """One picture of a sheet, in screen pixels."""

    picture: np.ndarray  # uint8 [y, x] or [y, x, 3]
    title: str = ""
    facts: str = ""  # a second, fainter line
    metre: float | None = None  # screen pixels per metre; draws a scale bar
    frame: tuple[float, float, float] | None = None  # row, column, side of a square to outline, screen pixels


def sheet(rows: Sequence[Sequence[Panel]], header: str = "") -> Figure:
    """Panels in rows, titles above them, each drawn pixel by pixel."""
    cell = max(panel.picture.shape[1] for row in rows for panel in row)
    width = max(len(row) for row in rows) * (cell + GAP) + GAP
    top = GAP + (2 * GAP if header else 0)
    tops, heads = [], []
    for row in rows:
        head = 56 if any(panel.facts for panel in row) else 32 if any(panel.title for panel in row) else 0
        tops.append(top)
        heads.append(head)
        top += head + max(panel.picture.shape[0] for panel in row) + GAP
    figure = figure_of(width, top)
    if header:
        figure.text(GAP / width, 1 - GAP / top, header, size=TEXT, color=FAINT, va="top")
    for row, y, head in zip(rows, tops, heads, strict=True):
        for column, panel in enumerate(row):
            height, breadth = panel.picture.shape[:2]
            left = (GAP + column * (cell + GAP)) / width
            axes = figure.add_axes((left, 1 - (y + head + height) / top, breadth / width, height / top))
            colours = np.broadcast_to(panel.picture.reshape(height, breadth, -1), (height, breadth, 3))
            axes.imshow(colours, interpolation="none", aspect="auto")
            axes.set_axis_off()
            figure.text(left, 1 - (y + 2) / top, panel.title, size=TEXT, weight="bold", color=INK, va="top")
            figure.text(left, 1 - (y + 27) / top, panel.facts, size=TEXT - 1, color=FAINT, va="top")
            if panel.metre:
                _scale_bar(axes, panel.metre, breadth, height)
            if panel.frame:
                row0, column0, side = panel.frame
                outline = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]) * side + (column0 - 0.5, row0 - 0.5)
                edge = withStroke(linewidth=3.2, foreground="black")
                axes.plot(*outline.T, color="white", lw=1.6, clip_on=False, path_effects=[edge])
    return figure


def sized(picture: np.ndarray, factor: int, scale: int, window: Window, side: int) -> tuple[np.ndarray, float]:
    """(the part of `picture` in `window`, for a square of `side` screen pixels; screen pixels per LR pixel).

    picture: [y, x, ...] at `factor` pixels per LR pixel. scale: that of the finest picture to be compared, so that all
    come out at the same size: pixels are repeated as often as there is room, or area-averaged if there are too many.
    """
    row, column, rows, columns = (n * factor for n in window)
    part = picture[row : row + rows, column : column + columns]
    longest = max(window[2:])
    repeat = side // (longest * scale)
    size = repeat * scale if repeat else side / longest
    if repeat and (repeat * scale) % factor == 0:
        times = repeat * scale // factor
        return part.repeat(times, 0).repeat(times, 1), size
    layers = part.reshape(*part.shape[:2], -1).transpose(2, 0, 1)
    drawn = area_average(layers, longest * factor, round(size * longest)).transpose(1, 2, 0)
    drawn = drawn.reshape(*drawn.shape[:2], *part.shape[2:])
    return (drawn + 0.5).astype(np.uint8) if part.dtype == np.uint8 else drawn, size


def zoom_window(image: Array, scale: int, side: int, pixels: int = 24) -> Window:
    """The most detailed square of about `pixels` LR pixels that fills `side` screen pixels at an integer zoom."""
    shape = image.shape[-2:]
    wanted = min(pixels, max(4, min(shape) // 2))
    repeat = max(1, round(side / (wanted * scale)))
    return detail_window(image, min(max(1, side // (repeat * scale)), *shape))


def detail_window(image: Array, side: int) -> Window:
    """The square of `side` LR pixels with the most detail in an image [b, y, x] on the LR grid."""
    bands = as_numpy(image).astype(float)
    contrast = bands.std((1, 2), keepdims=True) + 1e-12
    # the root, so that one bright roof does not outweigh a village
    detail = np.sqrt(np.hypot(*np.gradient(bands / contrast, axis=(1, 2)))).sum(0)
    sums = np.pad(detail, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    sums = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    row, column = np.unravel_index(sums.argmax(), sums.shape)
    return int(row), int(column), side, side


def _scale_bar(axes: Axes, metre: float, width: int, height: int) -> None:
    """A bar of 1, 2 or 5 times a power of ten metres, at most a third of the panel's width."""
    longest = width / 3 / metre
    power = 10 ** math.floor(math.log10(longest))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest)
    x, y = 14, height - 16
    edge = withStroke(linewidth=5, foreground="black")
    axes.plot([x, x + length * metre], [y, y], color="white", lw=3, solid_capstyle="butt", path_effects=[edge])
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    outline = withStroke(linewidth=2.5, foreground="black")
    axes.text(x, y - 9, label, color="white", size=TEXT - 2, weight="bold", va="bottom", path_effects=[outline])


def figure_of(width: int, height: int) -> Figure:
    """A white figure of exactly this many screen pixels; + 0.01, as matplotlib rounds down."""
    return Figure(figsize=((width + 0.01) / DPI, (height + 0.01) / DPI), dpi=DPI, facecolor="white")
