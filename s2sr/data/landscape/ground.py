"""The ground of the landscape: fields, water, roads and the gardens of the village. Nothing here casts a shadow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from s2sr.data.landscape.canvas import Canvas, along_and_across
from s2sr.data.landscape.materials import REFLECTANCE, Material, spectrum
from s2sr.data.landscape.parcels import HEDGE, MAIN, MARGIN, MINOR, Parcels


@dataclass(frozen=True)
class Crop:
    """A crop: rows of a plant over soil."""

    plant: str
    soil: str
    cover: float  # fraction of the ground
    rows: float  # amplitude of the rows in cover
    spacing: tuple[float, float]  # metres between rows
    patchy: float  # amplitude of smooth variation in cover
    tramlines: bool = False  # the sprayer's wheel tracks, every 18 m
    share: float = 1.0  # of the plots, before they are scaled to add up to 1


CROPS = (
    Crop("wheat", "brown soil", 0.90, 0.07, (2.6, 4), 0.05, tramlines=True, share=1.6),
    Crop("ripe", "pale soil", 0.85, 0.10, (2.6, 4), 0.09, tramlines=True, share=1.6),
    Crop("maize", "brown soil", 0.62, 0.22, (2.8, 4.5), 0.07, share=1.2),
    Crop("beet", "brown soil", 0.75, 0.16, (2.6, 3.8), 0.08),
    Crop("rape", "brown soil", 0.85, 0.05, (3, 5), 0.10, tramlines=True, share=0.6),
    Crop("maize", "pale soil", 0.12, 0.10, (2.8, 4.5), 0.06),
    Crop("dry grass", "brown soil", 0.05, 0.05, (3.5, 6), 0.06, share=0.9),
    Crop("ripe", "stubble", 0.25, 0.24, (6, 9), 0.08, share=1.2),
    Crop("meadow", "dry grass", 0.75, 0.10, (6, 10), 0.16, share=1.8),
    Crop("broadleaf", "dry grass", 0.45, 0.42, (3.8, 5.2), 0.06, share=0.8),  # vines or fruit bushes
)
GARDENS = {"lawn": 0.46, "meadow": 0.3, "dry grass": 0.14, "brown soil": 0.06, "gravel": 0.04}  # share of the gardens


@dataclass(frozen=True)
class Fields:
    """What grows on the plots."""

    crops: list[Crop]
    cover: np.ndarray  # [n] fraction of a plot's ground under its crop
    crop_over_soil: np.ndarray  # [n, 4] reflectance of its crop less that of its soil


@dataclass(frozen=True)
class Village:
    """The village: where it lies, how far it reaches, and its gardens."""

    position: np.ndarray
    reach: float  # metres
    gardens: np.ndarray  # [y, x] bool

    def near(self, positions: np.ndarray) -> np.ndarray:
        """[...] whether positions [..., 2] are in the village."""
        return np.linalg.norm(positions - self.position, axis=-1) < self.reach


def sow(canvas: Canvas, parcels: Parcels, rng: np.random.Generator) -> Fields:
    """Give every plot a crop in rows along its long side, a headland, and grass along its edge."""
    n = len(parcels.outlines)
    share = np.array([crop.share for crop in CROPS])
    crops = [CROPS[c] for c in rng.choice(len(CROPS), n, p=share / share.sum())]
    plant, soil = (
        np.array([REFLECTANCE[name] for name in names]) * rng.uniform(0.88, 1.12, (n, 1))
        for names in ([c.plant for c in crops], [c.soil for c in crops])
    )
    fields = Fields(crops, np.array([c.cover for c in crops]), plant - soil)

    def of_plot(values: Iterable[float]) -> np.ndarray:
        return np.array(list(values), np.float32)[parcels.plot]

    edge = parcels.distance.min(0)
    along = np.array([_long_side(outline) for outline in parcels.outlines])
    across = parcels.on_plan[0] * of_plot(along[:, 1]) - parcels.on_plan[1] * of_plot(along[:, 0])
    across = np.where(edge < 9, edge, across)  # the headland is worked along the edge
    rows = np.sin(across * of_plot(2 * np.pi / rng.uniform(*c.spacing) for c in crops))
    wheels = np.clip(1 - np.abs(np.abs(np.mod(across, 18) - 9) - 0.9) / 0.6, 0, 1) * (edge > 9)
    cover = of_plot(fields.cover) + of_plot(c.rows for c in crops) * rows
    cover += of_plot(c.patchy for c in crops) * (0.7 * canvas.noise(35, rng) + 0.5 * canvas.noise(9, rng))
    cover -= 0.45 * of_plot(c.tramlines for c in crops) * wheels
    cover = np.clip(cover, 0, 1)
    uneven = 1 + 0.03 * canvas.noise(20, rng) + 0.03 * canvas.texture
    for b in range(4):
        canvas.image[b] = (of_plot(soil[:, b]) + of_plot(fields.crop_over_soil[:, b]) * cover) * uneven
    grass = 1.2 + 0.5 * canvas.noise(12, rng) - np.minimum(parcels.distance[HEDGE], parcels.distance[MARGIN])
    canvas.paint(canvas.inside(grass), "dry grass", Material.GRASS, light=1 + 0.12 * canvas.noise(7, rng))
    return fields


def add_water(canvas: Canvas, parcels: Parcels, fields: Fields, rng: np.random.Generator) -> np.ndarray:
    """Add a stream that winds across the main road, and a pond in a meadow; returns the metres to water [y, x]."""
    bank = _stream(canvas, parcels.plan.angle + np.pi / 2 + rng.normal(0, 0.1), rng)
    meadows = [o for o, crop in zip(parcels.outlines, fields.crops, strict=True) if crop.plant == "meadow"]
    if meadows:
        y, x = canvas.relative_to(parcels.plan.on_ground(meadows[rng.integers(len(meadows))].mean(0)))
        bank = np.minimum(bank, np.hypot(y, np.float32(0.7) * x) - 11 - 3 * canvas.noise(14, rng))
    rough = 1 + 0.15 * canvas.texture
    canvas.paint(np.clip((9 - bank) / 4, 0, 1), "meadow", Material.GRASS, light=rough)
    canvas.paint(np.clip((3.5 - bank) / 3, 0, 1) * 0.85, "reed", light=rough)
    silt, water = spectrum("silt"), spectrum("water")
    deep = np.clip(-bank / 4, 0, 1)
    canvas.paint(np.clip(0.5 - bank / 1.2, 0, 1), silt + deep * (water - silt), Material.WATER)
    canvas.taken |= bank < 3
    return bank


def pave(canvas: Canvas, parcels: Parcels) -> None:
    """Lay roads with verges, the main road's kerbs and dashes, and tracks with two wheel marks."""
    main, minor, track = parcels.distance[:3]
    inside, worn = canvas.inside, 1 + 0.05 * canvas.texture
    canvas.paint(inside(2.3 - track) * 0.75, "dry grass", Material.GRASS, light=worn)
    canvas.paint(inside(4.2 - minor) * 0.8, "dry grass", Material.GRASS, light=worn)
    canvas.paint(inside(8.0 - main) * 0.8, "lawn", Material.GRASS, light=worn)
    wheels = np.maximum(inside(0.55 - np.abs(track - 0.85)), 0.35 * inside(1.6 - track))
    canvas.paint(wheels, "dirt", Material.BARE, light=worn)
    canvas.paint(inside(2.5 - minor), "asphalt", Material.ROAD, light=1.15 * worn)
    canvas.paint(inside(5.0 - main), "kerb", Material.ROAD, light=worn)
    canvas.paint(inside(3.7 - main), "asphalt", Material.ROAD, light=worn)
    s, _ = along_and_across(parcels.lines[0].along, *parcels.on_plan)
    canvas.paint(inside(0.15 - main) * (np.mod(s, 9) < 4.5) * 0.7, "white")
    canvas.taken |= (main < 5.5) | (minor < 3) | (track < 2.5)


def found_village(canvas: Canvas, parcels: Parcels, bank: np.ndarray, rng: np.random.Generator) -> Village:
    """Found the village at the road junction nearest to the middle that is not at the water, with gardens behind its
    roads.

    bank: [y, x] metres to water.
    """
    ends = np.array([line.at(s) for line in parcels.of_kind(MINOR) for s in (0, line.length)])

    def remoteness(point: np.ndarray) -> float:
        pixel = canvas.pixel_at(point)
        to_water, to_main = max(0, 70 - bank[pixel]), min(parcels.distance[MAIN][pixel], 200)
        return float(np.linalg.norm(point - canvas.extent / 2) + 3 * to_water + 2 * to_main)

    position = min(parcels.plan.on_ground(ends), key=remoteness)
    reach = 0.24 * float(min(canvas.extent))

    main, minor = parcels.distance[MAIN], parcels.distance[MINOR]
    away = np.hypot(*canvas.relative_to(position))
    depth = np.minimum(38 - np.minimum(main, minor), reach - away + 8 * canvas.noise(60, rng))
    depth = np.minimum(depth, bank - 4)
    free = canvas.inside(np.minimum(depth, np.minimum(main - 5, minor - 2.5)))
    _lay_out_gardens(canvas, parcels, free, rng)
    return Village(position, reach, gardens=depth > 0)


def _long_side(outline: np.ndarray) -> np.ndarray:
    """The unit direction of a polygon's longest side."""
    sides = np.roll(outline, -1, 0) - outline
    longest = sides[np.argmax((sides**2).sum(1))]
    return longest / np.linalg.norm(longest)


def _stream(canvas: Canvas, angle: float, rng: np.random.Generator) -> np.ndarray:
    """[y, x] the metres to a stream that runs at `angle` against north."""
    scale = float(min(canvas.extent))
    foot = canvas.extent * (0.5 + 0.28 * rng.choice((-1, 1)), 0.5)
    along, across = along_and_across(np.array([np.cos(angle), np.sin(angle)]), *canvas.relative_to(foot))
    slope = np.zeros_like(along)
    for amplitude, shortest, longest in ((0.05, 0.45, 0.7), (0.018, 0.18, 0.3)):
        k, phase = 2 * np.pi / (scale * rng.uniform(shortest, longest)), rng.uniform(0, 2 * np.pi)
        bend = np.float32(k) * along + np.float32(phase)
        across -= np.float32(scale * amplitude) * np.sin(bend)
        slope += np.float32(scale * amplitude * k) * np.cos(bend)
    return np.abs(across) / np.sqrt(1 + slope**2) - 6.5 - 1.2 * canvas.noise(30, rng) - 0.4 * canvas.noise(6, rng)


def _lay_out_gardens(canvas: Canvas, parcels: Parcels, free: np.ndarray, rng: np.random.Generator) -> None:
    """Paint gardens of 17 m x 23 m along the main road, with hedges between them, where it is free ([y, x], 0 to 1)."""
    s, q = along_and_across(parcels.lines[0].along, *parcels.on_plan)
    garden = np.floor(s / 17).astype(int) % 101, np.floor(q / 23).astype(int) % 97
    kind = rng.choice(len(GARDENS), (101, 97), p=list(GARDENS.values()))[garden]
    tint = rng.uniform(0.85, 1.15, (101, 97)).astype(np.float32)[garden]
    palette = np.array([REFLECTANCE[name] for name in GARDENS], np.float32)
    rough = tint * (1 + 0.08 * canvas.texture + 0.05 * canvas.noise(5, rng))
    canvas.paint(free, np.moveaxis(palette[kind], -1, 0), Material.GRASS, light=rough)
    fence = np.minimum(np.mod(s, 17), np.mod(q, 23))
    canvas.paint(free * canvas.inside(1 - fence) * 0.6, "broadleaf")
