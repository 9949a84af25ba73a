# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your area: from a bounding box to QGIS
#
# With a network, one line does it all:
#
#     python train.py data=planetary_computer data.bbox=[-122.186,47.629,-122.056,47.719] \
#         data.start=2025-04-01 data.end=2025-10-31
#
# Here we do the same offline: the notebook first writes a small STAC catalogue of a simulated season in the form of an
# archive (one file per band and date, digital numbers, an offset), and then requests an area within it.

# %%
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import rasterio
from IPython.display import Image
from rasterio.warp import transform_bounds

import s2sr
from s2sr.experiment import run
from s2sr.observations import configuration

# %% [markdown]
# ## A catalogue on disk

# %%
catalogue = Path("catalogue")
features = []
for path in sorted(Path(s2sr.Demo(size=72, n_dates=8, cloudy=0.25).write(catalogue / "season")).glob("*.tif")):
    with rasterio.open(path) as file:
        assets = {}
        for k, band in enumerate(file.descriptions, 1):
            stored = file.read(k)
            if band != "SCL":  # baseline 04.00 and later: reflectance = 1e-4 DN - 0.1
                reflectance = stored * file.scales[k - 1] + file.offsets[k - 1]
                stored = np.where(stored == 0, 0, np.rint((reflectance + 0.1) * 1e4)).astype(np.uint16)
            target = catalogue / f"{path.stem}_{band}.tif"
            profile = {"driver": "COG", "width": file.width, "height": file.height, "count": 1, "nodata": 0}
            with rasterio.open(
                target, "w", crs=file.crs, transform=file.transform, dtype=stored.dtype, **profile
            ) as out:
                out.write(stored, 1)
            assets[band] = {"href": target.name}
        west, south, east, north = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
        when = file.tags()["datetime"]
        zone = file.crs.to_epsg()
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    features.append(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"S2A_{path.stem}",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "bbox": [west, south, east, north],
            "properties": {
                "datetime": when if "T" in when else f"{when}T10:50:00Z",
                "platform": "sentinel-2a",
                "eo:cloud_cover": 10,
                "proj:epsg": zone,
                "grid:code": "MGRS-31UFS",
                "sat:relative_orbit": 98,
                "s2:processing_baseline": "05.10",
            },
            "assets": assets,
            "links": [],
        }
    )
(catalogue / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
print(len(features), "items;", "assets", *features[0]["assets"])

# %% [markdown]
# ## The area
#
# A box in degrees, here slightly smaller than the tile. It determines the UTM zone, the grid (Sentinel-2's own, so that
# pixels are copied, not resampled) and what must be read.

# %%
inset = 0.0010
box = [west + inset, south + inset, east - inset, north - inset]
area = f"data.bbox=[{','.join(f'{x:.5f}' for x in box)}]"
where = [f"data.catalog={catalogue / 'items.json'}", area, "data.start=2023-01-01", "data.end=2023-12-31"]
folder = Path("data/my_area")
arguments = ["data=planetary_computer", *where, f"data.root={folder}", "data.max_aoi_cloud=30", "data.min_scenes=4"]

# %% [markdown]
# `python -m s2sr.download ...` measures the cloud over the area itself and reads only what is used. Repeating the
# command reads nothing: intact files are kept.

# %%
command = [sys.executable, "-m", "s2sr.download", *arguments]
print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

# %% [markdown]
# One GeoTIFF per date, all on one grid, and `scene.json` with the query and the selection. Any other stack in this form
# works as well: `data=geotiff data.root=FOLDER`.

# %%
print(*sorted(path.name for path in folder.iterdir()), sep="\n")

# %% [markdown]
# ## Reconstruct it

# %%
out = Path("outputs/my_area")
out.mkdir(parents=True, exist_ok=True)
run(configuration("data=geotiff", f"data.root={folder}", "c2f=2_4", "strategy=lbfgs", "logger=csv"), out)
Image(out / "comparison.png")

# %% [markdown]
# ## Into QGIS
#
# Drag `sr.tif` and `observation.tif` into QGIS: they lie on top of each other, in the area's UTM zone. The band
# descriptions name the bands, and true colour is preset; values are reflectance, so NDVI is
# `("sr@4" - "sr@3") / ("sr@4" + "sr@3")` in the raster calculator, without any scaling.

# %%
with rasterio.open(out / "sr.tif") as fine, rasterio.open(out / "observation.tif") as coarse:
    print(fine.crs, fine.res, fine.descriptions, fine.overviews(1))
    assert fine.bounds == coarse.bounds
    print("attribution:", fine.tags()["attribution"])
