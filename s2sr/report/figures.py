"""Pictures of a run.

An image pixel is drawn as a whole number of screen pixels, or a screen pixel is the mean over its area. All panels of a
figure share one percentile stretch, so that what looks brighter or sharper is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from s2sr.model.grid import Grid
from s2sr.model.scene import Scene
from s2sr.report.metrics import area_average, bicubic, percentile
from s2sr.report.products import atomic, clearest_frame

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

Array = Tensor | np.ndarray
Window = tuple[int, int, int, int]  # first row, first column, rows, columns: LR pixels

DPI = 100  # only the ratio of text to pixels
GAP = 20  # screen pixels between panels
TEXT = 13  # points
PNG: dict[str, Any] = {"compress_level": 1}  # a fifth of the time of the default, for a sixth of the bytes
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
    """Reflectance shown as black and as white, per channel of `channels`."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, image: Array, bands: Sequence[str], percentiles: tuple[float, float] = (0.5, 99.5)) -> Stretch:
        """The percentiles of an image [b, y, x]."""
        known = [band[np.isfinite(band)] for band in _numpy(image)[channels(bands)]]
        limits = [[percentile(band, p) for p in percentiles] if band.size else (0.0, 1.0) for band in known]
        low, high = zip(*limits, strict=True)
        return cls(low, high)


def rgb(image: Array, bands: Sequence[str], stretch: Stretch | None = None) -> np.ndarray:
    """uint8 [y, x, 3], or [y, x] if there are fewer than three bands, of an image [b, y, x]; no data is light grey."""
    stretch = stretch or Stretch.of(image, bands)
    shown = _numpy(image)[channels(bands)]
    coded = np.empty((*shown.shape[1:], len(shown)), np.uint8)
    finite = np.ones(shown.shape[1:], bool)
    for k, (channel, low, high) in enumerate(zip(shown, stretch.low, stretch.high, strict=True)):
        levels = np.subtract(channel, low, dtype=np.float32)
        finite &= np.isfinite(levels)
        levels *= 255 / max(high - low, 1e-9)
        levels += 0.5
        coded[..., k] = np.nan_to_num(levels, copy=False).clip(0.5, 255.5, out=levels)
    if not finite.all():
        coded[~finite] = MASKED
    return coded[..., 0] if coded.shape[-1] == 1 else coded


def png(picture: np.ndarray) -> Image:
    """What saves as a PNG with exactly these pixels, uint8 [y, x] or [y, x, 3]."""
    from PIL.Image import fromarray

    image = fromarray(picture)
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


def scores(metrics: Mapping[str, Any], keys: Sequence[str], suffix: str = "") -> str:
    """One short line of those of `keys` that are known, for a panel."""
    texts = {
        "edge_contrast": "edge {:.3f}",
        "psnr": "PSNR {:.2f}",
        "ssim": "SSIM {:.3f}",
        "holdout_rmse": "held-out {:.4f}",
    }
    found = [(texts[key], metrics.get(key + suffix)) for key in keys]
    return "  ".join(text.format(value) for text, value in found if value is not None and math.isfinite(value))


def comparison(
    scene: Scene,
    product: Array,  # [b, y * scale, x * scale]
    scale: int,
    *,
    stretch: Stretch | None = None,
    metrics: Mapping[str, Any] | None = None,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Figure:
    """One observation | bicubic of the temporal mean | reconstruction | truth and basemap if any, above a zoom of each.

    The stretch is the product's unless given; `metrics` (keys of metrics.json) go into the titles; `shift` as in
    `metrics.fidelity` puts the truth where the product is.
    """
    stretch = stretch or Stretch.of(product, scene.bands)
    metrics = metrics or {}
    shown = ("edge_contrast", "psnr", "ssim")
    t, observed = clearest_frame(scene)
    mean = scene.temporal_mean()
    dates = sorted(o.datetime[:10] for o in scene.observations)
    images = [
        (observed, 1, "One observation", scene.observations[t].datetime[:10]),
        (
            bicubic(mean, scale),
            scale,
            "Bicubic of the mean",
            scores(metrics, shown, "_bicubic") or f"{len(dates)} observations",
        ),
        (product, scale, f"Reconstruction, {scale}x", scores(metrics, shown) or f"{dates[0]} to {dates[-1]}"),
    ]
    if scene.truth is not None:
        level = min(scale, scene.truth.scale)
        truth = area_average(scene.truth.reflectance, scene.truth.scale, level, shift)
        images.append((truth, level, "Truth", f"averaged to {level}x"))
    picture, credit = aerial(scene, scale)
    if picture is not None:
        images.append((picture, scale, "Aerial picture", "another sensor, another day"))
    side = 520 if len(images) >= 4 else 640
    height, width = scene.grid.shape
    pictures = [image if image is picture else rgb(image, scene.bands, stretch) for image, _, _, _ in images]
    window: Window | None = None
    metre = metres_per_pixel(scene.grid)
    rows: list[list[Panel]] = [[], []]
    for picture, (_, factor, title, facts) in zip(pictures, images, strict=True):
        overview, size = fit(picture, factor, scale, (0, 0, height, width), side)
        window = window or zoom_window(mean, scale, max(overview.shape))
        row, column, rows_shown, _ = window
        detail, detail_size = fit(picture, factor, scale, window, max(overview.shape))
        first = not rows[0]
        frame = (row * size, column * size, rows_shown * size)
        rows[0].append(Panel(overview, title, facts, size / metre if metre and first else None, frame))
        rows[1].append(Panel(detail, metre=detail_size / metre if metre and first else None))
    return sheet(rows, credit)


def aerial(scene: Scene, scale: int) -> tuple[np.ndarray | None, str]:
    """(the scene's basemap, uint8 [y * scale, x * scale, 3]; whose it is). None where there is none to be read."""
    if scene.basemap is None:
        return None, ""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.transform import Affine
    from rasterio.vrt import WarpedVRT

    grid = scene.grid.scaled(scale)
    place = {"crs": grid.crs, "transform": Affine(*grid.transform), "height": grid.shape[0], "width": grid.shape[1]}
    try:
        with (
            rasterio.open(scene.basemap, driver="GTiff") as source,
            WarpedVRT(source, **place, resampling=Resampling.bilinear) as warped,
        ):
            picture = np.moveaxis(warped.read([1, 2, 3]), 0, -1)
            return picture, f"Aerial picture: {source.tags().get('attribution', scene.basemap.name)}"
    except (rasterio.errors.RasterioError, IndexError, ValueError) as error:
        log.warning("%s: not shown (%s)", scene.basemap, error)
        return None, ""


def fit(picture: np.ndarray, factor: int, scale: int, window: Window, side: int) -> tuple[np.ndarray, float]:
    """(the part of `picture` in `window`, for a square of `side` screen pixels; screen pixels per LR pixel).

    picture: [y, x, ...] at `factor` pixels per LR pixel. Pictures drawn for one `scale`, the finest of them, come out
    alike: its pixels are repeated as often as there is room, or area-averaged where there are more than the screen has.
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
    """The most detailed square of about `pixels` LR pixels that fills `side` screen pixels at a whole zoom."""
    shape = image.shape[-2:]
    wanted = min(pixels, max(4, min(shape) // 2))
    repeat = max(1, round(side / (wanted * scale)))
    return detail_window(image, min(max(1, side // (repeat * scale)), *shape))


def detail_window(image: Array, side: int) -> Window:
    """The square of `side` LR pixels with the most detail in an image [b, y, x] on the LR grid."""
    bands = _numpy(image).astype(float)
    contrast = bands.std((1, 2), keepdims=True) + 1e-12
    # the root, so that one bright roof does not win against a village
    detail = np.sqrt(np.hypot(*np.gradient(bands / contrast, axis=(1, 2)))).sum(0)
    sums = np.pad(detail, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    sums = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    row, column = np.unravel_index(sums.argmax(), sums.shape)
    return int(row), int(column), side, side


def metres_per_pixel(grid: Grid) -> float | None:
    """Ground length of one step along a row, metres; None if the CRS is unknown or not metric."""
    if grid.crs is None:
        return None
    from rasterio.crs import CRS

    crs = CRS.from_user_input(grid.crs)
    return math.hypot(grid.transform[0], grid.transform[3]) * crs.linear_units_factor[1] if crs.is_projected else None


def residual_map(residual: Array, title: str = "Mean residual") -> Figure:
    """A map of frame - model in units of the noise, [y, x] or [b, y, x] (mean over bands); red: brighter frames."""
    values = _numpy(residual).astype(float)
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
    """Shifts [t, 2] (dy, dx; LR pixels) in the outline of one LR pixel, numbered by date; rings are the true shifts."""
    found = _numpy(shifts)
    order = sorted(range(len(dates)), key=lambda t: dates[t])
    points = [found] if true is None else [found, _numpy(true)]
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
    """A white figure of so many screen pixels; the rest keeps the floor of matplotlib from losing one."""
    return Figure(figsize=((width + 0.01) / DPI, (height + 0.01) / DPI), dpi=DPI, facecolor="white")


def _numpy(x: Array) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
