"""A procedural piece of farmland, as sharp as asked for: the truth behind the simulated scene.

Divided land is sown; a stream, roads and a village are laid on top; then come houses, farms, woods and single trees,
each with the shadow that it casts. Lengths are in metres (an LR pixel is 10 m), so one seed gives the same place at any
resolution, except for its finest texture and a few houses and trees that only just fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from s2sr.data.landscape.buildings import Block, cars, farms, houses
from s2sr.data.landscape.canvas import Canvas
from s2sr.data.landscape.ground import add_water, found_village, pave, sow
from s2sr.data.landscape.materials import BANDS, SUN, Material
from s2sr.data.landscape.parcels import Plan, divide
from s2sr.data.landscape.trees import Tree, rows_of_trees, single_trees, woods

__all__ = ["BANDS", "LR_PIXEL", "Landscape", "Material", "landscape"]

LR_PIXEL = 10.0  # metres
SHADOW = 0.75  # length of a shadow per height
SKYLIGHT = (0.38, 0.30, 0.25, 0.18)  # of the light, in the order of BANDS, that is left in a cast shadow


@dataclass(frozen=True)
class Landscape:
    """The sharp image, and what each pixel is."""

    reflectance: np.ndarray  # [4, y, x] float32, in the order of BANDS
    material: np.ndarray  # [y, x] uint8, Material
    field: np.ndarray  # [y, x] int16: number of the field that a FIELD pixel belongs to
    cover: np.ndarray  # [n] fraction of a field's ground under its crop
    crop_over_soil: np.ndarray  # [n, 4] reflectance of its crop less that of its soil


def landscape(shape: tuple[int, int], *, pixels_per_lr: int = 16, seed: int = 0) -> Landscape:
    """A place of `shape` (rows, columns) in pixels of 10 m / `pixels_per_lr`; equal arguments give equal places."""
    rng = np.random.default_rng(seed)
    plan = Plan.draw(rng)
    canvas = Canvas(shape, pixel=LR_PIXEL / pixels_per_lr, rng=rng)
    parcels = divide(canvas, plan, rng)
    fields = sow(canvas, parcels, rng)
    bank = add_water(canvas, parcels, fields, rng)
    pave(canvas, parcels)
    village = found_village(canvas, parcels, bank, rng)

    streams = _successors(rng, 6)
    blocks = houses(canvas, parcels, village, streams[0])
    blocks += farms(canvas, parcels, village, streams[1])
    blocks += cars(parcels, village, streams[2])
    trees = woods(canvas, parcels, village, streams[3])
    trees += rows_of_trees(canvas, parcels, streams[4])
    trees += single_trees(canvas, bank, village, streams[5])
    _cast_shadows(canvas, [*blocks, *trees])
    for block in blocks:
        block.paint(canvas)
    for tree in trees:
        tree.paint(canvas, streams[5])
    grain = streams[5].standard_normal(shape, dtype=np.float32)
    canvas.image *= 1 + 0.025 * grain + 0.02 * canvas.noise(60, streams[5])
    return Landscape(
        np.clip(canvas.image, 0.002, 0.9), canvas.material, parcels.plot, fields.cover, fields.crop_over_soil
    )


def _successors(rng: np.random.Generator, n: int) -> list[np.random.Generator]:
    """One random stream for each stage, so that what did not fit in one stage does not change the next."""
    streams = [rng]
    for _ in range(n):
        streams += streams[-1].spawn(1)
    return streams[1:]


def _cast_shadows(canvas: Canvas, things: Iterable[Block | Tree]) -> None:
    """Darken everything that an outline sweeps over on its way from the foot to the shadow's end."""
    shade = np.zeros(canvas.shape, np.float32)
    for thing in things:
        length = thing.height * SHADOW
        end = -SUN * thing.height * SHADOW
        where, y, x = canvas.window(thing.position + end / 2, thing.reach + length / 2 + 1)
        y, x = y + np.float32(end[0] / 2), x + np.float32(end[1] / 2)
        patch = shade[where]
        for k in np.linspace(0, 1, 2 + int(length / 2)):
            swept = thing.depth(y - np.float32(k * end[0]), x - np.float32(k * end[1]))
            np.maximum(patch, canvas.inside(swept), out=patch)
    canvas.image *= 1 - shade * (1 - np.array(SKYLIGHT, np.float32)[:, None, None])
