"""Land divided as land is: cut in two, again and again, by lines that are straight but for a gentle warp.

The first cut is the main road, the next ones are minor roads, then farm tracks, then hedges and margins. So roads meet,
and a pixel's distance to the nearest boundary of a kind is the least over the cuts that it went through. The plan is
the ground as it was before it was warped; there all boundaries are straight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s2sr.data.landscape.canvas import Canvas, along_and_across

MAIN, MINOR, TRACK, HEDGE, MARGIN = range(5)  # what a boundary is


@dataclass(frozen=True)
class Plan:
    """How the plan is warped into the ground, and how the main road runs on it."""

    waves: np.ndarray  # [2, n, 2] radians per metre: n waves that move y, n that move x
    phases: np.ndarray  # [2, n]
    angle: float  # of the main road against north, radians

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Plan:
        """Draw three waves of 260 m and longer for each axis, so that boundaries curve gently."""
        direction, phases = rng.uniform(0, 2 * np.pi, (2, 2, 3))
        wave_number = 2 * np.pi / np.array([260, 380, 540])[:, None]
        waves = np.stack([np.cos(direction), np.sin(direction)], -1) * wave_number
        return cls(waves, phases, rng.uniform(0.1, 0.5) * rng.choice((-1, 1)))

    def warp(self, y: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
        """The plan minus the ground at points of the ground, in metres; each wave adds 4 m at most."""
        dtype = y.dtype.type
        return [
            sum(dtype(4) * np.sin(dtype(k[0]) * y + dtype(k[1]) * x + dtype(p)) for k, p in zip(ks, ps, strict=True))
            for ks, ps in zip(self.waves, self.phases, strict=True)
        ]

    def on_ground(self, points: np.ndarray) -> np.ndarray:
        """Where points [..., 2] of the plan lie on the ground. The warp is a contraction, so iterating finds them."""
        ground = points = np.asarray(points, dtype=float)
        for _ in range(6):
            ground = points - np.stack(self.warp(ground[..., 0], ground[..., 1]), -1)
        return ground


@dataclass(frozen=True)
class Line:
    """A boundary between plots: the points start + s * along on the plan, with 0 <= s <= length."""

    kind: int
    start: np.ndarray
    along: np.ndarray
    length: float

    def at(self, s: float | np.ndarray, offset: float | np.ndarray = 0.0) -> np.ndarray:
        """[..., 2] the points at s, `offset` metres to the side."""
        across = np.array([self.along[1], -self.along[0]])
        return self.start + np.asarray(s)[..., None] * self.along + np.asarray(offset)[..., None] * across


@dataclass(frozen=True)
class Parcels:
    """The divided land."""

    plan: Plan
    on_plan: np.ndarray  # [2, y, x] metres, where each pixel lies on the plan
    plot: np.ndarray  # [y, x] int16, number of the plot that a pixel belongs to
    distance: np.ndarray  # [5, y, x] metres to the nearest boundary of each kind
    outlines: list[np.ndarray]  # [corner, 2] metres, the convex polygon on the plan that a plot is
    lines: list[Line]  # all boundaries, the main road first

    def of_kind(self, *kinds: int) -> list[Line]:
        """The boundaries of these kinds."""
        return [line for line in self.lines if line.kind in kinds]

    def on_ground(self, line: Line, s: float | np.ndarray, offset: float | np.ndarray = 0.0) -> np.ndarray:
        """[..., 2] where the points of a line at s, `offset` metres to its side, lie on the ground."""
        return self.plan.on_ground(line.at(s, offset))


def divide(canvas: Canvas, plan: Plan, rng: np.random.Generator) -> Parcels:
    """Cut the canvas' land into plots."""
    down, across = plan.warp(canvas.y, canvas.x)
    height, width = canvas.extent
    frame = np.array([(0, 0), (0, width), (height, width), (height, 0)], dtype=float)
    parcels = Parcels(
        plan,
        on_plan=np.stack([canvas.y + down, canvas.x + across]),
        plot=np.zeros(canvas.shape, np.int16),
        distance=np.full((5, *canvas.shape), np.inf, np.float32),
        outlines=[frame + 12 * np.sign(frame - canvas.extent / 2)],  # 12 m: the farthest that the warp can move
        lines=[],
    )
    _cut(canvas, parcels, 0, depth=0, rng=rng)
    return parcels


def _cut(canvas: Canvas, parcels: Parcels, plot: int, *, depth: int, rng: np.random.Generator) -> None:
    """Cut one plot across its longer side (the first one along the main road), and then its halves."""
    outline, north = parcels.outlines[plot], parcels.plan.angle
    c, s = np.cos(north), np.sin(north)
    extents = np.ptp(outline @ np.array([(c, -s), (s, c)]), axis=0)
    longest, widest = np.sort(rng.uniform(70, 170, 2))[::-1] * (1.2, 1)
    if depth >= 3 and (depth >= 10 or (extents.max() < longest and extents.min() < widest)):
        return
    across = depth > 0 and extents[0] * rng.uniform(0.75, 1.3) > extents[1]
    angle = north + np.pi / 2 * across + rng.normal(0, 0.05)
    along, normal = np.array([np.cos(angle), np.sin(angle)]), np.array([np.sin(angle), -np.cos(angle)])
    centre = outline.mean(0) + normal * extents.min() * rng.uniform(-0.14, 0.14)
    kind = (MAIN, MINOR, TRACK)[depth] if depth < 3 else HEDGE if rng.random() < 0.4 else MARGIN
    halves, ends = _split(outline, centre, normal)
    start, end = sorted(ends, key=lambda point: float(point @ along))
    parcels.lines.append(Line(kind, start, along, float(np.linalg.norm(end - start))))

    low, high = outline.min(0) - 13, outline.max(0) + 13
    where, *_ = canvas.window((low + high) / 2, (high - low) / 2)
    _, side = along_and_across(along, *(parcels.on_plan[:, *where] - centre.astype(np.float32)[:, None, None]))
    mine = parcels.plot[where] == plot
    nearest = parcels.distance[kind][where]
    np.minimum(nearest, np.abs(side), out=nearest, where=mine)
    new = len(parcels.outlines)
    parcels.plot[where][mine & (side > 0)] = new
    parcels.outlines[plot] = halves[0]
    parcels.outlines.append(halves[1])
    for half in (plot, new):
        _cut(canvas, parcels, half, depth=depth + 1, rng=rng)


def _split(
    outline: np.ndarray, point: np.ndarray, normal: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], list[np.ndarray]]:
    """Cut a convex polygon by a line: the halves against and along the normal, and the two points on the outline."""
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
