"""How well a fit predicts withheld samples, compared with three images that anyone can make from the others:

    temporal mean   the mean of the frames, after matching their radiometry
    bicubic         that mean, interpolated (Keys) at every frame's shift
    Wiener          that mean, deconvolved, shifted to every frame and blurred again

Every frame's gain and offset against an image are least squares on the samples that the fit has seen; shifts, PSF and
noise are the fit's own. Errors are in reflectance: `rmse`, and `median` of the absolute errors, which is insensitive to
clouds and change between the dates. A perfect image would score the noise.

If the fit has estimated change it is judged twice: by the scene alone, which is the product; and, `with_change`, adding
the date's change as predicted from the samples around the withheld ones (`SplatField.changed`). This predicts the frame
better, but makes the scene no truer.

The mean's transfer function is H = G J, with G of the footprint and J(f) = mean_t exp(-2 pi i f . d_t) of the averaged
shifts. With S its power spectrum (radial mean) and n = v / T its noise, the Wiener estimate of the scene and its
prediction of frame t are

    X = M (1 - n / S)_+ / H,    Y_t = G exp(-2 pi i f . d_t) X = M (1 - n / S)_+ exp(-2 pi i f . d_t) / J

on the LR grid, which limits the mean to its Nyquist frequency: G cancels.
"""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor
from torch.nn import functional

from s2sr.model.field import SplatField
from s2sr.model.scene import Scene

log = logging.getLogger(__name__)

CLIP = 3.0  # robust standard deviations beyond which samples are excluded from a regression
WORSE = 1.1  # times another's error: no longer explained by the choice of samples
ROUNDS = 6  # of Gauss-Newton, to register a whole date


@torch.no_grad()
def judge(scene: Scene, field: SplatField, noise: Tensor, *, dates: Scene | None = None) -> dict[str, float]:
    """`holdout_rmse` and `holdout_median` of a fit to `scene` and of the baselines, overall and per band.

    noise: [t, b] standard deviation estimated by the fit. dates: whole withheld dates, registered on their valid
    samples and judged on their judged ones: the same with prefix `holdout_dates_`.
    """
    scene = scene.to(field.weights.device)
    shifts, mean = field.shifts, level_mean(scene)
    spectrum = deconvolved(mean, shifts, noise.square().mean(0) / len(scene))
    predicted = field()
    fits = {"": predicted - field.changed} | ({"_with_change": predicted} if field.changed.any() else {})
    found = errors("holdout", scene, {**fits, **baselines(scene, mean, spectrum, shifts)})
    names = {
        "_with_change": ", with change",
        "_temporal_mean": "; temporal mean",
        "_bicubic": ", bicubic",
        "_wiener": ", Wiener",
    }
    for error in ("median", "rmse"):
        each = {said: found.get(f"holdout_{error}{name}") for name, said in names.items()}
        beside = "".join(f"{said} {value:.4f}" for said, value in each.items() if value is not None)
        log.info("held-out %s: %.4f%s", error, found[f"holdout_{error}"], beside)
    if all(found[f"holdout_{error}"] > WORSE * found[f"holdout_{error}_bicubic"] for error in ("median", "rmse")):
        log.warning(
            "the fit predicts the withheld samples worse than the bicubic mean: do not trust its detail. Check for "
            "unmasked clouds (data.exclude), for strong change between dates, and for a wrong psf.sigma or noise"
        )
    if dates is not None:
        dates = dates.to(field.weights.device)
        own = located(field, dates)
        inside = (own.abs() < field.reach).all(1)
        for t in (~inside).nonzero()[:, 0].tolist():
            log.warning("%s: its shift exceeds all those of the fit; it does not judge", dates.observations[t].name)
        keep = inside.nonzero()[:, 0].tolist()
        dates, own = dates.select(keep, "too far off"), own[keep]
        if keep:
            predicted = matched(field.observed(own), dates.frames, dates.valid)
            found |= errors("holdout_dates", dates, {"": predicted, **baselines(dates, mean, spectrum, own)})
    return found


def baselines(scene: Scene, mean: Tensor, spectrum: Tensor, shifts: Tensor) -> dict[str, Tensor]:
    """[t, b, y, x] frames at shifts [t, 2] predicted from the mean [b, y, x] and from its deconvolved spectrum."""
    images = {
        "_temporal_mean": mean.expand_as(scene.frames),
        "_bicubic": interpolated(mean, shifts),
        "_wiener": moved(spectrum, shifts, scene.grid.shape),
    }
    return {name: matched(image, scene.frames, scene.valid) for name, image in images.items()}


def errors(prefix: str, scene: Scene, predictions: dict[str, Tensor]) -> dict[str, float]:
    """Errors of predictions [t, b, y, x] at the judged samples; NaN where there are none."""
    found = {}
    judged = scene.judged & scene.measured
    for name, prediction in predictions.items():
        error = (prediction - scene.frames).abs()
        parts = [("", slice(None)), *((f"_{band}", slice(b, b + 1)) for b, band in enumerate(scene.bands))]
        for part, bands in parts:
            own = error[:, bands][judged[:, bands]]
            found[f"{prefix}_rmse{name}{part}"] = float(own.square().mean().sqrt())
            found[f"{prefix}_median{name}{part}"] = float(own.median()) if len(own) else math.nan
    return found


def matched(prediction: Tensor, frames: Tensor, seen: Tensor) -> Tensor:
    """gain * prediction + offset, per frame and band by least squares on the seen samples; all [t, b, y, x].

    Twice: the second time without residuals beyond `CLIP` robust standard deviations.
    """
    return torch.stack([_matched(*one) for one in zip(prediction, frames, seen, strict=True)])


def _matched(prediction: Tensor, frame: Tensor, seen: Tensor) -> Tensor:
    """`matched` for one frame [b, y, x], so that intermediates stay in the cache."""
    size = (frame - _fitted(prediction, frame, seen)).abs()
    typical = size.masked_fill(~seen, torch.nan).flatten(1).nanmedian(-1).values[..., None, None]
    return _fitted(prediction, frame, seen & (size <= CLIP * 1.4826 * typical))


def _fitted(prediction: Tensor, frame: Tensor, keep: Tensor) -> Tensor:
    count = keep.sum((-2, -1), keepdim=True).clamp(min=1)
    x0, y0 = ((keep * z).sum((-2, -1), keepdim=True) / count for z in (prediction, frame))
    x, y = prediction - x0, frame - y0
    seen_x = keep * x
    gain = (seen_x * y).sum((-2, -1), keepdim=True) / (seen_x * x).sum((-2, -1), keepdim=True).clamp(min=1e-12)
    return y0 + gain * x


def level_mean(scene: Scene) -> Tensor:
    """[b, y, x] the temporal mean after matching the radiometry of the frames.

    Without matching it would step wherever a frame is masked or withheld; iterated, as the first mean does.
    """
    mean = scene.temporal_mean
    for _ in range(3):
        rest = (scene.frames - matched(mean.expand_as(scene.frames), scene.frames, scene.valid)) * scene.valid
        mean = mean + rest.sum(0) / scene.valid.sum(0).clamp(min=1)
    return mean


def interpolated(image: Tensor, shifts: Tensor) -> Tensor:
    """[t, b, y, x] an image [b, y, x] with its content moved to larger rows and columns by shifts [t, 2], LR pixels.

    Cubic convolution (Keys 1981, a = -1/2); border pixels are extended.
    """
    reach = math.ceil(float(shifts.abs().max())) + 2
    taps = torch.arange(-reach, reach + 1, device=shifts.device)
    u = (taps + shifts[..., None]).abs()
    near, far = (1.5 * u - 2.5) * u.square() + 1, ((2.5 - 0.5 * u) * u - 4) * u + 2
    rows, columns = torch.where(u < 1, near, torch.where(u < 2, far, 0)).unbind(1)
    padded = functional.pad(image[None], [reach] * 4, mode="replicate")[0]
    along = torch.einsum("byxk,tk->tbyx", padded.unfold(1, len(taps), 1), rows)
    return torch.einsum("tbyxk,tk->tbyx", along.unfold(3, len(taps), 1), columns)


def deconvolved(mean: Tensor, shifts: Tensor, variance: Tensor) -> Tensor:
    """[b, 2 y, x + 1] spectrum of G X on the mirrored image; variance: [b] of the mean's noise."""
    mirrored = torch.cat([mean, mean.flip(1)], 1)
    mirrored = torch.cat([mirrored, mirrored.flip(2)], 2)
    spectrum = torch.fft.rfft2(mirrored, norm="ortho")
    fy, fx = _frequencies(mean)
    ring = (torch.hypot(fy[:, None], fx) * 2 * min(mean.shape[1:])).round().long().flatten()
    power = spectrum.abs().square().flatten(1)
    count = torch.bincount(ring).clamp(min=1)
    radial = power.new_zeros(len(count), len(mean))
    radial.index_put_((ring,), power.mT, accumulate=True)  # unlike index_add_, in the same order on every device
    radial = (radial.mT / count)[:, ring].view_as(spectrum.real)
    passed = (1 - variance[:, None, None] / radial.clamp(min=1e-20)).clamp(min=0)
    jitter = torch.exp(-2j * math.pi * (fy[:, None, None] * shifts[:, 0] + fx[:, None] * shifts[:, 1]))
    return spectrum * passed / jitter.mean(-1)


def moved(spectrum: Tensor, shifts: Tensor, shape: tuple[int, int]) -> Tensor:
    """[t, b, y, x] the image of a mirrored spectrum with its content moved by shifts [t, 2], LR pixels."""
    fy, fx = _frequencies(spectrum.new_empty((1, *shape)).real)
    frames = []
    for dy, dx in shifts:
        turn = torch.exp(-2j * math.pi * (fy[:, None] * dy + fx * dx))
        image = torch.fft.irfft2(spectrum * turn, s=(2 * shape[0], 2 * shape[1]), norm="ortho")
        frames.append(image[:, : shape[0], : shape[1]])
    return torch.stack(frames)


def located(field: SplatField, dates: Scene) -> Tensor:
    """[t, 2] the shifts at which the field predicts the valid samples best: Gauss-Newton from 0, radiometry matched."""
    shifts = torch.zeros(len(dates), 2, device=field.weights.device)
    step = 0.05  # LR pixels, of the finite differences
    steps = step * torch.eye(2, device=shifts.device)

    def fitted(at: Tensor) -> Tensor:
        return matched(field.observed(at), dates.frames, dates.valid)

    for _ in range(ROUNDS):
        rest = (dates.frames - fitted(shifts)) * dates.valid
        size = rest.abs().masked_fill(~dates.valid, torch.nan).flatten(2).nanmedian(-1).values[..., None, None]
        weight = dates.valid / torch.maximum(rest.abs() / CLIP, 1.4826 * size).clamp(min=1e-4) / size.clamp(min=1e-4)
        slopes = torch.stack([(fitted(shifts + e) - fitted(shifts - e)) / (2 * step) for e in steps], -1)
        curvature = torch.einsum("tbyxi,tbyx,tbyxj->tij", slopes, weight, slopes)
        pull = torch.einsum("tbyxi,tbyx->ti", slopes, weight * rest)
        shifts = shifts + (torch.linalg.pinv(curvature, hermitian=True) @ pull[..., None])[..., 0].clamp(-0.5, 0.5)
        shifts = shifts.clamp(-field.reach, field.reach)
    return shifts


def _frequencies(image: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies of the mirrored image along rows, and those of `rfft2` along columns; cycles per LR pixel."""
    rows, columns = image.shape[1:]
    return torch.fft.fftfreq(2 * rows, device=image.device), torch.fft.rfftfreq(2 * columns, device=image.device)
