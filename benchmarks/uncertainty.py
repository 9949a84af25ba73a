"""How often the truth lies within the product's intervals, and the constants that decide it.

python benchmarks/uncertainty.py report [--scenes NAME,NAME] [--strategies bayes,lbfgs,lbfgs_adam] [OVERRIDE ...]
python benchmarks/uncertainty.py fit    [--scenes NAME,NAME] [--strategies bayes,lbfgs] [OVERRIDE ...]

A scene is named IMAGE:SEED:SCALE or IMAGE:SEED:SCALE:VARIANT. IMAGE is demo (as it comes), season (a demo scene whose
sigma, noise, jitter and 6 to 20 dates are drawn), or an aerial image with a draw as in benchmarks/bayes.py (nd, va, sw,
se). VARIANT is masked (40 % of every date, in patches), few (3 dates), large (96 LR pixels instead of 40) or auto
(psf=auto; otherwise the fit is told sigma). --data is the same as there.

report prints, for scenes on which no constant was tuned, the coverage of +- 1 std (target 68 +- 5 %) and of +- 1.96 std
(target 95 +- 2 %) in per cent, means over bands: overall, in each quarter of local contrast from the lowest, and where
the truth's own contrast, which nobody knows, is in its highest quarter. Then follow how many standard deviations hold
68, 95 and 99 per cent (1, 1.96 and 2.58 for a normal distribution), how much of the squared error lies beyond .6 cycles
per LR pixel, and the time of standard deviation and count as a share of the fit's.
fit prints the same before and after CHANCE and CORRELATION are fitted, on scenes to tune on: by least squares of the
logarithms of the 68 and 95 % quantiles of |error| / std, in every quarter of every scene.
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
from aerial import DATA
from bayes import conditions, drawn

TUNING = (
    *("demo:100:4", "demo:101:4", "demo:102:4", "season:103:4", "season:104:4", "season:105:4", "season:111:4:large"),
    *("nd:0:4", "nd:1:4", "nd:2:4", "nd:3:4", "nd:4:4", "season:113:2", "nd:10:2", "demo:114:8", "nd:11:8"),
)
REPORTED = (
    *("demo:0:2", "demo:0:4", "demo:0:8", "demo:0:4:large", "va:0:2", "va:1:4", "va:2:4:masked", "va:3:4:few"),
    *("va:5:8", "sw:0:4", "se:0:4", "demo:0:4:auto", "demo:0:8:auto", "demo:0:4:large:auto", "va:0:2:auto"),
    *("va:1:4:auto", "va:4:4:auto", "sw:0:4:auto", "se:0:4:auto"),
)
LEVELS = {"2": "[2]", "4": "[2,4]", "8": "[2,4,8]"}


def scene_of(folder: Path, name: str):
    """The scene of a name, and what the fit is told of it, as overrides."""
    from scipy.ndimage import gaussian_filter

    from s2sr.data.demo import Demo

    image, seed, scale, *variant = name.split(":")
    side, rng = 96 if "large" in variant else 40, np.random.default_rng(int(seed))
    told = []
    if image == "demo":
        scene = Demo(size=side, seed=int(seed)).load()
    elif image == "season":
        draw = conditions(rng, dates=(6, 21))
        given = {"sigma_psf": draw["sigma"], "n_dates": draw["dates"]}
        scene = Demo(size=side, seed=int(seed), noise=draw["noise"], jitter=draw["jitter"], **given).load()
        told = [f"psf.sigma={draw['sigma']}"]
    else:
        scene, draw = drawn(folder, image, int(seed), side if image == "nd" else None)
        told = [f"psf.sigma={draw['sigma']}"]
    if "masked" in variant:
        valid = scene.valid.clone()
        for one in valid:
            field = gaussian_filter(rng.normal(size=scene.grid.shape), 4)
            one &= torch.from_numpy(field < np.quantile(field, 0.6))
        scene = dataclasses.replace(scene, valid=valid, frames=scene.frames * valid)
    if "few" in variant:
        scene = scene.select([0, 1, 2], "few")
    if "auto" in variant:
        told = ["psf=auto"]
    return scene, [*told, f"c2f.levels={LEVELS[scale]}"]


@dataclasses.dataclass(frozen=True)
class Case:
    """A product and all that its standard deviation needs."""

    image: np.ndarray  # [b, y, x]
    truth: np.ndarray  # [b, y, x] at its resolution
    scale: int
    errors: list  # per band, s2sr.fit.uncertainty.Errors
    share: float  # of the fit's time, per cent

    @classmethod
    def of(cls, scene, overrides: list[str]) -> Case:
        from s2sr.fit.uncertainty import errors
        from s2sr.fit.uncertainty.clear import clear_count
        from s2sr.observations import configuration
        from s2sr.reconstruction import reconstruct
        from s2sr.report.intervals import seen

        start = time.process_time()
        module = reconstruct(scene, configuration(*overrides))
        fitted = time.process_time()
        field = module.field
        image, scale, shifts = field.render(), field.scale, field.shifts.detach()
        rendered = time.process_time()
        found = errors(module, image, scale)
        for one in found:
            one.deviation()
        clear_count(module.scene.valid, shifts, scale)
        share = 100 * (time.process_time() - rendered) / (fitted - start)
        truth = seen(module.scene, scale=scale, splat=field.lattice.sigma, shifts=shifts)
        return cls(image.numpy(), truth, scale, found, share)

    def inside(self, x: np.ndarray) -> np.ndarray:
        from s2sr.report.metrics import BORDER

        cut = slice(BORDER * self.scale, -BORDER * self.scale)
        return x[:, cut, cut]

    def z(self, **constants: float) -> np.ndarray:
        """[b, y, x] the size of the error in standard deviations."""
        deviation = np.stack([one.deviation(**constants).numpy() for one in self.errors])
        return self.inside(np.abs(self.image - self.truth) / deviation)

    def quarters(self, image: np.ndarray) -> np.ndarray:
        from s2sr.report.intervals import local_contrast, quarters

        return np.stack([quarters(band) for band in self.inside(local_contrast(image, self.scale))])

    def row(self, **constants: float) -> np.ndarray:
        """[17] the coverage of 68 and 95 per cent overall, in q1 to q4, and in the truth's q4; the standard deviations
        within which 68, 95 and 99 per cent lie; the error beyond SEEN; the time's share.
        """
        z, quarter = self.z(**constants), self.quarters(self.image)
        parts = [z, *(z[quarter == q] for q in range(4)), z[self.quarters(self.truth) == 3]]
        covered = [100 * np.mean(part <= k) for part in parts for k in (1, 1.96)]
        return np.array([*covered, *np.quantile(z, (0.6827, 0.95, 0.99)), self.beyond(), self.share])

    def beyond(self) -> float:
        """The share of the squared error at frequencies that are not seen, in per cent."""
        from s2sr.fit.uncertainty.error_variance import SEEN

        error = self.inside(self.image - self.truth)
        window = np.multiply.outer(*(np.hanning(n) for n in error.shape[1:]))
        energy = np.square(np.abs(np.fft.fft2((error - error.mean((1, 2), keepdims=True)) * window)))
        rows, columns = (np.fft.fftfreq(n, 1 / self.scale) for n in error.shape[1:])
        return float(100 * (energy * (np.hypot(rows[:, None], columns) > SEEN)).sum() / energy.sum())

    def miss(self, **constants: float) -> np.ndarray:
        """[8] the logarithms of the 68 and 95 % quantiles in the four quarters, over those of a normal distribution."""
        z, quarter = self.z(**constants), self.quarters(self.image)
        return np.log([np.quantile(z[quarter == q], p) / k for q in range(4) for p, k in ((0.6827, 1), (0.95, 1.96))])


def cases(options: argparse.Namespace, overrides: list[str]):
    """Yields (scene, strategy, case), one after the other."""
    for name in options.scenes.split(","):
        scene, told = scene_of(options.data, name)
        for strategy in options.strategies.split(","):
            yield name, strategy, Case.of(scene, [f"strategy={strategy}", *told, *overrides])


def line(first: str, second: str, values: np.ndarray) -> None:
    pairs = "".join(f"{a:8.1f}{b:5.1f}" for a, b in values[:-5].reshape(-1, 2))
    multiples = "".join(f"{k:6.2f}" for k in values[-5:-2])
    print(f"{first:19}{second:16}{pairs}{multiples}{values[-2]:10.1f}{values[-1]:8.1f}", flush=True)


def summary(rows: dict[str, list[np.ndarray]]) -> None:
    for strategy, found in rows.items():
        line("mean", strategy, np.mean(found, 0))
        line("spread", strategy, np.std(found, 0))


def report(options: argparse.Namespace, overrides: list[str]) -> None:
    rows: dict[str, list[np.ndarray]] = {}
    for name, strategy, case in cases(options, overrides):
        row = case.row()
        rows.setdefault(f"{strategy} auto" if name.endswith("auto") else strategy, []).append(row)
        line(name, strategy, row)
    summary(rows)


def fit(options: argparse.Namespace, overrides: list[str]) -> None:
    from scipy.optimize import minimize

    from s2sr.fit.uncertainty import CORRELATION
    from s2sr.fit.uncertainty.activity import CHANCE

    found: dict[str, list[Case]] = {}
    for name, strategy, case in cases(options, overrides):
        found.setdefault(strategy, []).append(case)
        line(name, strategy, case.row())
    every = [case for of_strategy in found.values() for case in of_strategy]

    def loss(constants: np.ndarray) -> float:
        chance, correlation = constants
        return float(np.mean([case.miss(chance=chance, correlation=correlation) ** 2 for case in every]))

    start = np.array([CHANCE, CORRELATION])
    best = minimize(loss, start, method="Nelder-Mead", options={"xatol": 0.005, "fatol": 1e-6, "maxiter": 60})
    for constants in (start, best.x):
        given = dict(zip(("chance", "correlation"), constants.tolist(), strict=True))
        print(" ".join(f"{k.upper()} {v:.3f}" for k, v in given.items()), f"rms miss {math.sqrt(loss(constants)):.4f}")
        summary({strategy: [case.row(**given) for case in some] for strategy, some in found.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("report", "fit"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--strategies")
    parser.add_argument("--scenes")
    options, overrides = parser.parse_known_args()
    fits = options.what == "fit"
    options.scenes = options.scenes or ",".join(TUNING if fits else REPORTED)
    options.strategies = options.strategies or ("bayes,lbfgs" if fits else "bayes,lbfgs,lbfgs_adam")
    logging.getLogger("s2sr").setLevel(logging.ERROR)
    columns = ("overall", "q1", "q2", "q3", "q4", "truth's q4")
    print(
        f"{'scene':19}{'strategy':16}"
        + "".join(f"{column:>13}" for column in columns)
        + f"{'68':>6}{'95':>6}{'99':>6}{'beyond %':>10}{'time %':>8}"
    )
    (fit if fits else report)(options, overrides)


if __name__ == "__main__":
    main()
