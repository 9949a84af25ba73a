"""The blind fit against the linear estimator that knows everything, on scenes drawn from sharp aerial images.

python benchmarks/bayes.py [FOLDER] [--scenes 6] [--strategies bayes,lbfgs,lbfgs_adam] [OVERRIDE ...]

FOLDER holds NAIP-VA-b1.tiff ... b4.tiff (red, green, blue, near infrared at 1 m; USDA NAIP, public domain). Of every
scene, sigma (.38 to .55), noise (.001 to .006), jitter (.1 to .3 px), dates (8 to 24) and place (half of the image) are
drawn. `bayes` is told none of them; the others are told sigma. "oracle" is the posterior mean with the true shifts,
sigma and noise and the most probable power-law spectrum. Prints, per scene and strategy: PSNR over the oracle's (dB),
shift rmse over the Cramer-Rao bound, error of sigma (mean over bands), seconds.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch


def drawn(folder: Path, seed: int):
    """The scene of one draw, and what was drawn."""
    import rasterio

    from s2sr.data.simulate import jitter, simulate_scene

    rng = np.random.default_rng(seed)
    draw = {
        "sigma": rng.uniform(0.38, 0.55),
        "noise": math.exp(rng.uniform(math.log(0.001), math.log(0.006))),
        "jitter": rng.uniform(0.1, 0.3),
        "dates": int(rng.integers(8, 25)),
    }
    bands = []
    for name in ("b3", "b2", "b1", "b4"):
        with rasterio.open(folder / f"NAIP-VA-{name}.tiff") as file:
            bands.append(file.read(1))
    reflectance = np.stack(bands).astype(np.float32) / 255 * 0.4
    side = [int(0.8 * n) for n in reflectance.shape[1:]]
    corner = [int(rng.integers(n - m + 1)) for n, m in zip(reflectance.shape[1:], side, strict=True)]
    reflectance = reflectance[:, corner[0] : corner[0] + side[0], corner[1] : corner[1] + side[1]]
    scene = simulate_scene(
        reflectance,
        10,
        bands=("B02", "B03", "B04", "B08"),
        shifts=jitter(draw["dates"], draw["jitter"], rng),
        sigma_psf=draw["sigma"],
        noise=draw["noise"],
        seed=seed,
    )
    return scene, draw


def psnr(scene, module) -> float:
    from s2sr.report.scores import scores

    field = module.field
    return scores(scene, field.render(), field.scale, field.shifts.detach())["psnr"]


def oracle(scene, draw: dict[str, float]):
    """The fit that knows shifts, sigma and noise: its stages choose the spectrum and solve."""
    from s2sr.experiment import build, configuration, train
    from s2sr.fit.module import Reconstruction
    from s2sr.model.field import SplatField
    from s2sr.model.psf import PSF

    cfg = configuration("strategy=bayes", "~strategy.sharpen", "strategy.register.blocks=[[spectrum]]")
    psf = PSF(draw["sigma"])
    field = SplatField(scene.grid, scene.bands, scale=4, psf=psf, shifts=scene.truth.shifts)
    options = {"misfit": build(cfg.misfit), "tv_delta": cfg.tv_delta, "noise": draw["noise"]}
    module = Reconstruction(scene, field, stages=build(cfg.strategy), levels=[4], **options)
    train(module, cfg)
    return module


def bound(module) -> float:
    """The least root mean square error of the shifts that the scene, sigma and noise of `module` allow, LR pixels."""
    import dataclasses

    from s2sr.fit.evidence import Evidence, Moments
    from s2sr.fit.likelihood import shift_information

    side = max(module.field.grid.shape)
    model = Moments(Evidence(side=side), module).model()
    model = dataclasses.replace(model, variance=module.noise.double().square()[None, None])
    return float(torch.linalg.pinv(shift_information(model), rtol=1e-9, hermitian=True).diagonal().mean().sqrt())


def main() -> None:
    from s2sr.experiment import configuration, reconstruct
    from s2sr.report.metrics import shift_rmse

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).resolve()
    parser.add_argument("folder", nargs="?", type=Path, default=here.parents[2] / "shared" / "data" / "hr_naip_va")
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--strategies", default="bayes,lbfgs,lbfgs_adam")
    options, overrides = parser.parse_known_args()
    if not (options.folder / "NAIP-VA-b1.tiff").exists():
        raise SystemExit(f"{options.folder}: no NAIP-VA-b1.tiff here; name the folder that has it")
    logging.getLogger("s2sr").setLevel(logging.ERROR)
    columns = ("over oracle dB", "shift / bound", "sigma error", "seconds")
    print(f"{'scene':>5} {'strategy':12}" + "".join(f"{column:>16}" for column in columns))
    found: dict[str, list[list[float]]] = {}
    for seed in range(options.scenes):
        scene, draw = drawn(options.folder, seed)
        best = oracle(scene, draw)
        reference, least = psnr(scene, best), bound(best)
        print(
            f"{seed:5} " + ", ".join(f"{key} {value:.4g}" for key, value in draw.items()), f"oracle {reference:.2f} dB"
        )
        for strategy in options.strategies.split(","):
            told = "psf=auto" if strategy == "bayes" else f"psf.sigma={draw['sigma']}"
            cfg = configuration(f"strategy={strategy}", told, "c2f.levels=[2,4]", *overrides)
            start = time.perf_counter()
            module = reconstruct(scene, cfg)
            seconds = time.perf_counter() - start
            field = module.field
            row = [
                psnr(scene, module) - reference,
                shift_rmse(field.shifts, scene.truth.shifts) / least,
                float(field.sigma_psf.mean()) / draw["sigma"] - 1,
                seconds,
            ]
            found.setdefault(strategy, []).append(row)
            print(f"{'':5} {strategy:12}" + "".join(f"{value:16.3f}" for value in row), flush=True)
    for strategy, rows in found.items():
        print(f"{'mean':5} {strategy:12}" + "".join(f"{value:16.3f}" for value in np.mean(rows, 0)))
        print(f"{'least':5} {strategy:12}" + "".join(f"{value:16.3f}" for value in np.min(rows, 0)))


if __name__ == "__main__":
    main()
