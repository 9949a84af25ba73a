"""Which samples may enter a fit: valid measurements that are not near a masked class of the SCL band.

SCL, Sen2Cor's scene classification (Sentinel-2 L2A product specification): 0 no data, 1 saturated or defective, 2 dark
area or terrain shadow, 3 cloud shadow, 4 vegetation, 5 bare, 6 water, 7 unclassified, 8 and 9 cloud of medium and high
probability, 10 thin cirrus, 11 snow.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from scipy.ndimage import maximum_filter


def scl_mask(scl: np.ndarray, *, classes: Collection[int], dilate: int) -> np.ndarray:
    """[y, x] bool, True where a pixel of `classes` is at most `dilate` pixels away along rows and along columns."""
    return maximum_filter(np.isin(scl, list(classes)), size=2 * dilate + 1, mode="nearest")


def measured(values: np.ndarray, *, nodata: float | None) -> np.ndarray:
    """[...] bool, True where stored `values` are finite and not `nodata` (None: 0 for integers, none for floats)."""
    if np.issubdtype(values.dtype, np.integer):
        return values != (0 if nodata is None else nodata)
    return np.isfinite(values) & (values != nodata)
