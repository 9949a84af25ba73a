"""How often the truth lies within the product's intervals, on scenes that no constant was tuned on.

python benchmarks/uncertainty.py [FOLDER] [--strategies bayes,lbfgs,lbfgs_adam] [--scenes NAME,NAME] [OVERRIDE ...]

FOLDER holds aerial images at 1 m (USDA NAIP, public domain): NAIP-VA-b1.tiff ... b4.tiff (red, green, blue, near
infrared) and two m_36*_subset.tif. Of every scene sigma (.38 to .55), noise (.001 to .006), jitter (.1 to .3 px) and
dates (8 to 24) are drawn; `masked` has 40 % of every date masked in patches, `few` 3 dates, `many` 60. `demo` is the
default scene. The strategies are told sigma. Prints the coverage of +- 1 std (target 68 +- 5 %) and of +- 1.96 std (95
+- 2 %), per cent, means over bands: overall, then in each quarter of local contrast from the lowest; the time of the
standard deviation and the count as a share of the fit's; and in the last column the coverage where the truth's own
contrast, which nobody knows, is in its highest quarter.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch

BANDS = ("B02", "B03", "B04", "B08")
SUBSETS = ("m_3607717_sw_18_1_20160620_subset.tif", "m_3607824_se_17_1_20160620_subset.tif")
SCENES = ("va0", "va1", "va2", "masked", "few", "many", "m0", "m1", "demo")


def aerial(folder: Path, name: str) -> np.ndarray:
    """[b, y, x] reflectance of an image at 1 m, in the order of BANDS."""
    import rasterio

    if name in ("m0", "m1"):
        with rasterio.open(folder / SUBSETS[int(name[1])]) as file:
            return file.read((3, 2, 1, 4)).astype(np.float32) / 255 * 0.4
    bands = []
    for k in (3, 2, 1, 4):
        with rasterio.open(folder / f"NAIP-VA-b{k}.tiff") as file:
            bands.append(file.read(1))
    return np.stack(bands).astype(np.float32) / 255 * 0.4


def scene_of(folder: Path, name: str):
    """The scene, and its sigma or None for the published ones."""
    from scipy.ndimage import gaussian_filter

    from s2sr.data.demo import Demo
    from s2sr.data.simulate import jitter, simulate_scene

    if name == "demo":
        return Demo().load(), None
    rng = np.random.default_rng(SCENES.index(name))
    sigma, noise = rng.uniform(0.38, 0.55), math.exp(rng.uniform(math.log(0.001), math.log(0.006)))
    spread, dates = rng.uniform(0.1, 0.3), {"few": 3, "many": 60}.get(name, int(rng.integers(8, 25)))
    shifts = jitter(dates, spread, rng)
    scene = simulate_scene(
        aerial(folder, name), 10, bands=BANDS, shifts=shifts, sigma_psf=sigma, noise=noise, seed=SCENES.index(name)
    )
    if name == "masked":
        valid = scene.valid.clone()
        for one in valid:
            field = gaussian_filter(rng.normal(size=scene.grid.shape), 4)
            one &= torch.from_numpy(field < np.quantile(field, 0.6))
        scene = dataclasses.replace(scene, valid=valid, frames=scene.frames * valid)
    return scene, sigma


def row(scene, strategy: str, sigma: float | None, overrides: list[str]) -> np.ndarray:
    """[13] coverage of 68 and 95: overall, q1 to q4, in the truth's q4; the time's share."""
    from s2sr.fit.uncertainty import clear_count, standard_deviation
    from s2sr.observations import configuration
    from s2sr.reconstruction import reconstruct
    from s2sr.report.intervals import coverage, local_contrast, quarters, seen
    from s2sr.report.metrics import BORDER

    told = [] if sigma is None else [f"psf.sigma={sigma}"]
    start = time.perf_counter()
    module = reconstruct(scene, configuration(f"strategy={strategy}", *told, "c2f=2_4", *overrides))
    fitted = time.perf_counter()
    field = module.field
    image, scale, shifts = field.render(), field.scale, field.shifts.detach()
    rendered = time.perf_counter()
    deviation = standard_deviation(module, image, scale)
    clear_count(module.scene.valid, shifts, scale)
    share = (time.perf_counter() - rendered) / (fitted - start)
    truth = seen(module.scene, scale=scale, splat=field.lattice.sigma, shifts=shifts)
    found = coverage(image.numpy(), deviation.numpy(), truth, scale)
    inside = (slice(None), *[slice(BORDER * scale, -BORDER * scale)] * 2)
    z = np.abs((image.numpy() - truth) / deviation.numpy())[inside]
    edges = np.stack([quarters(band) for band in local_contrast(truth, scale)[inside]]) == 3
    keys = ("", "_q1", "_q2", "_q3", "_q4")
    values = [[100 * found[f"coverage_{percent}{key}"] for percent in (68, 95)] for key in keys]
    return np.array([*np.ravel(values), *(100 * np.mean(z[edges] <= k) for k in (1, 1.96)), 100 * share])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).resolve()
    parser.add_argument("folder", nargs="?", type=Path, default=here.parents[2] / "shared" / "data" / "hr_naip_va")
    parser.add_argument("--strategies", default="bayes,lbfgs,lbfgs_adam")
    parser.add_argument("--scenes", default=",".join(SCENES))
    options, overrides = parser.parse_known_args()
    if not (options.folder / "NAIP-VA-b1.tiff").exists():
        raise SystemExit(f"{options.folder}: no NAIP-VA-b1.tiff here; name the folder that has it")
    logging.getLogger("s2sr").setLevel(logging.ERROR)
    columns = ("overall", "q1", "q2", "q3", "q4", "truth's q4")
    print(f"{'scene':8}{'strategy':12}" + "".join(f"{column:>13}" for column in columns) + f"{'time %':>8}")

    def line(first: str, second: str, values: np.ndarray) -> None:
        pairs = "".join(f"{a:8.1f}{b:5.1f}" for a, b in values[:-1].reshape(-1, 2))
        print(f"{first:8}{second:12}{pairs}{values[-1]:8.1f}", flush=True)

    found: dict[str, list[np.ndarray]] = {}
    for name in options.scenes.split(","):
        scene, sigma = scene_of(options.folder, name)
        for strategy in options.strategies.split(","):
            found.setdefault(strategy, []).append(row(scene, strategy, sigma, overrides))
            line(name, strategy, found[strategy][-1])
    for strategy, rows in found.items():
        line("mean", strategy, np.mean(rows, 0))
        line("spread", strategy, np.std(rows, 0))


if __name__ == "__main__":
    main()
