"""Reflectance from digital numbers, whatever the processing baseline.

    reflectance = DN * scale + offset        DN 0: no data

Since processing baseline 04.00 Sen2Cor adds 1000 to the DN, so that dark surfaces may be negative: scale 1e-4, offset
-0.1. Archives are reprocessed, and mix both for the same dates: an item's own metadata decide, never its date.
Everything is stored like the newer baselines, without loss: their DN are unchanged, and 1000 is added to those of older
ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from s2sr.errors import InputError

SCALE, OFFSET = 1e-4, -0.1  # of what is stored
NEWER = 4.0  # processing baseline

Item = Mapping[str, Any]  # a STAC item, as JSON


def by_baseline(item: Item, asset: str) -> tuple[float, float]:
    """(scale, offset) of an item whose archive holds Sen2Cor's own DN, such as the Planetary Computer.

    Raises InputError if the item does not tell its baseline.
    """
    return SCALE, OFFSET if baseline(item) >= NEWER else 0.0


def by_raster_bands(item: Item, asset: str) -> tuple[float, float]:
    """(scale, offset) as declared by the asset, in `raster:bands` or, since STAC 1.1, in `bands`.

    An archive that has already applied the offset to its pixels says so by `earthsearch:boa_offset_applied`.
    Raises InputError if nothing is declared.
    """
    described = item["assets"][asset]
    for band in (*described.get("raster:bands", ()), *described.get("bands", ()), described):
        scale = band.get("scale", band.get("raster:scale"))
        if scale is not None:
            applied = item["properties"].get("earthsearch:boa_offset_applied", False)
            return float(scale), 0.0 if applied else float(band.get("offset", band.get("raster:offset", 0.0)))
    raise InputError(f"{item['id']}: its asset {asset} declares no scale and offset (raster:bands)")


def baseline(item: Item) -> float:
    """Sen2Cor's processing baseline, such as 5.1 for 05.10.

    Raises InputError if the item does not tell it.
    """
    properties = item["properties"]
    for key in ("s2:processing_baseline", "processing:version"):
        if re.fullmatch(r"\d\d?\.\d\d", str(properties.get(key))):
            return float(properties[key])
    if match := re.search(r"_N(\d\d)(\d\d)_", f"{properties.get('s2:product_uri', '')} {item['id']}"):
        return float(".".join(match.groups()))
    raise InputError(f"{item['id']}: its processing baseline is unknown, and so the offset of its reflectance")


def harmonised(dn: np.ndarray, *, scale: float, offset: float) -> np.ndarray:
    """uint16 DN with (SCALE, OFFSET), whatever the baseline; 0, no data, stays 0, and no other value becomes 0."""
    if (scale, offset) == (SCALE, OFFSET):
        return dn.astype(np.uint16, copy=False)
    stored = np.rint(dn * (scale / SCALE) + (offset - OFFSET) / SCALE).clip(1, 65535)
    return np.where(dn == 0, 0, stored).astype(np.uint16)
