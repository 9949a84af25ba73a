"""The blind fit against the linear estimator that knows everything, on scenes drawn from sharp aerial images.

python benchmarks/bayes.py [--data FOLDER] [--images va,sw,se] [--scenes 6] [--side N] [--clouds 3]
    [--strategies bayes,lbfgs,lbfgs_adam] [OVERRIDE ...]

FOLDER and the images are those of benchmarks/aerial.py. The method was tuned on nd (5 m, read as 1/8 pixel), and once
on va (1 m, read as 1/10 pixel), but no longer; it never was on sw and se (1 m, read as 1/5 pixel). For every scene,
sigma (.38 to .55), noise (.001 to .006), jitter (.1 to .3 px), the number of dates (8 to 24) and the place are drawn.
With --side a scene has that many LR pixels along each side; an image that is too small is mirrored. With --clouds that
many dates have smooth clouds over 40 % of their pixels that no mask knows, and every strategy has a second line, in
which the clouds are masked. `bayes` is told nothing of what was drawn; the others are told sigma. "oracle" is the
posterior mean with the true shifts, sigma and noise and the most probable spectrum.

Printed are, per scene and strategy: the PSNR over the oracle's (dB), the shifts' rmse over the Cramer-Rao bound, the
mean noise over the true one, the error of sigma in each band and the fraction of bands whose error is within max(5 %,
2 standard errors), and the seconds of processor.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aerial import BANDS, DATA, sharp

SCALES = {"nd": 8, "va": 10, "sw": 5, "se": 5}  # image pixels per LR pixel
MARGIN = 5  # LR pixels
COLUMNS = {  # and their widths
    "over oracle dB": 16,
    "shift / bound": 15,
    "noise / true": 14,
    "sigma, per cent": 26,
    "within": 8,
    "seconds": 9,
}


def conditions(rng: np.random.Generator, *, dates: tuple[int, int]) -> dict[str, Any]:
    """Draw sigma and jitter (LR pixels), noise (reflectance), and dates, from the first to before the second."""
    return {
        "sigma": rng.uniform(0.38, 0.55),
        "noise": math.exp(rng.uniform(math.log(0.001), math.log(0.006))),
        "jitter": rng.uniform(0.1, 0.3),
        "dates": int(rng.integers(*dates)),
    }


def drawn(folder: Path, image: str, seed: int, side: int | None):
    """The scene of one draw, and what was drawn."""
    from s2sr.data.simulate import jitter, simulate_scene

    rng = np.random.default_rng(seed)
    draw = conditions(rng, dates=(8, 25))
    reflectance, scale = sharp(folder, image), SCALES[image]
    sides = [(side + 2 * MARGIN) * scale if side else int(0.8 * n) for n in reflectance.shape[1:]]
    missing = [max(0, m - n) for n, m in zip(reflectance.shape[1:], sides, strict=True)]
    reflectance = np.pad(reflectance, [(0, 0), *[(0, n) for n in missing]], mode="symmetric")
    y, x = (int(rng.integers(n - m + 1)) for n, m in zip(reflectance.shape[1:], sides, strict=True))
    scene = simulate_scene(
        reflectance[:, y : y + sides[0], x : x + sides[1]],
        scale,
        bands=BANDS,
        shifts=jitter(draw["dates"], draw["jitter"], rng),
        sigma_psf=draw["sigma"],
        noise=draw["noise"],
        seed=seed,
        margin=MARGIN,
    )
    return scene, draw


def clouded(scene, dates: int, seed: int):
    """The scene with clouds over 40 % of some dates that no mask knows, and the same with the mask."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    frames, seen = scene.frames.clone(), scene.valid.clone()
    for t in rng.permutation(len(scene))[:dates]:
        billows = gaussian_filter(rng.normal(size=scene.grid.shape), 5, mode="wrap")
        opacity = ((billows - np.quantile(billows, 0.6)) / billows.std()).clip(0, 0.8)
        opacity = torch.from_numpy(opacity).to(frames)
        frames[t] = frames[t] * (1 - opacity) + 0.45 * opacity
        seen[t] &= opacity == 0
    return (
        dataclasses.replace(scene, frames=frames),
        dataclasses.replace(scene, frames=frames * seen, valid=seen),
    )


def psnr(scene, module) -> float:
    from s2sr.report.scores import scores

    field = module.field
    return scores(scene, field.render(), field.scale, field.shifts.detach())["psnr"]


def oracle(scene, draw: dict[str, float]):
    """The fit that knows shifts, sigma and noise: its stages choose the spectrum and solve."""
    from s2sr.model.field import SplatField
    from s2sr.model.psf import PSF
    from s2sr.observations import build, configuration
    from s2sr.reconstruction import posed
    from s2sr.training import train

    cfg = configuration(
        "strategy=bayes",
        "c2f=4",
        "~strategy.align",
        "~strategy.sharpen",
        "strategy.register.blocks=[[spectrum]]",
        "strategy.solve.start.path=s2sr.fit.posterior.closed_form",  # every band for itself
    )
    psf = PSF(draw["sigma"])
    field = SplatField(scene.grid, scene.bands, scale=4, psf=psf, shifts=scene.truth.shifts)
    module = posed(scene, field, build(cfg.strategy), cfg, noise=draw["noise"])
    train(module, cfg)
    return module


def compared(seen, scene, draw: dict[str, float], best, overrides: list[str]) -> np.ndarray:
    """The row of `COLUMNS` for a fit of an observed scene, with one error of sigma per band; best: the oracle's fit."""
    from s2sr.fit.evidence.information import sigma_errors
    from s2sr.fit.forecast import Conditions
    from s2sr.observations import configuration
    from s2sr.reconstruction import reconstruct
    from s2sr.report.metrics import shift_rmse

    cfg = configuration("c2f.levels=[2,4]", *overrides)
    start = time.process_time()
    module = reconstruct(seen, cfg)
    seconds = time.process_time() - start
    away = (module.field.sigma_psf.detach() - draw["sigma"]) / draw["sigma"]
    allowed = torch.maximum(2 * sigma_errors(module) / draw["sigma"], torch.tensor(0.05))
    return np.array(
        [
            psnr(scene, module) - psnr(scene, best),
            shift_rmse(module.field.shifts, scene.truth.shifts) / Conditions.of(best).shift_error(),
            float(module.noise.detach().mean()) / draw["noise"],
            *(100 * away).tolist(),
            float((away.abs() < allowed).float().mean()),
            seconds,
        ]
    )


def line(scene: str, strategy: str, row: np.ndarray) -> str:
    gain, shift, noise, *sigma, within, seconds = row
    away = " ".join(f"{s:+.1f}" for s in sigma)
    cells = (f"{gain:.3f}", f"{shift:.2f}", f"{noise:.3f}", away, f"{within:.2f}", f"{seconds:.2f}")
    return f"{scene:>5} {strategy:14}" + "".join(f"{c:>{w}}" for c, w in zip(cells, COLUMNS.values(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--images", default="va,sw,se")
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--side", type=int)
    parser.add_argument("--clouds", type=int, default=0)
    parser.add_argument("--strategies", default="bayes,lbfgs,lbfgs_adam")
    options, overrides = parser.parse_known_args()
    logging.getLogger("s2sr").setLevel(logging.ERROR)
    print(f"{'scene':>5} {'strategy':14}" + "".join(f"{name:>{width}}" for name, width in COLUMNS.items()))
    found: dict[str, list[np.ndarray]] = {}
    draws = range(options.first, options.first + options.scenes)
    for image, seed in itertools.product(options.images.split(","), draws):
        scene, draw = drawn(options.data, image, seed, options.side)
        best = oracle(scene, draw)
        print(
            f"{image}{seed:3} " + ", ".join(f"{key} {value:.4g}" for key, value in draw.items()),
            f"{scene.grid.shape} oracle {psnr(scene, best):.2f} dB",
        )
        scenes = {"": scene}
        if options.clouds:
            scenes = dict(zip((" clouds", " masked"), clouded(scene, options.clouds, seed), strict=True))
        for strategy, (name, seen) in itertools.product(options.strategies.split(","), scenes.items()):
            told = "psf=auto" if strategy == "bayes" else f"psf.sigma={draw['sigma']}"
            row = compared(seen, scene, draw, best, [f"strategy={strategy}", told, *overrides])
            found.setdefault(strategy + name, []).append(row)
            print(line("", strategy + name, row), flush=True)
    for strategy, rows in found.items():
        print(line("mean", strategy, np.mean(rows, 0)))
        print(line("least", strategy, np.min(rows, 0)))
        print(line("most", strategy, np.max(rows, 0)))


if __name__ == "__main__":
    main()
