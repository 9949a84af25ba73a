"""Does the held-out error tell the truth, what does it choose, what does it say of real scenes, and what does it cost?

python benchmarks/heldout.py rank   [--scenes naip:0,demo:0] [OVERRIDE ...]
python benchmarks/heldout.py sigma  [--scenes naip:0,...,naip:9] [OVERRIDE ...]
python benchmarks/heldout.py real   [--folders apulia_clear,belgium_monthly] [--strategies lbfgs,bayes] [OVERRIDE ...]
python benchmarks/heldout.py floor  [--folders apulia_clear,belgium_monthly] [--strategies lbfgs,bayes] [OVERRIDE ...]
python benchmarks/heldout.py cost   [--strategies lbfgs,lbfgs_adam,bayes] [OVERRIDE ...]

rank: over the configurations of `CONFIGURATIONS`, Spearman's correlation of the held-out errors and of edge contrast
with the true error (1 / PSNR) at 4x and at 2x; and, as the most that errors of predicted samples can tell, that of two
oracles: the rmse at the withheld samples without their noise, and at all samples without noise. sigma: the parabola
through the least of a held-out error, mean of five layouts, over sigma against the true sigma. real: held-out errors
over those of the temporal mean, mean and spread of five layouts: of the scene alone and with each date's change; of the
mean itself with the change that is left of its frames, under the same prior; and of the scene over the two other
baselines. floor: the same of the scene alone, fitted to every second date and to all; and what an error whose square is
E + c / dates tends to, that of a perfect scene. cost: the share of judgement and refit in the fit.

Scenes: `naip:SEED` (NAIP-VA, 1 m, read as an eighth of a pixel), the forests `sw:SEED` and `se:SEED` (1 m, a fifth),
`dakota:SEED` (5 m, an eighth; to tune on) and `demo:SEED`, which has clouds, haze and change. --data: the folder that
holds hr_naip_va, hr_naip_northdakota_5m and the stacks.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import torch
from aerial import BANDS, DATA, sharp
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
PLACES = {"naip": ("va", 8), "sw": ("sw", 5), "se": ("se", 5), "dakota": ("nd", 8)}  # image, pixels per LR pixel
SCORES = ("holdout_rmse", "holdout_median", "oracle_withheld", "oracle_all", "edge_contrast")
CHOOSERS = {"holdout_rmse": 1, "holdout_median": 1, "psnr": -1}  # score, and the sign that makes the least the best
COMMON = ("c2f.levels=[2,4]", "holdout.refit=false")


def simulated(folder: Path, scene: str, sigma: float, side: int = 36, dates: int = 8, noise: float = 0.002):
    """A scene of about `side` LR pixels whose place, jitter and noise the seed determines."""
    from s2sr.data.demo import Demo
    from s2sr.data.simulate import jitter, simulate_scene

    name, _, seed = scene.partition(":")
    if name == "demo":
        return Demo(size=side, n_dates=dates, seed=int(seed), sigma_psf=sigma, noise=noise).load()
    place, scale = PLACES[name]
    image, rng = sharp(folder, place), np.random.default_rng(int(seed))
    pixels = scale * (side + 8)
    row, column = (int(rng.integers(n - pixels + 1)) for n in image.shape[1:])
    image = image[:, row : row + pixels, column : column + pixels]
    shifts = jitter(dates, 0.15, rng)
    return simulate_scene(image, scale, bands=BANDS, shifts=shifts, sigma_psf=sigma, noise=noise, seed=int(seed))


def judged(scene, *overrides: str, clean=None) -> dict[str, float]:
    """The fit's judgement, with `psnr` at 4x, `psnr_2x` and `edge_contrast` where the truth is known.

    clean: the scene without noise, for the oracles.
    """
    from s2sr.observations import configuration
    from s2sr.reconstruction import reconstruct
    from s2sr.report.metrics import fidelity
    from s2sr.report.scores import offset_to_truth, scores

    module = reconstruct(scene, configuration(*COMMON, *overrides))
    field, found = module.field, module.judgement
    if truth := scene.truth:
        shifts = field.shifts.detach()
        coarse = field.render(scene.grid.scaled(2))
        moved = {"truth_scale": truth.scale, "shift": offset_to_truth(scene, shifts)}
        found |= scores(scene, field.render(), field.scale, shifts)
        found["psnr_2x"] = fidelity(coarse, truth.reflectance, scale=2, **moved)["psnr"]
    if field.changed.any():
        found |= errors_of_mean(module)
    if clean:
        seen, frames = module.scene, {o.name: frame for o, frame in zip(clean.observations, clean.frames, strict=True)}
        squared = (field().detach() - torch.stack([frames[o.name] for o in seen.observations])).square()
        found["oracle_withheld"] = float(squared[seen.judged].mean().sqrt())
        found["oracle_all"] = float(squared[seen.valid | seen.judged].mean().sqrt())
    return found


def errors_of_mean(module) -> dict[str, float]:
    """The held-out errors of the temporal mean with the change that is left in its frames."""
    from s2sr.fit.change import change
    from s2sr.report.heldout import errors, level_mean, matched

    scene = module.scene
    predicted = matched(level_mean(scene).expand_as(scene.frames), scene.frames, scene.valid)
    return errors("mean_with_change", scene, {"": predicted + change(module, scene.frames - predicted)})


def rank(options: argparse.Namespace, overrides: list[str]) -> None:
    for name in options.scenes or ["naip:0", "demo:0"]:
        scene, clean = (simulated(options.data, name, SIGMA, noise=noise) for noise in (0.002, 0.0))
        rows = []
        for configuration in CONFIGURATIONS:
            rows.append(judged(scene, *configuration, *overrides, clean=clean))
            values = " ".join(f"{part.partition('=')[2]:9}" for part in configuration[:3])  # strategy, sigma, TV weight
            print(f"{name:10} {values}" + "".join(f"{rows[-1][key]:11.6f}" for key in (*SCORES, "psnr")), flush=True)
        for scale, psnr in ((4, "psnr"), (2, "psnr_2x")):
            truth = [-row[psnr] for row in rows]
            ranks = ", ".join(f"{key} {spearmanr([r[key] for r in rows], truth).statistic:+.2f}" for key in SCORES)
            print(f"{name:10} rank correlation over {len(rows)} with the true error at {scale}x: {ranks}", flush=True)


def sigma(options: argparse.Namespace, overrides: list[str]) -> None:
    errors = []
    for name in options.scenes or [f"naip:{seed}" for seed in range(10)]:
        true = np.random.default_rng(1000 + int(name.partition(":")[2])).uniform(0.4, 0.5)
        scene = simulated(options.data, name, float(true), side=28)
        tried = np.arange(0.35, 0.56, 0.05)
        layouts = [f"holdout.seed={k}" for k in range(5)]
        rows = [
            [judged(scene, "strategy=lbfgs", layout, *overrides, f"psf.sigma={value:.2f}") for layout in layouts]
            for value in tried
        ]
        curves = {key: np.array([np.mean([one[key] for one in row]) for row in rows]) for key in CHOOSERS}
        chosen = [lowest(tried, sign * curves[key]) for key, sign in CHOOSERS.items()]
        errors.append([value - true for value in chosen])
        texts = (f"{key} {value:.3f}" for key, value in zip(CHOOSERS, chosen, strict=True))
        print(f"{name:10} true {true:.3f}, chosen by " + ", ".join(texts), flush=True)
    for key, error in zip(CHOOSERS, np.array(errors).T, strict=True):
        within = (abs(error) <= 0.05).sum()
        print(f"{key}: within .05 in {within} of {len(error)}; bias {error.mean():+.3f}, spread {error.std():.3f}")


def lowest(x: np.ndarray, y: np.ndarray) -> float:
    """Where the parabola through the least y and its neighbours has its minimum; if an end is the least, that end."""
    k = int(np.argmin(y))
    if k in (0, len(x) - 1):
        return float(x[k])
    a, b, _ = np.polyfit(x[k - 1 : k + 2], y[k - 1 : k + 2], 2)
    return float(-b / (2 * a))


def stack(data: Path, folder: str):
    """The 10 m bands of a real stack, of Belgium 64 x 64 pixels."""
    from s2sr.experiment import load_scene

    scene = load_scene(data / folder, **({"bands": list(BANDS)} if "belgium" in folder else {}))
    return scene.crop(64) if "belgium" in folder else scene


def real(options: argparse.Namespace, overrides: list[str]) -> None:
    ratios = {  # of what over what
        "scene / mean": ("holdout_{}", "holdout_{}_temporal_mean"),
        "with change / mean": ("holdout_{}_with_change", "holdout_{}_temporal_mean"),
        "mean with change / mean": ("mean_with_change_{}", "holdout_{}_temporal_mean"),
        "scene / bicubic": ("holdout_{}", "holdout_{}_bicubic"),
        "scene / Wiener": ("holdout_{}", "holdout_{}_wiener"),
    }
    for folder in options.folders.split(","):
        scene = stack(options.data, folder)
        for strategy in options.strategies.split(","):
            found = [judged(scene, f"strategy={strategy}", f"holdout.seed={k}", *overrides) for k in range(5)]
            print(f"{f'{folder}, {strategy}':34}" + "".join(f"{band:>16}" for band in scene.bands))
            for score in ("rmse", "median"):
                for name, keys in ratios.items():
                    one, other = (f"{key.format(score)}_{{}}" for key in keys)
                    if one.format(scene.bands[0]) not in found[0]:
                        continue
                    over = [[f[one.format(b)] / f[other.format(b)] for b in scene.bands] for f in found]
                    texts = (f"{m:.3f} +- {s:.3f}" for m, s in zip(np.mean(over, 0), np.std(over, 0), strict=True))
                    print(f"{score:7} {name:26}" + "".join(f"{text:>16}" for text in texts), flush=True)


def floor(options: argparse.Namespace, overrides: list[str]) -> None:
    from s2sr.data.holdout import Holdout
    from s2sr.observations import configuration
    from s2sr.reconstruction import reconstruct
    from s2sr.report.heldout import errors, level_mean, matched

    def predicted(scene, cfg) -> torch.Tensor:
        field = reconstruct(scene, cfg).field
        return (field() - field.changed).detach()

    for folder in options.folders.split(","):
        scene = stack(options.data, folder)
        scores = [(score, band) for score in ("rmse", "median") for band in scene.bands]
        for strategy in options.strategies.split(","):
            cfg = configuration(*COMMON, f"strategy={strategy}", *overrides, "holdout=null")
            squared = []  # by layout and half of the dates, of the mean, that half and all
            for layout in range(5):
                whole = Holdout(seed=layout).split(scene, validation=False)
                mean = matched(level_mean(whole).expand_as(whole.frames), whole.frames, whole.valid)
                fitted = predicted(whole, cfg)
                for first in (0, 1):
                    dates = list(range(first, len(scene), 2))
                    half = whole.select(dates, "every second date")
                    each = {"mean": mean[dates], "half": predicted(half, cfg), "all": fitted[dates]}
                    found = errors("of", half, {f"_{name}": frames for name, frames in each.items()})
                    squared.append(
                        [[found[f"of_{score}_{name}_{band}"] ** 2 for score, band in scores] for name in each]
                    )
            of_mean, of_half, of_all = np.mean(squared, 0)
            print(f"{f'{folder}, {strategy}':34}" + "".join(f"{' '.join(names):>12}" for names in scores))
            for name, value in {"half": of_half, "all": of_all, "perfect": 2 * of_all - of_half}.items():
                print(f"{name:34}" + "".join(f"{x:12.3f}" for x in np.sqrt(value / of_mean)), flush=True)


def cost(options: argparse.Namespace, overrides: list[str]) -> None:
    from s2sr.observations import configuration
    from s2sr.reconstruction import prepare
    from s2sr.training import train

    scene = simulated(options.data, "demo:0", SIGMA, side=48)
    for strategy in options.strategies.split(","):
        cfg = configuration(f"strategy={strategy}", "c2f.levels=[2,4]", *overrides)
        start = time.process_time()
        module = prepare(scene, cfg)
        judge, asked = module.judge, list[float]()

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
    parser.add_argument("part", choices=("rank", "sigma", "real", "floor", "cost"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--scenes", type=lambda text: text.split(","))
    parser.add_argument("--folders", default="apulia_clear,belgium_monthly")
    parser.add_argument("--strategies", default=None)
    options, overrides = parser.parse_known_args()
    options.strategies = options.strategies or {"cost": "lbfgs,lbfgs_adam,bayes"}.get(options.part, "lbfgs,bayes")
    logging.getLogger("s2sr").setLevel(logging.ERROR)
    {"rank": rank, "sigma": sigma, "real": real, "floor": floor, "cost": cost}[options.part](options, overrides)


if __name__ == "__main__":
    main()
