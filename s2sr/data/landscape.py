"""A procedural piece of farmland, as sharp as asked for: the truth behind the simulated scene.

Land is divided as land is: a domain is cut in two, again and again, by straight lines in slightly warped coordinates.
The first cut is the main road, the next ones minor roads, then farm tracks, then hedges and margins: so roads meet, and
a pixel's distance to the nearest boundary of a kind is the least over the cuts it went through.
A river, a village, farms, woods and single trees are laid on top, each with the shadow it casts.

Lengths are metres (an LR pixel is 10 m), so one seed gives the same place at any resolution, but for its
finest texture and a few houses and trees that only just fit.
Reflectances are plausible values for a clear summer day, not measured spectra.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

BANDS = ("B02", "B03", "B04", "B08")
LR_PIXEL = 10.0  # metres

REFLECTANCE = {  # B02, B03, B04, B08
    "wheat": (0.030, 0.065, 0.035, 0.46),
    "maize": (0.028, 0.060, 0.032, 0.42),
    "beet": (0.033, 0.075, 0.038, 0.50),
    "ripe": (0.070, 0.110, 0.130, 0.31),
    "rape": (0.050, 0.140, 0.120, 0.42),
    "meadow": (0.040, 0.080, 0.055, 0.37),
    "lawn": (0.036, 0.082, 0.045, 0.43),
    "dry grass": (0.065, 0.105, 0.105, 0.33),
    "brown soil": (0.070, 0.098, 0.130, 0.200),
    "pale soil": (0.110, 0.150, 0.195, 0.285),
    "stubble": (0.095, 0.140, 0.180, 0.310),
    "dirt": (0.140, 0.185, 0.230, 0.300),
    "gravel": (0.140, 0.160, 0.180, 0.215),
    "broadleaf": (0.026, 0.055, 0.032, 0.42),
    "conifer": (0.018, 0.034, 0.021, 0.25),
    "water": (0.042, 0.050, 0.034, 0.014),
    "silt": (0.070, 0.085, 0.080, 0.050),
    "reed": (0.040, 0.070, 0.060, 0.28),
    "asphalt": (0.085, 0.095, 0.105, 0.125),
    "kerb": (0.210, 0.240, 0.260, 0.290),
    "red tile": (0.070, 0.100, 0.190, 0.280),
    "brown tile": (0.075, 0.090, 0.125, 0.180),
    "slate": (0.090, 0.098, 0.105, 0.125),
    "metal": (0.340, 0.355, 0.365, 0.375),
    "fibre cement": (0.230, 0.250, 0.265, 0.290),
    "glass": (0.260, 0.300, 0.290, 0.380),
    "white": (0.450, 0.460, 0.460, 0.450),
    "black": (0.030, 0.030, 0.030, 0.040),
    "red": (0.050, 0.055, 0.250, 0.330),
    "blue": (0.200, 0.130, 0.080, 0.150),
}
SKYLIGHT = (0.38, 0.30, 0.25, 0.18)  # of the light that is left in a cast shadow

SUN = np.array([0.88, 0.47])  # towards the sun (south, east): mid-morning
SHADOW = 0.75  # length of a shadow per height


class Material(IntEnum):
    GRASS = 0
    FIELD = 1
    TREE = 2
    WATER = 3
    ROAD = 4
    BARE = 5
    ROOF = 6


@dataclass(frozen=True)
class Landscape:
    """The sharp image, and what each pixel is."""

    reflectance: np.ndarray  # [4, y, x] float32, in the order of BANDS
    material: np.ndarray  # [y, x] uint8, Material
    field: np.ndarray  # [y, x] int16: number of the field that a FIELD pixel belongs to
    cover: np.ndarray  # [n] fraction of a field's ground under its crop
    crop_over_soil: np.ndarray  # [n, 4] reflectance of its crop less that of its soil


@dataclass(frozen=True)
class Crop:
    plant: str
    soil: str
    cover: float  # fraction of the ground
    rows: float  # amplitude of the rows in cover
    spacing: tuple[float, float]  # metres between rows
    patchy: float  # amplitude of smooth variation in cover
    tramlines: bool = False  # the sprayer's wheel tracks, every 18 m
    share: float = 1.0


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
MAIN, MINOR, TRACK, HEDGE, MARGIN = range(5)  # what a boundary is
ROOFS = {"red tile": 0.55, "brown tile": 0.22, "slate": 0.17, "fibre cement": 0.06}  # share of the houses
GARDENS = {"lawn": 0.46, "meadow": 0.3, "dry grass": 0.14, "brown soil": 0.06, "gravel": 0.04}  # share of the parcels
Window = tuple[slice, slice]


def landscape(shape: tuple[int, int], *, pixels_per_lr: int = 16, seed: int = 0) -> Landscape:
    """A place of `shape` (rows, columns) in pixels of 10 m / `pixels_per_lr`; equal arguments give equal places."""
    return _Land(shape, LR_PIXEL / pixels_per_lr, seed).build()


@dataclass(frozen=True)
class _Line:
    """A boundary between plots: start + s * along on the plan, 0 <= s <= length."""

    kind: int
    start: np.ndarray
    along: np.ndarray
    length: float

    def at(self, s: float | np.ndarray, offset: float | np.ndarray = 0.0) -> np.ndarray:
        """[..., 2] points at s, `offset` metres to the side."""
        across = np.array([self.along[1], -self.along[0]])
        return self.start + np.asarray(s)[..., None] * self.along + np.asarray(offset)[..., None] * across


@dataclass(frozen=True)
class _Block:
    """A house, shed, silo or car: a rectangle under a roof."""

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
        return float(np.hypot(self.half_length, self.half_width))

    def axes(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates along and across the ridge of points relative to the middle."""
        a, b = self.along.astype(np.float32)
        return y * a + x * b, y * b - x * a

    def depth(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Distance to the outline, positive inside."""
        if self.form == "round":
            return np.float32(self.half_width) - np.hypot(y, x)
        p, q = self.axes(y, x)
        return np.minimum(np.float32(self.half_length) - np.abs(p), np.float32(self.half_width) - np.abs(q))


@dataclass(frozen=True)
class _Tree:
    position: np.ndarray
    radius: float
    kind: str

    def depth(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.float32(0.92 * self.radius) - np.hypot(y, x)


class _Land:
    """The canvas while it is painted.

    The ground is (y, x) in metres from the canvas' outer corner; the plan is the ground as it was before it was warped,
    and there all boundaries are straight.
    """

    def __init__(self, shape: tuple[int, int], pixel: float, seed: int) -> None:
        self.pixel = pixel
        self.rng = np.random.default_rng(seed)
        self.y, self.x = ((np.arange(n, dtype=np.float32) + 0.5) * np.float32(pixel) for n in shape)
        self.extent = np.array(shape) * pixel
        self.image = np.zeros((4, *shape), np.float32)
        self.material = np.full(shape, Material.FIELD, np.uint8)
        self.shade = np.zeros(shape, np.float32)
        self.taken = np.zeros(shape, bool)  # where nothing more is built or planted
        # three waves of 260 m and longer for each axis: boundaries curve gently
        direction, self.wave_phases = self.rng.uniform(0, 2 * np.pi, (2, 2, 3))
        wave_number = 2 * np.pi / np.array([260, 380, 540])[:, None]
        self.wave_vectors = np.stack([np.cos(direction), np.sin(direction)], -1) * wave_number
        self.angle = self.rng.uniform(0.1, 0.5) * self.rng.choice((-1, 1))  # of the main road against north
        self.texture = self.noise(1.3)

    def build(self) -> Landscape:
        self.divide()
        self.sow()
        self.add_water()
        self.pave()
        self.found_village()
        blocks = [block for stage in (self.houses, self.farms, self.cars) for block in self.afresh(stage)]
        trees = [tree for stage in (self.woods, self.rows_of_trees, self.single_trees) for tree in self.afresh(stage)]
        for thing in blocks:
            self.cast(thing, thing.position, thing.height, thing.reach)
        for tree in trees:
            self.cast(tree, tree.position, 1.9 * tree.radius, tree.radius)
        self.image *= 1 - self.shade * (1 - np.array(SKYLIGHT, np.float32)[:, None, None])
        for block in blocks:
            self.paint_block(block)
        for tree in trees:
            self.paint_tree(tree)
        self.image *= 1 + 0.025 * self.rng.standard_normal(self.shade.shape, dtype=np.float32) + 0.02 * self.noise(60)
        return Landscape(np.clip(self.image, 0.002, 0.9), self.material, self.plot, self.cover, self.crop_over_soil)

    # Tools

    def afresh(self, stage: Callable[[], list]) -> list:
        """Run a stage on its own random stream: what did not fit in the one before must not change it."""
        self.rng = self.rng.spawn(1)[0]
        return stage()

    def noise(self, wavelength: float) -> np.ndarray:
        """Smooth noise of unit variance: Gaussians at nodes `wavelength` metres apart."""

        def spread(positions: np.ndarray, length: float) -> np.ndarray:
            nodes = np.arange(-3, length / wavelength + 4, dtype=np.float32)
            weights = np.exp(-(((positions[:, None] / wavelength - nodes) / 0.6) ** 2) / 2)
            return weights / np.sqrt((weights**2).sum(1, keepdims=True))

        down, across = spread(self.y, self.extent[0]), spread(self.x, self.extent[1])
        nodes = self.rng.standard_normal((down.shape[1], across.shape[1])).astype(np.float32)
        return (down @ nodes @ across.T).astype(np.float32)

    def warp(self, y: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
        """The plan less the ground, in metres, at points of the ground: 4 m per wave at most."""
        dtype = y.dtype.type
        return [
            sum(dtype(4) * np.sin(dtype(k[0]) * y + dtype(k[1]) * x + dtype(p)) for k, p in zip(ks, ps, strict=True))
            for ks, ps in zip(self.wave_vectors, self.wave_phases, strict=True)
        ]

    def on_ground(self, plan: np.ndarray) -> np.ndarray:
        """Where points [..., 2] of the plan lie; the warp is a contraction, so iterate."""
        ground = plan = np.asarray(plan, dtype=float)
        for _ in range(6):
            ground = plan - np.stack(self.warp(ground[..., 0], ground[..., 1]), -1)
        return ground

    def pixel_at(self, position: np.ndarray) -> tuple[int, int]:
        """The nearest pixel of the canvas."""
        y, x = np.clip(position // self.pixel, 0, np.array(self.shade.shape) - 1).astype(int)
        return y, x

    def window(self, position: np.ndarray, reach: float) -> tuple[Window, np.ndarray, np.ndarray]:
        """The part of the canvas within `reach` of a position, and the coordinates there relative to it."""
        low = np.maximum((position - reach) / self.pixel, 0).astype(int)
        high = np.maximum(np.ceil((position + reach) / self.pixel), 0).astype(int)
        rows, columns = slice(low[0], high[0]), slice(low[1], high[1])
        y, x = self.y[rows] - np.float32(position[0]), self.x[columns] - np.float32(position[1])
        return (rows, columns), y[:, None], x[None, :]

    def inside(self, depth: np.ndarray) -> np.ndarray:
        """Antialiased membership, 0 to 1, of a region whose outline is `depth` metres away (positive inside)."""
        return np.clip(0.5 + depth / np.float32(self.pixel), 0, 1)

    def paint(
        self,
        alpha: np.ndarray,  # [y, x] opacity
        colour: str | np.ndarray,  # name or [4, y, x]
        material: Material | None = None,  # None: as it was
        *,
        light: float | np.ndarray = 1.0,  # factor on the colour
        where: Window = (slice(None), slice(None)),
    ) -> None:
        if isinstance(colour, str):
            colour = np.array(REFLECTANCE[colour], np.float32)[:, None, None]
        patch = self.image[:, *where]
        patch += alpha * (colour * light - patch)
        if material is not None:
            self.material[where][alpha > 0.5] = material

    def is_free(self, position: np.ndarray, reach: float) -> bool:
        """Whether a disc lies on the canvas and nothing is built in it."""
        if (position < reach).any() or (position > self.extent - reach).any():
            return False
        where, y, x = self.window(position, reach)
        return not (self.taken[where] & (np.hypot(y, x) < reach)).any()

    # Land and water

    def divide(self) -> None:
        """Cut the plan into plots; remember the nearest boundary of each kind."""
        y, x = self.y[:, None], self.x[None, :]
        down, across = self.warp(y, x)
        self.plan = np.stack([y + down, x + across])
        self.plot = np.zeros(self.shade.shape, np.int16)
        self.distance = np.full((5, *self.shade.shape), np.inf, np.float32)
        self.lines: list[_Line] = []
        height, width = self.extent
        frame = np.array([(0, 0), (0, width), (height, width), (height, 0)], dtype=float)
        self.outlines = [frame + 12 * np.sign(frame - self.extent / 2)]  # 12 m: the farthest that the warp can move
        self.cut(0, depth=0)

    def cut(self, plot: int, *, depth: int) -> None:
        """Cut one plot across its longer side (the first one along the main road), and then its halves."""
        outline = self.outlines[plot]
        c, s = np.cos(self.angle), np.sin(self.angle)
        extents = np.ptp(outline @ np.array([(c, -s), (s, c)]), axis=0)
        longest, widest = np.sort(self.rng.uniform(70, 170, 2))[::-1] * (1.2, 1)
        if depth >= 3 and (depth >= 10 or (extents.max() < longest and extents.min() < widest)):
            return
        across = depth > 0 and extents[0] * self.rng.uniform(0.75, 1.3) > extents[1]
        angle = self.angle + np.pi / 2 * across + self.rng.normal(0, 0.05)
        along, normal = np.array([np.cos(angle), np.sin(angle)]), np.array([np.sin(angle), -np.cos(angle)])
        centre = outline.mean(0) + normal * extents.min() * self.rng.uniform(-0.14, 0.14)
        halves, ends = _split(outline, centre, normal)
        kind = (MAIN, MINOR, TRACK)[depth] if depth < 3 else HEDGE if self.rng.random() < 0.4 else MARGIN
        start, end = sorted(ends, key=lambda point: float(point @ along))
        self.lines.append(_Line(kind, start, along, float(np.linalg.norm(end - start))))

        low, high = outline.min(0) - 13, outline.max(0) + 13
        where, *_ = self.window((low + high) / 2, (high - low) / 2)
        down, right = self.plan[:, *where] - centre.astype(np.float32)[:, None, None]
        side = down * np.float32(normal[0]) + right * np.float32(normal[1])
        mine = self.plot[where] == plot
        nearest = self.distance[kind][where]
        np.minimum(nearest, np.abs(side), out=nearest, where=mine)
        new = len(self.outlines)
        self.plot[where][mine & (side > 0)] = new
        self.outlines[plot] = halves[0]
        self.outlines.append(halves[1])
        self.cut(plot, depth=depth + 1)
        self.cut(new, depth=depth + 1)

    def sow(self) -> None:
        """Every plot gets a crop in rows along its long side, a headland, and grass along its edge."""
        plot, n = self.plot, len(self.outlines)
        share = np.array([crop.share for crop in CROPS])
        self.crops = [CROPS[c] for c in self.rng.choice(len(CROPS), n, p=share / share.sum())]
        plant, soil = (
            np.array([REFLECTANCE[name] for name in names]) * self.rng.uniform(0.88, 1.12, (n, 1))
            for names in ([c.plant for c in self.crops], [c.soil for c in self.crops])
        )
        self.cover = np.array([c.cover for c in self.crops])
        self.crop_over_soil = plant - soil

        def of_plot(values: Iterable[float]) -> np.ndarray:
            return np.array(list(values), np.float32)[plot]

        edge = self.distance.min(0)
        along = np.array([_long_side(outline) for outline in self.outlines])
        across = self.plan[0] * of_plot(along[:, 1]) - self.plan[1] * of_plot(along[:, 0])
        across = np.where(edge < 9, edge, across)  # the headland is worked along the edge
        rows = np.sin(across * of_plot(2 * np.pi / self.rng.uniform(*c.spacing) for c in self.crops))
        wheels = np.clip(1 - np.abs(np.abs(np.mod(across, 18) - 9) - 0.9) / 0.6, 0, 1) * (edge > 9)
        cover = of_plot(self.cover) + of_plot(c.rows for c in self.crops) * rows
        cover += of_plot(c.patchy for c in self.crops) * (0.7 * self.noise(35) + 0.5 * self.noise(9))
        cover -= 0.45 * of_plot(c.tramlines for c in self.crops) * wheels
        cover = np.clip(cover, 0, 1)
        uneven = 1 + 0.03 * self.noise(20) + 0.03 * self.texture
        for b in range(4):
            self.image[b] = (of_plot(soil[:, b]) + of_plot(self.crop_over_soil[:, b]) * cover) * uneven
        grass = 1.2 + 0.5 * self.noise(12) - np.minimum(self.distance[HEDGE], self.distance[MARGIN])
        self.paint(self.inside(grass), "dry grass", Material.GRASS, light=1 + 0.12 * self.noise(7))

    def add_water(self) -> None:
        """A stream that winds across the main road, and a pond in a meadow; `bank` is the distance to water."""
        scale = float(min(self.extent))
        turn = self.angle + np.pi / 2 + self.rng.normal(0, 0.1)
        foot = self.extent * (0.5 + 0.28 * self.rng.choice((-1, 1)), 0.5)
        y, x = self.y[:, None] - np.float32(foot[0]), self.x[None, :] - np.float32(foot[1])
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        along, across = y * c + x * s, y * s - x * c
        slope = np.zeros_like(along)
        for amplitude, shortest, longest in ((0.05, 0.45, 0.7), (0.018, 0.18, 0.3)):
            k, phase = 2 * np.pi / (scale * self.rng.uniform(shortest, longest)), self.rng.uniform(0, 2 * np.pi)
            bend = np.float32(k) * along + np.float32(phase)
            across -= np.float32(scale * amplitude) * np.sin(bend)
            slope += np.float32(scale * amplitude * k) * np.cos(bend)
        self.bank = np.abs(across) / np.sqrt(1 + slope**2) - 6.5 - 1.2 * self.noise(30) - 0.4 * self.noise(6)
        meadows = [o for o, crop in zip(self.outlines, self.crops, strict=True) if crop.plant == "meadow"]
        if meadows:
            y0, x0 = self.on_ground(meadows[self.rng.integers(len(meadows))].mean(0)).astype(np.float32)
            pond = np.hypot(self.y[:, None] - y0, np.float32(0.7) * (self.x - x0)) - 11 - 3 * self.noise(14)
            self.bank = np.minimum(self.bank, pond)
        rough = 1 + 0.15 * self.texture
        self.paint(np.clip((9 - self.bank) / 4, 0, 1), "meadow", Material.GRASS, light=rough)
        self.paint(np.clip((3.5 - self.bank) / 3, 0, 1) * 0.85, "reed", light=rough)
        silt, water = (np.array(REFLECTANCE[name], np.float32)[:, None, None] for name in ("silt", "water"))
        deep = np.clip(-self.bank / 4, 0, 1)
        self.paint(np.clip(0.5 - self.bank / 1.2, 0, 1), silt + deep * (water - silt), Material.WATER)
        self.taken |= self.bank < 3

    def pave(self) -> None:
        main, minor, track = self.distance[:3]
        worn = 1 + 0.05 * self.texture
        self.paint(self.inside(2.3 - track) * 0.75, "dry grass", Material.GRASS, light=worn)
        self.paint(self.inside(4.2 - minor) * 0.8, "dry grass", Material.GRASS, light=worn)
        self.paint(self.inside(8.0 - main) * 0.8, "lawn", Material.GRASS, light=worn)
        wheels = np.maximum(self.inside(0.55 - np.abs(track - 0.85)), 0.35 * self.inside(1.6 - track))
        self.paint(wheels, "dirt", Material.BARE, light=worn)
        self.paint(self.inside(2.5 - minor), "asphalt", Material.ROAD, light=1.15 * worn)
        self.paint(self.inside(5.0 - main), "kerb", Material.ROAD, light=worn)
        self.paint(self.inside(3.7 - main), "asphalt", Material.ROAD, light=worn)
        down, right = self.lines[0].along.astype(np.float32)
        dashes = np.mod(self.plan[0] * down + self.plan[1] * right, 9) < 4.5
        self.paint(self.inside(0.15 - main) * dashes * 0.7, "white")
        self.taken |= (main < 5.5) | (minor < 3) | (track < 2.5)

    # Village and farms

    def found_village(self) -> None:
        """At the road junction nearest to the middle that is not at the water; parcels of gardens behind the houses."""
        junctions = self.on_ground(
            np.array([line.at(s) for line in self.lines if line.kind == MINOR for s in (0, line.length)])
        )

        def remoteness(point: np.ndarray) -> float:
            at = self.pixel_at(point)
            to_water, to_main = max(0, 70 - self.bank[at]), min(self.distance[MAIN][at], 200)
            return float(np.linalg.norm(point - self.extent / 2) + 3 * to_water + 2 * to_main)

        self.village = min(junctions, key=remoteness)
        self.village_reach = 0.24 * float(min(self.extent))

        main, minor = self.distance[MAIN], self.distance[MINOR]
        away = np.hypot(self.y[:, None] - np.float32(self.village[0]), self.x - np.float32(self.village[1]))
        depth = np.minimum(38 - np.minimum(main, minor), self.village_reach - away + 8 * self.noise(60))
        depth = np.minimum(depth, self.bank - 4)
        self.gardens = depth > 0
        free = self.inside(np.minimum(depth, np.minimum(main - 5, minor - 2.5)))

        down, right = self.lines[0].along.astype(np.float32)
        s, q = self.plan[0] * down + self.plan[1] * right, self.plan[0] * right - self.plan[1] * down
        parcel = np.floor(s / 17).astype(int) % 101, np.floor(q / 23).astype(int) % 97
        kind = self.rng.choice(len(GARDENS), (101, 97), p=list(GARDENS.values()))[parcel]
        tint = self.rng.uniform(0.85, 1.15, (101, 97)).astype(np.float32)[parcel]
        palette = np.array([REFLECTANCE[name] for name in GARDENS], np.float32)
        rough = tint * (1 + 0.08 * self.texture + 0.05 * self.noise(5))
        self.paint(free, np.moveaxis(palette[kind], -1, 0), Material.GRASS, light=rough)
        fence = np.minimum(np.mod(s, 17), np.mod(q, 23))
        self.paint(free * self.inside(1 - fence) * 0.6, "broadleaf")

    def houses(self) -> list[_Block]:
        """Houses with sheds and drives along the roads of the village."""
        found: list[_Block] = []
        uniform, chance = self.rng.uniform, self.rng.random
        for line in (line for line in self.lines if line.kind in (MAIN, MINOR)):
            for side in (-1, 1):
                s = uniform(0, 15)
                while s < line.length:
                    set_back, length = uniform(13, 18), uniform(4.8, 8.5)
                    position = self.on_ground(line.at(s, side * set_back))
                    near = np.linalg.norm(position - self.village) < self.village_reach
                    if near and chance() < 0.92 and self.is_free(position, 7):
                        turn = self.rng.normal(0, 0.06) + np.pi / 2 * (chance() < 0.3)
                        found.append(self.build_on(position, line, (length, uniform(3.6, 5.2)), 6.5, turn=turn))
                        kerb = 5.0 if line.kind == MAIN else 2.5
                        drive = self.on_ground(line.at(s + length + 1.5, side * (set_back + kerb) / 2))
                        self.slab(drive, line.along, (1.5, (set_back - kerb) / 2), "gravel")
                        shed = self.on_ground(line.at(s + uniform(-6, 6), side * (set_back + 13)))
                        if chance() < 0.6 and self.is_free(shed, 4):
                            found.append(
                                self.build_on(shed, line, (uniform(2.5, 4.5), uniform(1.8, 2.8)), 3.5, turn=turn)
                            )
                    s += 2 * length + uniform(4, 10)
        return found

    def farms(self) -> list[_Block]:
        """Yards beside minor roads and tracks with sheds and silos, or with greenhouses."""
        found: list[_Block] = []
        roads = [line for line in self.lines if line.kind in (MINOR, TRACK) and line.length > 80]
        wanted = max(1, round(float(np.prod(self.extent)) / 2.2e5))
        for _ in range(100 if roads else 0):
            line = roads[self.rng.integers(len(roads))]
            side, s = self.rng.choice((-1, 1)), self.rng.uniform(0.15, 0.85) * line.length
            yard = self.on_ground(line.at(s, side * 36))
            if not self.is_free(yard, 31) or self.gardens[self.pixel_at(yard)]:
                continue
            self.slab(yard, line.along, (33, 28), "meadow", Material.GRASS)
            self.slab(yard, line.along, (24, 22), "dirt")
            self.slab(self.on_ground(line.at(s, side * 9)), line.along, (3, 9), "dirt")
            under_glass = wanted % 3 == 2
            for offset in (-15, 0, 15):
                position = self.on_ground(line.at(s + self.rng.uniform(-4, 4), side * (36 + offset)))
                size = (self.rng.uniform(12, 20), self.rng.uniform(5, 6.4))
                if under_glass:
                    found.append(self.build_on(position, line, (20, 6.2), 4, roof="glass", ridges=2))
                elif offset < 15 or self.rng.random() < 0.5:
                    roof = str(self.rng.choice(("metal", "fibre cement", "red tile", "fibre cement")))
                    found.append(self.build_on(position, line, size, 7.5, roof=roof))
            for k in range(0 if under_glass else 3):
                position = self.on_ground(line.at(s + 27 * side, side * (26 + 6 * k)))
                found.append(self.build_on(position, line, (2.3, 2.3), 9, roof="metal", form="round"))
            where, y, x = self.window(yard, 36)
            self.taken[where] |= np.hypot(y, x) < 36
            wanted -= 1
            if wanted == 0:
                break
        return found

    def build_on(
        self,
        position: np.ndarray,
        line: _Line,
        half: tuple[float, float],
        height: float,
        *,
        turn: float = 0.0,  # radians against the line
        roof: str | None = None,  # None: a house's
        form: str = "gable",
        ridges: int = 1,
    ) -> _Block:
        """A new block; its ground is taken."""
        roof = roof or str(self.rng.choice(list(ROOFS), p=list(ROOFS.values())))
        c, s = np.cos(turn), np.sin(turn)
        along = np.array([(c, -s), (s, c)]) @ line.along
        block = _Block(position, along, *half, height, roof, form, ridges)
        where, y, x = self.window(position, block.reach + 2)
        self.taken[where] |= block.depth(y, x) > -1.5
        return block

    def slab(
        self,
        position: np.ndarray,
        along: np.ndarray,
        half: tuple[float, float],
        colour: str,
        material: Material = Material.BARE,
    ) -> None:
        """A surface on the ground, where nothing stands."""
        slab = _Block(position, along, *half, 0, colour)
        where, y, x = self.window(position, slab.reach + 1)
        self.paint(self.inside(slab.depth(y, x)) * ~self.taken[where], colour, material, where=where)

    def cars(self) -> list[_Block]:
        """On both lanes of the roads, more of them in the village."""
        found = []
        for line in (line for line in self.lines if line.kind in (MAIN, MINOR)):
            s = self.rng.uniform(0, 60)
            while s < line.length:
                lane = self.rng.choice((-1, 1)) * (1.8 if line.kind == MAIN else 1.2)
                position = self.on_ground(line.at(s, lane))
                colour = str(self.rng.choice(("white", "white", "black", "red", "blue", "metal")))
                found.append(_Block(position, line.along, 2.3, 0.95, 1.5, colour, "flat"))
                busy = np.linalg.norm(position - self.village) < self.village_reach
                s += self.rng.exponential(28 if busy else 90) + 6
        return found

    # Trees

    def plant(
        self, position: np.ndarray, radius: float, kind: str = "broadleaf", *, clearance: float = 0
    ) -> list[_Tree]:
        """One tree, or none where there is no room."""
        inside = (position >= 0).all() and (position < self.extent).all()
        if not inside or self.taken[self.pixel_at(position)] or (clearance and not self.is_free(position, clearance)):
            return []
        return [_Tree(position, radius, kind)]

    def woods(self) -> list[_Tree]:
        """A tenth of the plots, away from the village, are closed stands."""
        found = []
        middles = np.array([outline.mean(0) for outline in self.outlines])
        far = np.linalg.norm(middles - self.village, axis=1) > self.village_reach
        order = self.rng.permutation(len(middles))
        for i in order[far[order]][: max(1, round(0.1 * len(middles)))]:
            self.material[(self.plot == i) & (self.material == Material.FIELD)] = Material.GRASS
            needles = self.rng.random() < 0.3
            step = 5.2 if needles else 6.4
            low, high = self.outlines[i].min(0), self.outlines[i].max(0)
            nodes = np.stack(np.meshgrid(*map(np.arange, low, high, (step, step))), -1).reshape(-1, 2)
            positions = self.on_ground(nodes + self.rng.uniform(-0.42, 0.42, nodes.shape) * step)
            conifer = (self.rng.random(len(nodes)) < 0.08) != needles
            size = self.rng.random(len(nodes))
            for position, is_conifer, big in zip(positions, conifer, size, strict=True):
                y, x = self.pixel_at(position)
                if self.plot[y, x] == i and self.distance[:, y, x].min() > 2:
                    radius, kind = (2.4 + 1.2 * big, "conifer") if is_conifer else (3 + 2.2 * big, "broadleaf")
                    found += self.plant(position, radius, kind)
        return found

    def rows_of_trees(self) -> list[_Tree]:
        """Hedges, and an avenue along the main road."""
        found = []
        for line in self.lines:
            if line.kind == HEDGE:
                s = np.arange(0, line.length, 3.1)
                radius = np.where(self.rng.random(s.shape) < 0.1, 4.2, self.rng.uniform(1.3, 2.3, s.shape))
                offset, stands = self.rng.normal(0, 0.5, s.shape), self.rng.random(s.shape) < 0.86
            elif line.kind == MAIN:
                s = np.repeat(np.arange(4, line.length, 13), 2)
                radius = self.rng.uniform(2.5, 3.6, s.shape)
                offset, stands = np.resize((-8.5, 8.5), s.shape), self.rng.random(s.shape) < 0.42
            else:
                continue
            for position, r in zip(self.on_ground(line.at(s, offset))[stands], radius[stands], strict=True):
                found += self.plant(position, r)
        return found

    def single_trees(self) -> list[_Tree]:
        """On the banks, in gardens and, few, in fields."""
        found = []
        n = int(np.prod(self.extent) / 250)
        for position, luck, big in zip(
            self.rng.uniform(0, self.extent, (n, 2)), self.rng.random(n), self.rng.random(n), strict=True
        ):
            at = self.pixel_at(position)
            if 3 < self.bank[at] < 8 and luck < 0.75:
                found += self.plant(position, 2 + 2.8 * big)
            elif self.gardens[at] and luck < 0.5:
                found += self.plant(position, 1.2 + 2.6 * big, "conifer" if luck < 0.08 else "broadleaf", clearance=2.5)
            elif luck < 0.006:
                found += self.plant(position, 3 + 2.5 * big, clearance=4)
        return found

    # Light

    def cast(self, thing: _Block | _Tree, position: np.ndarray, height: float, reach: float) -> None:
        """Shade what the outline sweeps over on its way from the foot to the shadow's end."""
        end = -SUN * height * SHADOW
        where, y, x = self.window(position + end / 2, reach + height * SHADOW / 2 + 1)
        y, x = y + np.float32(end[0] / 2), x + np.float32(end[1] / 2)
        shade = self.shade[where]
        for k in np.linspace(0, 1, 2 + int(height * SHADOW / 2)):
            swept = thing.depth(y - np.float32(k * end[0]), x - np.float32(k * end[1]))
            np.maximum(shade, self.inside(swept), out=shade)

    def paint_block(self, block: _Block) -> None:
        """A roof whose faces are lit by their angle to the sun."""
        where, y, x = self.window(block.position, block.reach + 1)
        _, q = block.axes(y, x)
        if block.form == "gable":
            width = 2 * block.half_width / block.ridges
            from_ridge = np.mod(q + block.half_width, width) - width / 2
            towards = float(np.array([block.along[1], -block.along[0]]) @ SUN)
            light = 1 + 0.42 * towards * np.clip(from_ridge / self.pixel, -1, 1)
            light += 0.05 * self.texture[where] + 0.2 * self.inside(0.2 - np.abs(from_ridge))
        elif block.form == "round":
            light = 1 + 0.25 * (y * SUN[0] + x * SUN[1]) / block.half_width
        else:
            light = np.ones_like(q)
        material = Material.ROAD if block.form == "flat" else Material.ROOF
        alpha = self.inside(block.depth(y, x))
        self.paint(alpha, block.roof, material, light=light.astype(np.float32), where=where)

    def paint_tree(self, tree: _Tree) -> None:
        """A lumpy dome, brighter towards the sun."""
        radius = np.float32(tree.radius)
        where, y, x = self.window(tree.position, 1.3 * tree.radius + 1)
        rho, lumps = np.hypot(y, x) / radius, self.texture[where]
        facing = (y * np.float32(SUN[0]) + x * np.float32(SUN[1])) / radius
        light = np.clip(1.0 + 0.4 * facing - 0.3 * rho**2 + 0.13 * lumps, 0.35, 1.6)
        alpha = self.inside((1 + 0.14 * lumps - rho) * radius)
        self.paint(alpha, tree.kind, Material.TREE, light=light * np.float32(self.rng.uniform(0.85, 1.2)), where=where)


def _split(
    outline: np.ndarray, point: np.ndarray, normal: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], list[np.ndarray]]:
    """A convex polygon cut by a line: the halves against and along the normal, and the two points on the outline."""
    halves: tuple[list, list] = ([], [])
    ends = []
    sides = (outline - point) @ normal
    for a, b, side, following in zip(outline, np.roll(outline, -1, 0), sides, np.roll(sides, -1), strict=True):
        halves[int(side > 0)].append(a)
        if (side > 0) != (following > 0):
            ends.append(a + (b - a) * side / (side - following))
            halves[0].append(ends[-1])
            halves[1].append(ends[-1])
    return (np.array(halves[0]), np.array(halves[1])), ends


def _long_side(outline: np.ndarray) -> np.ndarray:
    """Unit direction of a polygon's longest side."""
    sides = np.roll(outline, -1, 0) - outline
    longest = sides[np.argmax((sides**2).sum(1))]
    return longest / np.linalg.norm(longest)
