"""Selection of products: one observation per pass, of the newest baseline, the clearest over the area first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import groupby

import numpy as np

from s2sr.data.catalogue.area import Area
from s2sr.data.catalogue.product import Product

CLOUDY = (3, 8, 9, 10)  # SCL: cloud shadow, cloud of medium and high probability, thin cirrus
RELAXED = (1, 2, 5, 10, 20, 40, 60, 80, 100)  # successive limits on cloud, per cent of the area
COVERED = 1e-3  # fraction of the area that a further tile must add


@dataclass(frozen=True, eq=False)
class Pass:
    """One acquisition of the area by one satellite, from one tile or several."""

    products: tuple[Product, ...]  # where tiles overlap, the first one's pixels are used
    cloud: float = 0.0  # of the area that was seen, per cent
    coverage: float = 100.0  # of the area, per cent

    @property
    def datetime(self) -> datetime:
        return min(product.datetime for product in self.products)

    @property
    def name(self) -> str:
        """Such as S2A_2024-04-22_R098; for safety, no part of an item's id enters a path."""
        product = self.products[0]
        orbit = "" if product.orbit is None else f"_R{product.orbit:03d}"
        return f"{product.platform}_{self.datetime.date().isoformat()}{orbit}"

    @property
    def clear(self) -> float:
        """Per cent of the area."""
        return self.coverage * (1 - self.cloud / 100)

    def seen(self, scl: np.ndarray, area: Area) -> Pass:
        """The pass with cloud and coverage from its scene classification [y, x]."""
        inside = scl[area.inside]
        known = inside[inside != 0]
        cloud = 100 * float(np.isin(known, CLOUDY).mean()) if known.size else 100.0
        return replace(self, cloud=cloud, coverage=100 * known.size / inside.size)


def passes(products: Iterable[Product], area: Area) -> list[Pass]:
    """Group products by day, satellite and orbit, in order of time.

    Within a pass, products in the grid's own zone come first, as they need no resampling; then, per tile, the newest
    baseline (of one baseline, the latest processing); then those that cover more of the area. Each is used if it adds
    coverage, even an older one of the same tile: some passes are delivered in parts.
    """

    def key(product: Product) -> tuple[date, str, int]:
        return product.local_day, product.platform, product.orbit or 0

    found = []
    for _, group in groupby(sorted(products, key=key), key=key):
        together = sorted(group, key=lambda p: (p.baseline, p.made, p.id))
        newest = {product.tile: product for product in together}
        ranked = sorted(
            together, key=lambda p: (p.epsg != area.epsg, p is not newest[p.tile], -_share(p, area), -p.baseline, p.id)
        )
        used: list[Product] = []
        missing = area.polygon
        for product in ranked:
            rest = missing.difference(product.outline)
            if not used or missing.area - rest.area > COVERED * area.polygon.area:
                used.append(product)
                missing = rest
        found.append(Pass(tuple(used)))
    return sorted(found, key=lambda one: one.datetime)


def choose(
    candidates: Sequence[Pass],
    *,
    max_cloud: float,  # of the area, per cent
    min_coverage: float,  # of the area, per cent
    relax: bool,
    least: int,
    most: int,
) -> tuple[list[Pass], float]:
    """(up to `most` passes, the clearest first; the cloud limit applied, per cent).

    With `relax` the limit is raised step by step until there are `least` passes.
    """
    covering = sorted((c for c in candidates if c.coverage >= min_coverage), key=lambda c: (-c.clear, c.datetime))
    steps = [max_cloud, *(step for step in RELAXED if step > max_cloud)] if relax else [max_cloud]
    for allowed in steps:
        chosen = [c for c in covering if c.cloud <= allowed]
        if len(chosen) >= least:
            break
    return chosen[:most], allowed


def by_cloud(candidates: Sequence[Pass]) -> str:
    """The numbers of passes up to each cloud limit, for messages."""
    counts = {step: sum(c.cloud <= step for c in candidates) for step in RELAXED}
    first = {count: step for step, count in reversed(counts.items()) if count}  # the smallest step of each count
    return ", ".join(f"{count} up to {step} %" for count, step in sorted(first.items())) or "none"


def _share(product: Product, area: Area) -> float:
    """Fraction of the area covered, rounded to a per cent, so that a clipped corner does not decide."""
    return round(product.outline.intersection(area.polygon).area / area.polygon.area, 2)
