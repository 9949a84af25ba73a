"""What was forecast before the fit against what the fit reached, on scenes drawn from sharp aerial images.

python benchmarks/forecast.py [--data FOLDER] [--scenes 6] [OVERRIDE ...]

Scenes are those that benchmarks/bayes.py draws from image va. The forecast is told sigma and nothing else. Reached: the
shift rmse, and the lowest frequency at which the error's power reaches a quarter of the truth's (both on rings |f|,
both seen through the splats, under a Hann window 6 LR pixels off the border), of `strategy=bayes` without and with
`sharpen`. Prints these per scene, their ratios to the forecast, and the seconds of processor that the forecast took.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import torch
from aerial import DATA
from bayes import drawn
from scipy.ndimage import gaussian_filter


def reached(scene, module) -> float:
    """Cycles per LR pixel up to which the field is right, the mean over bands."""
    from s2sr.fit.forecast import crossing
    from s2sr.report.metrics import BORDER, area_average
    from s2sr.report.scores import offset_to_truth

    field = module.field.cpu()
    scale = field.scale
    image = field.render().numpy()
    shift = offset_to_truth(scene, field.shifts.detach())
    truth = area_average(scene.truth.reflectance, scene.truth.scale, scale, tuple(shift.tolist()))
    inside = (slice(None), *[slice(BORDER * scale, -BORDER * scale)] * 2)
    truth = np.stack([gaussian_filter(band, field.lattice.sigma * scale) for band in truth])[inside]
    image = image[inside]
    rows, columns = image.shape[1:]
    window = np.hanning(rows)[:, None] * np.hanning(columns)
    f = np.hypot(np.fft.fftfreq(rows, 1 / scale)[:, None], np.fft.fftfreq(columns, 1 / scale))
    rings = np.rint(f / 0.04).astype(int).ravel()

    def power(bands: np.ndarray) -> np.ndarray:
        spectra = np.abs(np.fft.fft2((bands - bands.mean((1, 2), keepdims=True)) * window)) ** 2
        return np.stack([np.bincount(rings, band.ravel()) for band in spectra])

    ratio = torch.from_numpy(power(image - truth) / power(truth))
    return float(np.mean([crossing(torch.arange(len(e)) * 0.04, e) for e in ratio]))


def main() -> None:
    from s2sr.fit.sample import conditions_of
    from s2sr.observations import build, configuration, register
    from s2sr.reconstruction import reconstruct
    from s2sr.report.metrics import shift_rmse

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--scenes", type=int, default=6)
    options, overrides = parser.parse_known_args()
    logging.getLogger("s2sr").setLevel(logging.ERROR)
    heads = ("shift forecast", "reached", "ratio", "detail forecast", "solve", "sharpen", "ratio", "ratio", "seconds")
    print(f"{'scene':>5}" + "".join(f"{head:>16}" for head in heads))
    ratios = []
    for seed in range(options.scenes):
        scene, draw = drawn(options.data, "va", seed, None)
        cfg = configuration("strategy=bayes", f"psf.sigma={draw['sigma']}", "c2f.levels=[4]", *overrides)
        shifts = register(scene)[1]
        start = time.process_time()
        forecast = conditions_of(scene, shifts=shifts, psf=build(cfg.psf)).forecast()
        seconds = time.process_time() - start
        module = reconstruct(scene, cfg)
        sharpened = reached(scene, module)
        error = shift_rmse(module.field.shifts, scene.truth.shifts)
        del cfg.strategy.sharpen
        solved = reached(scene, reconstruct(scene, cfg))
        f = forecast.frequency
        row = [forecast.shift, error, error / forecast.shift, f, solved, sharpened, solved / f, sharpened / f, seconds]
        ratios.append(row)
        print(f"{seed:5}" + "".join(f"{value:16.4f}" for value in row), flush=True)
    print(f"{'mean':>5}" + "".join(f"{value:16.4f}" for value in np.mean(ratios, 0)))


if __name__ == "__main__":
    main()
