"""How much of the detail is real on real data: 10 m frames, degraded to 20 m, are the truth of a product at 10 m.

python benchmarks/degraded.py [--folders apulia_clear,belgium_monthly] [--strategies lbfgs,bayes] [--draws 4]
    [--sharp] [--told 1] [OVERRIDE ...]

The protocol of Wald et al. (1997), for many frames. Each 10 m frame is blurred by a Gaussian, such that all of the
footprint's Gaussian is as many pixels of 20 m as it was of 10 m; then averaged over blocks of 2 x 2 pixels that begin
at row 0 or 1 and column 0 or 1, as drawn for each date. So noise, change, air and half of the shift are real, and the
footprint is Sentinel-2's, twice as large. --sharp: without the blur the Gaussian is half as wide. The fits are told
sigma (times --told) and nothing else. Draw k leaves out every fourth date from the k-th on: no fit sees it. The field,
seen through the 10 m footprint at the shifts of the 10 m frames (those of `bayes` on all of them), is compared with
these, 6 LR pixels off the border (1 LR pixel: 20 m). Prints means over draws and bands:

    rmse, median    against the 10 m frames of the dates left out, gain and offset fitted, over those of "10 m"
    psnr, ssim      against the mean of the 10 m frames of the dates used, which is the truth below
    low, new        power of the error over the truth's: below .5 cycles per LR pixel; and in the new octave, beyond
                    what a grid of 20 m carries and up to 1, with its standard deviation over the draws
    corr, unseen    correlation with the truth in the new octave; and with the mean of the dates left out
    68, 95          per cent of the truth (at the resolution of sr.tif) within 1 and 1.96 sr_std of sr.tif
    limit, frc      frequency up to which product and truth correlate by more than 1/2, as measured; and as two halves
                    of the 20 m dates tell (report.frc=true)
    e<1/4, fore     frequency up to which the error has less than 1/4 of the power, as measured; and as forecast
    shift           rmse of the shifts, LR pixels (the true ones are uncertain by some .01)
    hrmse, hmed     holdout_rmse and holdout_median of the fit at 20 m
    sigma           found over true

10 m: `bayes` on the 10 m frames of the dates used; mean: their mean, interpolated (Keys) at each date's shift. From the
20 m frames, at the shifts of the first fit: bicubic, of their mean; Wiener, that mean deconvolved up to its Nyquist
frequency; add, each frame interpolated to 10 m (Keys), then averaged. The last lines: Spearman's correlation over the
strategies of what is known at 20 m with errors at 10 m. --data: the folder that holds the stacks.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aerial import BANDS, DATA
from scipy import fft
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional

EVERY = 4  # one date in so many is left out
REACH = 3  # pixels that a masked one spoils when frames are blurred
FADE = 8  # pixels over which images are faded out before their Fourier transform
COLUMNS = {  # and their widths
    **{"rmse": 7, "median": 7, "psnr": 7, "ssim": 6, "low": 7, "new": 6, "+-": 6, "corr": 6, "unseen": 7},
    **{"68": 6, "95": 6, "limit": 7, "frc": 6, "e<1/4": 7, "fore": 6, "shift": 8, "hrmse": 8, "hmed": 8, "sigma": 7},
}
DIGITS = {"psnr": 2, "68": 0, "95": 0, "low": 4, "shift": 4, "hrmse": 4, "hmed": 4}
TOLD = ("hrmse", "hmed", "edge")  # with which the strategies are ranked
Frames = Callable[[Tensor], Tensor]  # shifts [t, 2], LR pixels -> [t, b, y, x]


@dataclass(frozen=True)
class Stack:
    """The 10 m frames, and where each of them truly is."""

    scene: Any
    shifts: Tensor  # [t, 2] pixels of 10 m
    sigma: Tensor  # [b] of the Gaussian, pixels of 10 m

    @classmethod
    def of(cls, scene) -> Stack:
        from s2sr.model.psf import MTF_AT_NYQUIST, sigma_from_mtf

        sigma = torch.tensor([sigma_from_mtf(MTF_AT_NYQUIST[band]) for band in scene.bands])
        return cls(scene, fitted(scene, "strategy=bayes", "holdout=null")[0].field.shifts.detach(), sigma)

    def dates(self, scene) -> list[int]:
        """Which of the stack's dates those of a scene are."""
        names = [o.datetime for o in self.scene.observations]
        return [names.index(o.datetime) for o in scene.observations]

    def degraded(self, phases: Tensor, *, blur: bool):
        """The scene of 20 m whose frame t begins at (row, column) `phases` [t, 2], each 0 or 1."""
        from s2sr.model.scene import Scene

        scene, spoilt = self.scene, (~self.scene.valid).float()
        frames = torch.where(scene.valid, scene.frames, scene.temporal_mean)
        if blur:  # to twice the sigma
            frames = passed(frames, math.sqrt(3) * self.sigma, torch.zeros(len(scene), 2))
            spoilt = functional.max_pool2d(spoilt, 2 * REACH + 1, 1, REACH)
        height, width = (2 * ((n - 1) // 2) for n in scene.grid.shape)
        cuts = [(..., slice(y, y + height), slice(x, x + width)) for y, x in phases.tolist()]
        means = torch.stack([functional.avg_pool2d(f[cut], 2) for f, cut in zip(frames, cuts, strict=True)])
        clear = torch.stack([functional.max_pool2d(f[cut], 2) == 0 for f, cut in zip(spoilt, cuts, strict=True)])
        return Scene.of(means, bands=scene.bands, dates=[o.datetime for o in scene.observations], valid=clear)


def fitted(scene, *overrides: str):
    """The Reconstruction, and its configuration."""
    from s2sr.observations import configuration
    from s2sr.reconstruction import reconstruct

    cfg = configuration("c2f.levels=[2]", *overrides)
    return reconstruct(scene, cfg), cfg


def passed(frames: Tensor, sigma: Tensor, shifts: Tensor) -> Tensor:
    """[t, b, y, x] frames blurred by a Gaussian [b] and moved by shifts [t, 2] to larger rows and columns, pixels."""
    mirrored = torch.cat([frames, frames.flip(-2)], -2)
    mirrored = torch.cat([mirrored, mirrored.flip(-1)], -1).double()
    fy, fx = torch.fft.fftfreq(mirrored.shape[-2])[:, None], torch.fft.rfftfreq(mirrored.shape[-1])
    turn = torch.exp(-2j * math.pi * (fy * shifts[:, 0, None, None] + fx * shifts[:, 1, None, None]))
    blur = torch.exp(-2 * (math.pi * sigma[:, None, None]).square() * (fy.square() + fx.square()))
    found = torch.fft.irfft2(torch.fft.rfft2(mirrored) * blur * turn[:, None], s=mirrored.shape[-2:])
    return found[..., : frames.shape[-2], : frames.shape[-1]].float()


def twice(at: Frames, shifts: Tensor) -> Tensor:
    """[t, b, 2 y, 2 x] what 10 m pixels see, from frames of one value per LR pixel."""
    rows = [
        torch.stack([at(shifts + torch.tensor([dy, dx])) for dx in (0.25, -0.25)], -1).flatten(-2)
        for dy in (0.25, -0.25)
    ]
    return torch.stack(rows, -2).flatten(-3, -2)


def through(field, *, width: float = 1.0, sigma: Tensor | None = None) -> Frames:
    """The field as detectors of a width in LR pixels see it, with a Gaussian of sigma [b] of their pixels."""
    field = copy.deepcopy(field)
    field.reach += 0.5
    field.widths.fill_(width)
    if sigma is not None:
        for known in (field.log_sigma.data, field.log_sigma_start):
            known.copy_(sigma.log())
    return torch.no_grad()(field.observed)


def baselines(module, sigma: Tensor, seen: Tensor) -> dict[str, Frames]:
    """From the frames that a fit has used, at its shifts. sigma: [b] of the 10 m footprint; seen: of the other one."""
    from s2sr.report.heldout import deconvolved, interpolated, moved

    scene, shifts = module.scene, module.field.shifts.detach()
    frames = torch.where(scene.valid | scene.judged, scene.frames, scene.temporal_mean)

    def together(to: Tensor) -> Tensor:
        return torch.stack([interpolated(f, d[None])[0] for f, d in zip(frames, to - shifts, strict=True)]).mean(0)

    def transfer(sigma: Tensor, width: float) -> Tensor:
        gaussian = torch.exp(-2 * (math.pi * sigma[:, None, None]).square() * (fy.square() + fx.square()))
        return torch.sinc(width * fy) * torch.sinc(width * fx) * gaussian

    mean, shape = together(torch.zeros(2)), scene.grid.shape
    fy, fx = torch.fft.fftfreq(2 * shape[0])[:, None], torch.fft.rfftfreq(2 * shape[1])
    spectrum = deconvolved(mean, torch.zeros(1, 2), module.noise.detach().square().mean(0) / len(scene))
    spectrum = spectrum * transfer(sigma / 2, 0.5) / transfer(seen, 1)
    return {
        "bicubic": lambda to: interpolated(mean, to),
        "Wiener": lambda to: moved(spectrum, to, shape),
        "add": lambda to: torch.stack([together(each) for each in to]),
    }


def compared(image: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Scores of an image [b, y, x] of 10 m pixels against the truth, means over bands."""
    from s2sr.fit.forecast import crossing
    from s2sr.report.metrics import fidelity
    from s2sr.report.resolution import EDGES, RINGS, Resolution, ring_correlation

    a, b = (inside(x).astype(float) for x in (image, truth))
    a, b = (x - x.mean((1, 2), keepdims=True) for x in (a, b))
    a *= (a * b).sum((1, 2), keepdims=True) / np.square(a).sum((1, 2), keepdims=True)
    away = (np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) for n in a.shape[1:])
    rows, columns = (np.sin(np.pi / 2 * np.clip(x / FADE, 0, 1)) ** 2 for x in away)
    A, B = (fft.fft2(x * rows[:, None] * columns) for x in (a, b))
    fy, fx = (fft.fftfreq(n, 0.5) for n in a.shape[1:])  # cycles per LR pixel
    f = np.hypot(fy[:, None], fx)
    low, new = f < 0.5, (np.maximum(abs(fy[:, None]), abs(fx)) >= 0.5) & (f < 1)
    error, power, own = (np.square(np.abs(X)) for X in (A - B, B, A))
    both = (A * B.conj()).real
    rings = np.digitize(f, EDGES).ravel() - 1
    shares = [np.bincount(rings, e.ravel()) / np.bincount(rings, p.ravel()) for e, p in zip(error, power, strict=True)]
    ring, one = ring_correlation(a, b, 2, np.ones(len(a))), np.ones(len(a))
    return {
        **fidelity(image, truth, scale=2, truth_scale=2),
        "low": float(np.mean(error[:, low].sum(1) / power[:, low].sum(1))),
        "new": float(np.mean(error[:, new].sum(1) / power[:, new].sum(1))),
        "corr": float(np.mean(both[:, new].sum(1) / np.sqrt(own[:, new].sum(1) * power[:, new].sum(1)))),
        "limit": float(Resolution((), one, ring, np.zeros_like(ring)).frequencies.mean()),
        "e<1/4": float(np.mean([crossing(torch.from_numpy(RINGS), torch.from_numpy(s[: len(RINGS)])) for s in shares])),
    }


def inside(image: Any) -> Any:
    """The part of an image [..., y, x] of 10 m pixels that is judged."""
    from s2sr.report.metrics import BORDER

    cut = slice(2 * BORDER, -2 * BORDER)
    return image[..., cut, cut]


def told(module, cfg) -> dict[str, float]:
    """What the dates of 20 m alone tell of their fit."""
    from s2sr.data.holdout import halves
    from s2sr.fit.sample import conditions_of
    from s2sr.observations import build
    from s2sr.reconstruction import solve_again
    from s2sr.report.metrics import sharpness
    from s2sr.report.resolution.halves import by_halves

    scene, field = module.scene, module.field
    found = {"hrmse": module.judgement["holdout_rmse"], "hmed": module.judgement["holdout_median"]}
    found["edge"] = sharpness(field.render(scene.grid.scaled(2)), 2)["edge_contrast"]
    found["fore"] = conditions_of(scene.whole(), shifts=field.shifts.detach(), psf=build(cfg.psf)).forecast().frequency
    if cfg.report.frc:
        scenes = halves(scene)
        fields = [solve_again(module, half, cfg) for half in scenes]
        found["frc"] = float(by_halves(field, fields, scenes, module.noise.detach()).frequencies.mean())
    return found


def covered(module, truth: Tensor) -> dict[str, float]:
    """Per cent of the truth [b, 2 y, 2 x] within the intervals of the product."""
    from s2sr.fit.uncertainty import standard_deviation
    from s2sr.report.intervals import coverage

    image = module.field.render(module.scene.grid.scaled(2))
    found = coverage(image.numpy(), standard_deviation(module, image, 2).numpy(), truth.numpy(), 2)
    return {key: 100 * found[f"coverage_{key}"] for key in ("68", "95")}


def drawn(stack: Stack, draw: int, options: argparse.Namespace, overrides: list[str]) -> dict[str, dict[str, float]]:
    """The scores of every method on one draw."""
    from s2sr.report.heldout import interpolated, level_mean, matched

    every = range(len(stack.scene))
    used, left = ([t for t in every if (t % EVERY == draw % EVERY) == out] for out in (False, True))
    phases = torch.randint(2, (len(every), 2), generator=torch.Generator().manual_seed(draw))
    seen = stack.sigma / (2 if options.sharp else 1)
    low = stack.degraded(phases, blur=not options.sharp).select(used, "left out")
    rows, columns = (2 * n for n in low.grid.shape)
    frames, valid = (x[..., :rows, :columns] for x in (stack.scene.frames, stack.scene.valid))
    frames = torch.where(valid, frames, frames.mean(0))
    floor: list[Tensor] = []  # errors of the first method

    def scores(predicted: Tensor) -> dict[str, float]:  # [t, b, 2 y, 2 x]
        away = (matched(predicted, frames, valid) - frames)[left].abs()
        away = inside(away).transpose(0, 1).flatten(1)
        floor.append(away)
        unseen = compared(predicted[left].mean(0).numpy(), frames[left].mean(0).numpy())
        return compared(predicted[used].mean(0).numpy(), frames[used].mean(0).numpy()) | {
            "rmse": float((away.square().mean(1) / floor[0].square().mean(1)).sqrt().mean()),
            "median": float((away.median(1).values / floor[0].median(1).values).mean()),
            "unseen": unseen["corr"],
        }

    module = fitted(stack.scene.select(used, "left out"), "strategy=bayes", "holdout=null")[0]
    at = stack.shifts - stack.shifts[stack.dates(module.scene)].mean(0)
    mean = interpolated(level_mean(module.scene), at)
    native = {"10 m": through(module.field)(at), "mean": mean}
    found = {name: scores(predicted[..., :rows, :columns]) for name, predicted in native.items()}
    sigma = ",".join(f"{b}:{options.told * s:.5f}" for b, s in zip(low.bands, seen.tolist(), strict=True))
    for strategy in options.strategies.split(","):
        module, cfg = fitted(low, f"psf.sigma={{{sigma}}}", *f"strategy={strategy}".split(), *overrides)
        dates = stack.dates(module.scene)
        true = (stack.shifts - phases) / 2  # LR pixels
        centre = true[dates].mean(0)
        to = stack.shifts / 2 - centre
        if len(found) == 2:
            found |= {name: scores(twice(f, to)) for name, f in baselines(module, stack.sigma, seen).items()}
        found[strategy] = scores(twice(through(module.field, width=0.5, sigma=stack.sigma), to)) | told(module, cfg)
        splat = 2 * module.field.lattice.sigma  # pixels of 10 m
        finer = (splat**2 - stack.sigma.square()).sqrt()
        found[strategy] |= covered(module, passed(frames[dates], finer, 2 * centre - stack.shifts[dates]).mean(0))
        away = module.field.shifts.detach() - (true[dates] - centre)
        found[strategy]["shift"] = float(away.square().mean().sqrt())
        found[strategy]["sigma"] = float((module.field.sigma_psf.detach() / seen).mean())
    return found


def main() -> None:
    from s2sr.experiment import load_scene

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folders", default="apulia_clear,belgium_monthly")
    parser.add_argument("--strategies", default="adam,lbfgs,adam_lbfgs,lbfgs_adam,published,bayes,bayes psf=auto")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--sharp", action="store_true")
    parser.add_argument("--told", type=float, default=1.0)
    options, overrides = parser.parse_known_args()
    logging.getLogger("s2sr").setLevel(logging.ERROR)
    for folder in options.folders.split(","):
        stack = Stack.of(load_scene(options.data / folder, **({"bands": list(BANDS)} if "belgium" in folder else {})))
        draws = [drawn(stack, k, options, overrides) for k in range(options.draws)]
        print(f"{folder:18}" + "".join(f"{name:>{width}}" for name, width in COLUMNS.items()))
        for method in draws[0]:
            every = {key: [draw[method][key] for draw in draws] for key in draws[0][method]}
            row = {key: np.mean(values) for key, values in every.items()} | {"+-": np.std(every["new"])}
            cells = (
                f"{row[key]:{width}.{DIGITS.get(key, 3)}f}" if key in row else " " * width
                for key, width in COLUMNS.items()
            )
            print(f"{method:18}" + "".join(cells), flush=True)
        fits = options.strategies.split(",")
        if len(fits) > 2:
            for truth, sign in (("new", 1), ("rmse", 1), ("psnr", -1)):
                ranks = ", ".join(
                    f"{key} {np.mean([rank(draw, fits, key, truth, sign) for draw in draws]):+.2f}" for key in TOLD
                )
                print(f"rank correlation over {len(fits)} with {truth}: {ranks}", flush=True)


def rank(draw: dict[str, dict[str, float]], fits: list[str], key: str, truth: str, sign: int) -> float:
    return spearmanr([draw[fit][key] for fit in fits], [sign * draw[fit][truth] for fit in fits]).statistic


if __name__ == "__main__":
    main()
