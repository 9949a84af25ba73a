"""Does the held-out error tell the truth, what does it choose, what does it say of real scenes, and what does it cost?

python benchmarks/heldout.py rank   [--scenes naip:0,demo:0] [OVERRIDE ...]
python benchmarks/heldout.py sigma  [--scenes naip:0,...,naip:9] [OVERRIDE ...]
python benchmarks/heldout.py real   [--folders apulia_clear,belgium_monthly] [--strategies lbfgs,bayes] [OVERRIDE ...]
python benchmarks/heldout.py cost   [--strategies lbfgs,lbfgs_adam,bayes] [OVERRIDE ...]

rank: over the configurations of `CONFIGURATIONS`, Spearman's correlation of the held-out error, of its median and of
edge contrast with the true error (1 / PSNR at 4x). sigma: the parabola through the least held-out rmse over sigma
against the true sigma. real: held-out errors over those of the temporal mean, mean and spread of five layouts, and the
same of the two other baselines. cost: the share of judgement and refit in the fit.

Scenes: `naip:SEED` (NAIP-VA, 1 m, read as an eighth of a pixel), `dakota:SEED` (5 m; to tune on) and `demo:SEED`, which
has clouds, haze and change. --data: the folder that holds hr_naip_va, hr_naip_northdakota_5m and the stacks.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

SIGMA = 0.45  # of the simulated scenes of `rank`
CONFIGURATIONS = [
    (f"strategy={strategy}", f"psf.sigma={sigma}", f"strategy.coarse_to_fine.tv.value={tv}", *more)
    for strategy, weights, more in (
        ("lbfgs", (0.1, 0.5, 2.0), ()),
        ("published", (0.5,), ("strategy.polish.steps=200",)),
    )
    for tv in weights
    for sigma in (0.35, 0.4, 0.45, 0.5, 0.55)
]
COMMON = ("c2f.levels=[2,4]", "holdout.refit=false")
BANDS = ("B02", "B03", "B04", "B08")


def sharp(folder: Path, name: str) -> np.ndarray:
    """[b, y, x] reflectance, blue to near infrared."""
    import rasterio

    if name == "naip":
        paths = [(folder / "hr_naip_va" / f"NAIP-VA-b{k}.tiff", 1) for k in (3, 2, 1, 4)]
    else:
        paths = [(folder / "hr_naip_northdakota_5m" / "m_4709963_se_14_1_20160816.tif", k) for k in (3, 2, 1, 4)]
    bands = []
    for path, index in paths:
        with rasterio.open(path) as file:
            bands.append(file.read(index))
    return np.stack(bands).astype(np.float32) / 255 * 0.4


def simulated(folder: Path, scene: str, sigma: float, side: int = 36, dates: int = 8):
    """A scene of about `side` LR pixels; place, jitter and noise are the seed's."""
    from s2sr.data.demo import Demo
    from s2sr.data.simulate import jitter, simulate_scene

    name, _, seed = scene.partition(":")
    if name == "demo":
        return Demo(size=side, n_dates=dates, seed=int(seed), sigma_psf=sigma).load()
    image, rng = sharp(folder, name), np.random.default_rng(int(seed))
    pixels = 8 * (side + 8)
    row, column = (int(rng.integers(n - pixels + 1)) for n in image.shape[1:])
    image = image[:, row : row + pixels, column : column + pixels]
    shifts = jitter(dates, 0.15, rng)
    return simulate_scene(image, 8, bands=BANDS, shifts=shifts, sigma_psf=sigma, noise=0.002, seed=int(seed))


def judged(scene, *overrides: str) -> dict[str, float]:
    """The fit's judgement; `psnr` and `edge_contrast` where the truth is known."""
    from s2sr.observations import configuration
    from s2sr.reconstruction import reconstruct
    from s2sr.report.scores import scores

    module = reconstruct(scene, configuration(*COMMON, *overrides))
    field = module.field
    known = scores(scene, field.render(), field.scale, field.shifts.detach()) if scene.truth else {}
    return {**module.judgement, **known}


def rank(options: argparse.Namespace, overrides: list[str]) -> None:
    for name in options.scenes or ["naip:0", "demo:0"]:
        scene = simulated(options.data, name, SIGMA)
        rows = []
        for configuration in CONFIGURATIONS:
            found = judged(scene, *configuration, *overrides)
            rows.append([found[key] for key in ("holdout_rmse", "holdout_median", "edge_contrast", "psnr")])
            values = " ".join(f"{part.partition('=')[2]:9}" for part in configuration[:3])  # strategy, sigma, TV weight
            print(f"{name:10} {values}" + "".join(f"{value:11.6f}" for value in rows[-1]), flush=True)
        *scores, psnr = np.array(rows).T
        ranks = [float(spearmanr(score, -psnr).statistic) for score in scores]
        texts = (f"{what} {r:+.2f}" for what, r in zip(("rmse", "median", "edge contrast"), ranks, strict=True))
        print(f"{name:10} rank correlation with the true error over {len(rows)}: " + ", ".join(texts), flush=True)


def sigma(options: argparse.Namespace, overrides: list[str]) -> None:
    errors = []
    for name in options.scenes or [f"naip:{seed}" for seed in range(10)]:
        true = np.random.default_rng(1000 + int(name.partition(":")[2])).uniform(0.4, 0.5)
        scene = simulated(options.data, name, float(true), side=28)
        tried = np.arange(0.35, 0.56, 0.05)
        rows = [judged(scene, "strategy=lbfgs", *overrides, f"psf.sigma={value:.2f}") for value in tried]
        rmse, psnr = (np.array([row[key] for row in rows]) for key in ("holdout_rmse", "psnr"))
        chosen, best = lowest(tried, rmse), lowest(tried, -psnr)
        errors.append(chosen - true)
        print(f"{name:10} true {true:.3f}, held-out chooses {chosen:.3f}, PSNR {best:.3f}", flush=True)
    within = sum(abs(error) <= 0.05 for error in errors)
    print(f"within .05 in {within} of {len(errors)}; bias {np.mean(errors):+.3f}, spread {np.std(errors):.3f}")


def lowest(x: np.ndarray, y: np.ndarray) -> float:
    """Where the parabola through the least of y and its neighbours has its minimum; an end if it is there."""
    k = int(np.argmin(y))
    if k in (0, len(x) - 1):
        return float(x[k])
    a, b, _ = np.polyfit(x[k - 1 : k + 2], y[k - 1 : k + 2], 2)
    return float(-b / (2 * a))


def real(options: argparse.Namespace, overrides: list[str]) -> None:
    from s2sr.experiment import load_scene

    print(
        f"{'':42}"
        + "".join(f"{name:>20}" for name in ("rmse / mean", "median / mean", "rmse / bicubic", "rmse / Wiener"))
    )
    for folder in options.folders.split(","):
        scene = load_scene(options.data / folder, **({"bands": list(BANDS)} if "belgium" in folder else {}))
        scene = scene.crop(64) if "belgium" in folder else scene
        for strategy in options.strategies.split(","):
            found = [judged(scene, f"strategy={strategy}", f"holdout.seed={k}", *overrides) for k in range(5)]
            for band in scene.bands:
                ratios = [
                    [
                        f[f"holdout_{score}_{band}"] / f[f"holdout_{score}_{base}_{band}"]
                        for score, base in (
                            ("rmse", "temporal_mean"),
                            ("median", "temporal_mean"),
                            ("rmse", "bicubic"),
                            ("rmse", "wiener"),
                        )
                    ]
                    for f in found
                ]
                texts = (f"{m:.3f} +- {s:.3f}" for m, s in zip(np.mean(ratios, 0), np.std(ratios, 0), strict=True))
                print(f"{folder:20} {strategy:16} {band:4}" + "".join(f"{text:>20}" for text in texts), flush=True)


def cost(options: argparse.Namespace, overrides: list[str]) -> None:
    from s2sr.observations import configuration
    from s2sr.reconstruction import prepare, train

    scene = simulated(options.data, "demo:0", SIGMA, side=48)
    for strategy in options.strategies.split(","):
        cfg = configuration(f"strategy={strategy}", "c2f.levels=[2,4]", *overrides)
        start = time.process_time()
        module = prepare(scene, cfg)
        judge, asked = module.judge, []

        def timed(*given, judge=judge, asked=asked):
            asked.append(time.process_time())
            found = judge(*given)
            asked.append(time.process_time())
            return found

        module.judge = timed
        train(module, cfg)
        end = time.process_time()
        total, judging, refit = end - start, asked[1] - asked[0], end - asked[1]
        print(f"{strategy:12} {total:.1f} s, judgement {judging / total:.1%}, refit {refit / total:.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("rank", "sigma", "real", "cost"))
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--scenes", type=lambda text: text.split(","))
    parser.add_argument("--folders", default="apulia_clear,belgium_monthly")
    parser.add_argument("--strategies", default=None)
    options, overrides = parser.parse_known_args()
    options.strategies = options.strategies or {"cost": "lbfgs,lbfgs_adam,bayes"}.get(options.part, "lbfgs,bayes")
    logging.getLogger("s2sr").setLevel(logging.ERROR)
    {"rank": rank, "sigma": sigma, "real": real, "cost": cost}[options.part](options, overrides)


if __name__ == "__main__":
    main()
