"""Trees of the landscape: woods, hedges, an avenue, and those that stand alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s2sr.data.landscape.canvas import Canvas
from s2sr.data.landscape.ground import Village
from s2sr.data.landscape.materials import SUN, Material
from s2sr.data.landscape.parcels import HEDGE, MAIN, Parcels


@dataclass(frozen=True)
class Tree:
    """A round crown. Lengths are metres."""

    position: np.ndarray
    radius: float
    kind: str  # broadleaf or conifer

    @property
    def reach(self) -> float:
        """The distance from the stem to the outline."""
        return self.radius

    @property
    def height(self) -> float:
        """The height that its shadow shows."""
        return 1.9 * self.radius

    def depth(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The distance of points, relative to the stem, to the outline that casts the shadow; positive inside."""
        return np.float32(0.92 * self.radius) - np.hypot(y, x)

    def paint(self, canvas: Canvas, rng: np.random.Generator) -> None:
        """Paint a lumpy dome that is brighter towards the sun."""
        radius = np.float32(self.radius)
        where, y, x = canvas.window(self.position, 1.3 * self.radius + 1)
        rho, lumps = np.hypot(y, x) / radius, canvas.texture[where]
        facing = (y * np.float32(SUN[0]) + x * np.float32(SUN[1])) / radius
        light = np.clip(1.0 + 0.4 * facing - 0.3 * rho**2 + 0.13 * lumps, 0.35, 1.6)
        alpha = canvas.inside((1 + 0.14 * lumps - rho) * radius)
        canvas.paint(alpha, self.kind, Material.TREE, light=light * np.float32(rng.uniform(0.85, 1.2)), where=where)


def woods(canvas: Canvas, parcels: Parcels, village: Village, rng: np.random.Generator) -> list[Tree]:
    """Plant closed stands on a tenth of the plots, away from the village. Their ground is no longer field."""
    found = []
    middles = np.array([outline.mean(0) for outline in parcels.outlines])
    far = ~village.near(middles)
    order = rng.permutation(len(middles))
    for i in order[far[order]][: max(1, round(0.1 * len(middles)))]:
        canvas.material[(parcels.plot == i) & (canvas.material == Material.FIELD)] = Material.GRASS
        needles = rng.random() < 0.3
        step = 5.2 if needles else 6.4
        low, high = parcels.outlines[i].min(0), parcels.outlines[i].max(0)
        nodes = np.stack(np.meshgrid(*map(np.arange, low, high, (step, step))), -1).reshape(-1, 2)
        positions = parcels.plan.on_ground(nodes + rng.uniform(-0.42, 0.42, nodes.shape) * step)
        conifer = (rng.random(len(nodes)) < 0.08) != needles
        size = rng.random(len(nodes))
        for position, is_conifer, big in zip(positions, conifer, size, strict=True):
            y, x = canvas.pixel_at(position)
            if parcels.plot[y, x] == i and parcels.distance[:, y, x].min() > 2:
                radius, kind = (2.4 + 1.2 * big, "conifer") if is_conifer else (3 + 2.2 * big, "broadleaf")
                found += _plant(canvas, position, radius, kind)
    return found


def rows_of_trees(canvas: Canvas, parcels: Parcels, rng: np.random.Generator) -> list[Tree]:
    """Plant hedges, and an avenue along the main road."""
    found = []
    for line in parcels.of_kind(MAIN, HEDGE):
        if line.kind == HEDGE:
            s = np.arange(0, line.length, 3.1)
            radius = np.where(rng.random(s.shape) < 0.1, 4.2, rng.uniform(1.3, 2.3, s.shape))
            offset, stands = rng.normal(0, 0.5, s.shape), rng.random(s.shape) < 0.86
        else:
            s = np.repeat(np.arange(4, line.length, 13), 2)
            radius = rng.uniform(2.5, 3.6, s.shape)
            offset, stands = np.resize((-8.5, 8.5), s.shape), rng.random(s.shape) < 0.42
        for position, r in zip(parcels.on_ground(line, s, offset)[stands], radius[stands], strict=True):
            found += _plant(canvas, position, r)
    return found


def single_trees(canvas: Canvas, bank: np.ndarray, village: Village, rng: np.random.Generator) -> list[Tree]:
    """Plant trees on the banks, in gardens and, rarely, in fields.

    bank: [y, x] metres to water.
    """
    found = []
    n = int(np.prod(canvas.extent) / 250)
    for position, luck, big in zip(rng.uniform(0, canvas.extent, (n, 2)), rng.random(n), rng.random(n), strict=True):
        pixel = canvas.pixel_at(position)
        if 3 < bank[pixel] < 8 and luck < 0.75:
            found += _plant(canvas, position, 2 + 2.8 * big)
        elif village.gardens[pixel] and luck < 0.5:
            kind = "conifer" if luck < 0.08 else "broadleaf"
            found += _plant(canvas, position, 1.2 + 2.6 * big, kind, clearance=2.5)
        elif luck < 0.006:
            found += _plant(canvas, position, 3 + 2.5 * big, clearance=4)
    return found


def _plant(
    canvas: Canvas, position: np.ndarray, radius: float, kind: str = "broadleaf", *, clearance: float = 0
) -> list[Tree]:
    """One tree, or none where there is no room for it."""
    outside = (position < 0).any() or (position >= canvas.extent).any()
    if outside or canvas.taken[canvas.pixel_at(position)] or (clearance and not canvas.is_free(position, clearance)):
        return []
    return [Tree(position, radius, kind)]
