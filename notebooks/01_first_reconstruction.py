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
# # A first reconstruction
#
# A simulated place with known truth is observed twelve times at 10 m, each time shifted by a fraction of a pixel. We
# reconstruct one image at 2.5 m and look at everything that comes out.

# %%
import csv
import json
from pathlib import Path

import matplotlib.pyplot as plt
import rasterio
from IPython.display import Image, Markdown

import s2sr
from s2sr.experiment import run
from s2sr.report.figures import Stretch, rgb

# %% [markdown]
# ## What was observed
#
# A `Scene` holds frames `[t, b, y, x]` in reflectance and a mask of valid samples: `data=demo` has clouds on a quarter
# of its dates, and masks them. One pixel is 10 m.

# %%
scene = s2sr.Demo(size=40).load()
print(scene)

fig, axes = plt.subplots(1, 4, figsize=(12, 3.4))
stretch = Stretch.of(scene.temporal_mean, scene.bands)
cloudiest = min(range(len(scene)), key=lambda t: scene.observations[t].clear)
for t, ax in zip((0, 4, 8, cloudiest), axes, strict=True):
    ax.imshow(rgb(scene.frames[t].where(scene.valid[t], float("nan")), scene.bands, stretch), interpolation="nearest")
    ax.set(title=scene.observations[t].datetime[:10], xticks=[], yticks=[])

# %% [markdown]
# Grey is masked: clouds and their shadows. The last picture is the cloudiest.
#
# ## Reconstruct
#
# The same as `python train.py data.size=40 c2f=2_4 strategy=lbfgs logger=csv hydra.run.dir=outputs/first`.

# %%
folder = Path("outputs/first")
folder.mkdir(parents=True, exist_ok=True)
metrics = run(s2sr.configuration("data.size=40", "c2f=2_4", "strategy=lbfgs", "logger=csv"), folder)
Image(folder / "comparison.png")

# %% [markdown]
# From left to right: one observation; the mean of all, interpolated (what you would have without s2sr); the
# reconstruction; the truth, which only a simulation has. All share one stretch.
#
# ## The product
#
# `sr.tif` is a Cloud-Optimized GeoTIFF: float32 reflectance, one band per input band, on a grid four times as fine.

# %%
with rasterio.open(folder / "sr.tif") as product:
    print(product.descriptions, product.shape, "pixels of", product.res, "m in", product.crs)

# %% [markdown]
# ## The numbers
#
# `metrics.json` has each score of the product and, with the suffix `_bicubic`, that of the interpolated mean.

# %%
shown = [
    ("psnr", "fidelity to the truth, dB"),
    ("ssim", "the same, structure"),
    ("edge_contrast", "sharpness of edges, 1 / pixel"),
    ("shift_rmse_px", "error of the estimated shifts, pixels"),
    ("detail_limit_px", "half the period of the finest detail that the sensor passes, pixels"),
]
rows = []
for key, label in shown:
    baseline = metrics.get(f"{key}_bicubic")
    rows.append(f"| {label} | {metrics[key]:.3f} | {f'{baseline:.3f}' if baseline else ''} |")
Markdown("\n".join(["| | s2sr | bicubic |", "|---|---|---|", *rows]))

# %% [markdown]
# Only PSNR, SSIM and the shift error compare with the truth. Ringing also looks sharp; the next notebook shows how to
# tell.
#
# ## The observations
#
# `shifts.csv`: the shift of each date, in pixels; gain, offset and noise of every band, here of the red one; and the
# clear fraction.

# %%
with (folder / "shifts.csv").open() as file:
    table = list(csv.DictReader(file))
columns = ["datetime", "dy", "dx", "gain_B04", "offset_B04", "noise_B04", "clear_fraction", "used"]
rows = ["| " + " | ".join(row[c][:10] for c in columns) + " |" for row in table]
Markdown("\n".join(["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *rows]))

# %% [markdown]
# ## Everything else
#
# The whole list is in [docs/outputs.md](../docs/outputs.md).

# %%
print(*sorted(path.name for path in folder.iterdir()), sep="\n")
assert json.loads((folder / "metrics.json").read_text())["status"] == "ok"
