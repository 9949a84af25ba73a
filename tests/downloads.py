"""Steps that the tests of the download share: download a season of the simulated archive, and look at it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from stac_catalogue import CLEAR, SEASON

from s2sr.observations import build, configuration

DATES = ("data.start=2021-12-01", "data.end=2022-01-31")
QUICK = ("data.timeout=1", "data.backoff=0.05")


def source_of(world, catalog, root, *overrides, data="planetary_computer", area=None):
    """The object that the preset describes."""
    bbox = ",".join(map(str, world.bbox(*[area] * (area is not None))))
    given = (f"data={data}", f"data.catalog={catalog}", f"data.bbox=[{bbox}]", f"data.root={root}", *DATES, *QUICK)
    return build(configuration(*given, *overrides).data)


def download(world, catalog, root, *overrides, **how):
    """Download, and return what is in the folder afterwards: {name: (DN [b, y, x], tags, bands)}."""
    source_of(world, catalog, root, *overrides, **how).prepare()
    return observations(root)


def observations(root):
    found = {}
    for path in sorted(Path(root).glob("*.tif")):
        with rasterio.open(path) as file:
            found[path.stem] = file.read(), file.tags(), file.descriptions
    return found


def names(days=CLEAR):
    """The names of the files of some days."""
    return sorted({t.name for t in SEASON if t.day in days})


def reflectance(path, band):
    """[y, x] the reflectance that any reader of the file's own tags finds, NaN where there is no data."""
    with rasterio.open(path) as file:
        at = file.descriptions.index(band)
        dn = file.read(at + 1)
        return np.where(dn == file.nodata, np.nan, dn * file.scales[at] + file.offsets[at])


def expected(world, path, product, band):
    """[y, x] the reflectance of the ground under a file of the scene folder."""
    with rasterio.open(path) as file:
        return world.truth(product, band)[world.part(file)]
