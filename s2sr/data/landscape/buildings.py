"""What people build on the ground: houses, farms, and the cars on the roads."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from s2sr.data.landscape.canvas import Canvas, along_and_across
from s2sr.data.landscape.ground import Village
from s2sr.data.landscape.materials import SUN, Material
from s2sr.data.landscape.parcels import MAIN, MINOR, TRACK, Line, Parcels

ROOFS = {"red tile": 0.55, "brown tile": 0.22, "slate": 0.17, "fibre cement": 0.06}  # share of the houses


@dataclass(frozen=True)
class Block:
    """A house, shed, silo or car: a rectangle under a roof. Lengths are metres."""

    position: np.ndarray
    along: np.ndarray  # unit direction of the ridge
    half_length: float
    half_width: float
    height: float
    roof: str
    form: str = "gable"  # or flat, round
    ridges: int = 1

    @property
    def reach(self) -> float:
        """The distance from the middle to a corner."""
        return float(np.hypot(self.half_length, self.half_width))

    def depth(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The distance of points, given relative to the middle, to the outline; positive inside."""
        if self.form == "round":
            return np.float32(self.half_width) - np.hypot(y, x)
        p, q = along_and_across(self.along, y, x)
        return np.minimum(np.float32(self.half_length) - np.abs(p), np.float32(self.half_width) - np.abs(q))

    def paint(self, canvas: Canvas) -> None:
        """Paint a roof whose faces are lit according to their angle to the sun."""
        where, y, x = canvas.window(self.position, self.reach + 1)
        _, q = along_and_across(self.along, y, x)
        if self.form == "gable":
            width = 2 * self.half_width / self.ridges
            from_ridge = np.mod(q + self.half_width, width) - width / 2
            towards = float(np.array([self.along[1], -self.along[0]]) @ SUN)
            light = 1 + 0.42 * towards * np.clip(from_ridge / canvas.pixel, -1, 1)
            light += 0.05 * canvas.texture[where] + 0.2 * canvas.inside(0.2 - np.abs(from_ridge))
        elif self.form == "round":
            light = 1 + 0.25 * (y * SUN[0] + x * SUN[1]) / self.half_width
        else:
            light = np.ones_like(q)
        material = Material.ROAD if self.form == "flat" else Material.ROOF
        alpha = canvas.inside(self.depth(y, x))
        canvas.paint(alpha, self.roof, material, light=light.astype(np.float32), where=where)


def houses(canvas: Canvas, parcels: Parcels, village: Village, rng: np.random.Generator) -> list[Block]:
    """Build houses with sheds and drives along the roads of the village. Their ground is taken afterwards."""
    found: list[Block] = []
    for line, side in product(parcels.of_kind(MAIN, MINOR), (-1, 1)):
        s = rng.uniform(0, 15)
        while s < line.length:
            set_back, length = rng.uniform(13, 18), rng.uniform(4.8, 8.5)
            position = parcels.on_ground(line, s, side * set_back)
            if village.near(position) and rng.random() < 0.92 and canvas.is_free(position, 7):
                turn = rng.normal(0, 0.06) + np.pi / 2 * (rng.random() < 0.3)
                along, size = _turned(line.along, turn), (length, rng.uniform(3.6, 5.2))
                found.append(_build(canvas, position, along, size, 6.5, _any_roof(rng)))
                kerb = 5.0 if line.kind == MAIN else 2.5
                drive = parcels.on_ground(line, s + length + 1.5, side * (set_back + kerb) / 2)
                _surface(canvas, drive, line.along, (1.5, (set_back - kerb) / 2), "gravel")
                shed = parcels.on_ground(line, s + rng.uniform(-6, 6), side * (set_back + 13))
                if rng.random() < 0.6 and canvas.is_free(shed, 4):
                    size = (rng.uniform(2.5, 4.5), rng.uniform(1.8, 2.8))
                    found.append(_build(canvas, shed, along, size, 3.5, _any_roof(rng)))
            s += 2 * length + rng.uniform(4, 10)
    return found


def farms(canvas: Canvas, parcels: Parcels, village: Village, rng: np.random.Generator) -> list[Block]:
    """Build yards with sheds and silos, or with greenhouses, beside minor roads and tracks. Their ground is taken
    afterwards.
    """
    found: list[Block] = []
    roads = [line for line in parcels.of_kind(MINOR, TRACK) if line.length > 80]
    wanted = max(1, round(float(np.prod(canvas.extent)) / 2.2e5))
    for _ in range(100 if roads else 0):
        line = roads[rng.integers(len(roads))]
        side, s = rng.choice((-1, 1)), rng.uniform(0.15, 0.85) * line.length
        yard = parcels.on_ground(line, s, side * 36)
        if not canvas.is_free(yard, 31) or village.gardens[canvas.pixel_at(yard)]:
            continue
        _surface(canvas, yard, line.along, (33, 28), "meadow", Material.GRASS)
        _surface(canvas, yard, line.along, (24, 22), "dirt")
        _surface(canvas, parcels.on_ground(line, s, side * 9), line.along, (3, 9), "dirt")
        found += _farm(canvas, parcels, line, s, side, under_glass=wanted % 3 == 2, rng=rng)
        where, y, x = canvas.window(yard, 36)
        canvas.taken[where] |= np.hypot(y, x) < 36
        wanted -= 1
        if wanted == 0:
            break
    return found


def cars(parcels: Parcels, village: Village, rng: np.random.Generator) -> list[Block]:
    """Put cars on both lanes of the roads, more of them in the village."""
    found = []
    for line in parcels.of_kind(MAIN, MINOR):
        s = rng.uniform(0, 60)
        while s < line.length:
            lane = rng.choice((-1, 1)) * (1.8 if line.kind == MAIN else 1.2)
            position = parcels.on_ground(line, s, lane)
            colour = str(rng.choice(("white", "white", "black", "red", "blue", "metal")))
            found.append(Block(position, line.along, 2.3, 0.95, 1.5, colour, "flat"))
            s += rng.exponential(28 if village.near(position) else 90) + 6
    return found


def _farm(
    canvas: Canvas,
    parcels: Parcels,
    line: Line,
    s: float,
    side: int,
    *,
    under_glass: bool,
    rng: np.random.Generator,
) -> list[Block]:
    """Build three greenhouses, or two or three sheds and a row of silos, in the yard at one side of a line."""
    found = []
    for offset in (-15, 0, 15):
        position = parcels.on_ground(line, s + rng.uniform(-4, 4), side * (36 + offset))
        size = (rng.uniform(12, 20), rng.uniform(5, 6.4))
        if under_glass:
            found.append(_build(canvas, position, line.along, (20, 6.2), 4, "glass", ridges=2))
        elif offset < 15 or rng.random() < 0.5:
            roof = str(rng.choice(("metal", "fibre cement", "red tile", "fibre cement")))
            found.append(_build(canvas, position, line.along, size, 7.5, roof))
    for k in range(0 if under_glass else 3):
        position = parcels.on_ground(line, s + 27 * side, side * (26 + 6 * k))
        found.append(_build(canvas, position, line.along, (2.3, 2.3), 9, "metal", form="round"))
    return found


def _build(
    canvas: Canvas,
    position: np.ndarray,
    along: np.ndarray,
    half: tuple[float, float],
    height: float,
    roof: str,
    *,
    form: str = "gable",
    ridges: int = 1,
) -> Block:
    """Return a new block and mark its ground as taken."""
    block = Block(position, along, *half, height, roof, form, ridges)
    where, y, x = canvas.window(position, block.reach + 2)
    canvas.taken[where] |= block.depth(y, x) > -1.5
    return block


def _surface(
    canvas: Canvas,
    position: np.ndarray,
    along: np.ndarray,
    half: tuple[float, float],
    colour: str,
    material: Material = Material.BARE,
) -> None:
    """Paint a rectangle on the ground, where nothing stands."""
    slab = Block(position, along, *half, 0, colour)
    where, y, x = canvas.window(position, slab.reach + 1)
    canvas.paint(canvas.inside(slab.depth(y, x)) * ~canvas.taken[where], colour, material, where=where)


def _turned(direction: np.ndarray, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([(c, -s), (s, c)]) @ direction


def _any_roof(rng: np.random.Generator) -> str:
    return str(rng.choice(list(ROOFS), p=list(ROOFS.values())))
