"""Common parts of the pages of runs and sweeps: one self-contained HTML file of pictures, charts and tables.

Pictures are data URIs, charts inline SVG in the page's own colours, style and script inline: the file can be mailed.
Links are relative: a folder that was moved stays whole.
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
import rasterio
import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image
from rasterio.enums import Resampling

from s2sr.files import atomic
from s2sr.model.grid import Grid
from s2sr.raster import grid_of
from s2sr.report.figures import COLOURS, FAINT, INK, Stretch, channels, rgb
from s2sr.report.glossary import FILES
from s2sr.report.metrics import bicubic

SIDE = 2048  # pixels: a picture's longest side in the page
LOSSLESS = 512 * 512  # pixels up to which a picture is a PNG; a larger one is a JPEG, a tenth of the size

# the colours of figures.py by the page's names, which adapt to dark mode
PALETTE = {INK: "ink", "#000000": "ink", FAINT: "faint", **dict.fromkeys(("#e6e6e6", "#dddddd", "#bbbbbb"), "line")}
PALETTE |= {colour: f"c{k}" for k, colour in enumerate(COLOURS)}

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters["cell"] = lambda text, form: format(float(text), form) if text else ""
_templates.filters["mdcell"] = lambda text: " ".join(str(text).split()).replace("|", "\\|")


def write(template: str, path: Path, **facts: Any) -> None:
    """The template filled in with `facts`, whole or not at all."""
    text = _templates.get_template(template).render(facts)
    with atomic(path) as target:
        target.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Picture:
    """One layer of the viewer; all layers of a page have the same footprint."""

    name: str
    title: str
    facts: str
    pixels: np.ndarray  # uint8 [y, x] or [y, x, 3]

    @property
    def uri(self) -> str:
        return uri(self.pixels)


def uri(pixels: np.ndarray) -> str:
    """A data URI of uint8 [y, x] or [y, x, 3]."""
    kind = "png" if pixels.shape[0] * pixels.shape[1] <= LOSSLESS else "jpeg"
    options = {"optimize": True} if kind == "png" else {"quality": 90, "subsampling": 0}
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def file_uri(path: Path) -> str:
    """A data URI of a picture file, reduced to the size that the page needs."""
    with Image.open(path) as image:
        image.thumbnail((SIDE, SIDE))
        return uri(np.asarray(image.convert("RGB")))


@dataclass(frozen=True)
class Raster:
    """A product for display: three of its bands, or one, at the resolution that the page needs."""

    image: np.ndarray  # [b, y, x]
    bands: tuple[str, ...]
    grid: Grid  # of the file

    @classmethod
    def read(cls, path: Path, side: int = SIDE) -> Raster:
        """Averaged to at most `side` pixels along the longer axis."""
        with rasterio.open(path, num_threads=torch.get_num_threads()) as file:
            names = tuple(name or "" for name in file.descriptions)
            kept = channels(names)
            reduce = -(-max(file.shape) // side)
            shape = (len(kept), *(-(-n // reduce) for n in file.shape))
            image = file.read([k + 1 for k in kept], out_shape=shape, resampling=Resampling.average, out_dtype="f4")
            return cls(image, tuple(names[k] for k in kept), grid_of(file))

    def stretch(self) -> Stretch:
        return Stretch.of(self.image, self.bands)

    def smooth(self, shape: tuple[int, int]) -> Raster:
        """Interpolated to about `shape` by the bicubic that is also the baseline of the scores."""
        factor = max(1, round(shape[0] / self.image.shape[1]))
        return Raster(bicubic(torch.from_numpy(self.image), factor).numpy(), self.bands, self.grid)

    def drawn(self, name: str, title: str, facts: str, stretch: Stretch) -> Picture:
        return Picture(name, title, facts, rgb(self.image, self.bands, stretch))


def svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as inline SVG: text stays text, colours are the page's. `name`: unique in the page."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "svg.id": name}):
        # no date and creator, so that equal figures give equal text
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style).*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[a-z0-9.]+_\d+"', "", text)  # ids of groups: not unique in the page, and unused
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", text)
    for colour, meaning in PALETTE.items():
        text = text.replace(colour, f"var(--{meaning})")
    label = f'<svg role="img" aria-label="{Markup.escape(description)}"'
    return Markup(text.replace("<svg", label, 1).strip())


def tags(path: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """(tags, band names) of a product; empty if it does not exist."""
    if not path.is_file():
        return {}, ()
    with rasterio.open(path) as file:
        return file.tags(), tuple(name or "" for name in file.descriptions)


def listed(folder: Path) -> list[dict[str, str]]:
    """The files of `FILES` beside the page: name, what it is, size."""
    found = []
    for pattern, meaning in FILES.items():
        for path in sorted(folder.glob(pattern)):
            name, length = (f"{path.name}/", "") if path.is_dir() else (path.name, size(path.stat().st_size))
            found.append({"name": name, "meaning": meaning, "size": length})
    return found


def size(count: float) -> str:
    """Bytes in readable units."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:  # more would be shown as 1e+03
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
