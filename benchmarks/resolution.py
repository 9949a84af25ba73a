"""The resolution that two halves of the dates tell, against the one measured with the truth.

python benchmarks/resolution.py [--data FOLDER] [--set report|develop] [--scenes 8] [OVERRIDE ...]

`report` is the demo scene of seed 0, and draws from NAIP-VA (1 m, 45 x 53 LR pixels). `develop` is what the method was
made on: demo scenes from seed 100 on, and draws from four places of the 5 m North Dakota image, read as 1/8 LR pixel.
All draws have the published sigma; noise (.002 to .012), jitter (.05 to .3 px) and dates (8 to 20) differ. FOLDER is
that of benchmarks/aerial.py. Printed are, per scene, the mean over bands of the frequencies (cycles per LR pixel) at
which the correlation with the truth falls to 1/2: measured with the truth, as the halves tell it, and where the halves'
own Fourier ring correlation falls to 1/7.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
from aerial import BANDS, DATA, sharp


def places(folder: Path, which: str) -> list[tuple[np.ndarray, int]]:
    """(reflectance [b, y, x], pixels per LR pixel) of the images to draw from."""
    if which == "report":
        return [(sharp(folder, "va"), 10)]
    image, side = sharp(folder, "nd"), 54 * 8
    return [(image[:, y : y + side, x : x + side], 8) for y, x in ((0, 0), (0, 500), (290, 0), (290, 300))]


def scene_of(folder: Path, which: str, k: int):
    """(name, scene) of the k-th draw."""
    from s2sr.data.demo import Demo
    from s2sr.data.simulate import jitter, simulate_scene
    from s2sr.model.psf import MTF_AT_NYQUIST, sigma_from_mtf

    noise, spread, dates = [(0.002, 0.15, 12), (0.006, 0.3, 8), (0.002, 0.05, 12), (0.012, 0.15, 20)][k // 2 % 4]
    drawn = f"noise {noise}, jitter {spread}, {dates} dates"
    if which == "report" and k == 0:
        return "demo 0", Demo().load()
    if which == "develop" and k % 2 == 0:
        options: dict[str, Any] = {"noise": noise, "jitter": spread, "n_dates": dates}
        return f"demo {100 + k}, {drawn}", Demo(size=48, seed=100 + k, **options).load()
    images = places(folder, which)
    reflectance, scale = images[k // 2 % len(images)]
    sigma = [sigma_from_mtf(MTF_AT_NYQUIST[band]) for band in BANDS]
    shifts = jitter(dates, spread, np.random.default_rng(k))
    scene = simulate_scene(reflectance, scale, bands=BANDS, shifts=shifts, sigma_psf=sigma, noise=noise, seed=k)
    return f"NAIP {k}, {drawn}", scene


def measured(scene, overrides: list[str]) -> tuple[float, float, float]:
    """The frequencies by the truth, by the halves, and by the halves' own ring correlation."""
    from s2sr.data.holdout import halves
    from s2sr.observations import configuration
    from s2sr.reconstruction import reconstruct, solve_again
    from s2sr.report.resolution import CRITERION, by_truth, crossing, ring_correlation
    from s2sr.report.resolution.halves import by_halves
    from s2sr.report.scores import offset_to_truth

    cfg = configuration("c2f=2_4", *overrides)
    module = reconstruct(scene, cfg)
    scene, field = module.scene, module.field
    scenes = halves(scene)
    fields = [solve_again(module, half, cfg) for half in scenes]
    truth = by_truth(scene, field, tuple(offset_to_truth(scene, field.shifts.detach()).tolist()))
    told = by_halves(field, fields, scenes, module.noise.detach())
    first, second = (half.render().numpy() for half in fields)
    own = ring_correlation(first, second, field.scale, told.widths)
    plain = [crossing(curve * CRITERION * 7) for curve in own]
    return truth.frequencies.mean(), told.frequencies.mean(), float(np.mean(plain / told.widths))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--set", choices=("report", "develop"), default="report")
    parser.add_argument("--scenes", type=int, default=8)
    options, overrides = parser.parse_known_args()
    logging.getLogger("s2sr").setLevel(logging.ERROR)
    print(f"{'':42}{'by truth':>10}{'by halves':>10}{'error':>8}{'plain FRC':>12}")
    errors = []
    for k in range(options.scenes):
        name, scene = scene_of(options.data, options.set, k)
        truth, halves, plain = measured(scene, overrides)
        errors.append(halves / truth - 1)
        print(f"{name:42}{truth:10.3f}{halves:10.3f}{errors[-1]:+8.1%}{plain:12.3f}", flush=True)
    within = np.mean(np.abs(errors) <= 0.15)
    print(f"mean error {np.mean(errors):+.1%}, largest {np.abs(errors).max():.1%}, within 15 %: {within:.0%}")


if __name__ == "__main__":
    main()
