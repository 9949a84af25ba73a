"""Every strategy on observations simulated from sharp aerial images, with known truth.

python benchmarks/strategies.py [--data FOLDER] [--scenes 3] [--strategies lbfgs,bayes] [OVERRIDE ...]

FOLDER and its image va are those of benchmarks/aerial.py. A scene has 8 observations with a jitter of 0.15 px (standard
deviation), noise of 0.002 and sigma of 0.45 px; the draws differ from scene to scene. Each run has its own process, so
that the peak of memory is its own. Printed are the means over the scenes, and the differences to `lbfgs`.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from aerial import BANDS, DATA, sharp

STRATEGIES = "adam,lbfgs,adam_lbfgs,lbfgs_adam,published,bayes"
COLUMNS = ("psnr", "psnr_bicubic", "ssim", "edge_contrast", "shift_rmse_px", "evals", "seconds", "memory_mb")


def simulated(folder: Path, seed: int):
    """The scene of one draw."""
    from s2sr.data.simulate import jitter, simulate_scene

    shifts = jitter(8, 0.15, np.random.default_rng(seed))
    image = sharp(folder, "va")
    return simulate_scene(image, 10, bands=BANDS, shifts=shifts, sigma_psf=0.45, noise=0.002, seed=seed)


def run(folder: Path, seed: int, strategy: str, overrides: list[str]) -> dict[str, float]:
    from s2sr.observations import configuration
    from s2sr.reconstruction import reconstruct
    from s2sr.report.scores import scores

    logging.getLogger("s2sr").setLevel(logging.ERROR)
    scene = simulated(folder, seed)
    cfg = configuration(f"strategy={strategy}", "psf.sigma=0.45", *overrides)
    start = time.perf_counter()
    module = reconstruct(scene, cfg)
    seconds = time.perf_counter() - start
    field = module.field
    found = scores(scene, field.render(), field.scale, field.shifts.detach())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found | {"evals": module.evals, "seconds": seconds, "memory_mb": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--strategies", default=STRATEGIES)
    options, overrides = parser.parse_known_args()
    print(f"{'':12}" + "".join(f"{column:>15}" for column in COLUMNS) + f"{'over bicubic':>15}{'over lbfgs':>15}")
    means: dict[str, dict[str, float]] = {}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for strategy in options.strategies.split(","):
            jobs = [pool.submit(run, options.data, seed, strategy, overrides) for seed in range(options.scenes)]
            runs = [job.result() for job in jobs]
            mean = means[strategy] = {column: float(np.mean([r[column] for r in runs])) for column in COLUMNS}
            gains = (mean["psnr"] - mean["psnr_bicubic"], mean["psnr"] - means.get("lbfgs", {}).get("psnr", np.nan))
            row = "".join(f"{mean[column]:15.4f}" for column in COLUMNS) + "".join(f"{gain:+15.2f}" for gain in gains)
            print(f"{strategy:12}{row}", flush=True)


if __name__ == "__main__":
    main()
