"""The shift of each observation: masked normalised cross-correlation, then Gauss-Newton.

With f observation t and r the mean of the others, both shifted back by the current estimate,

    rho(u) = sum w (f(x) - <f>) (r(x - u) - <r>) / sqrt(sum w (f(x) - <f>)^2 * sum w (r(x - u) - <r>)^2)

is Pearson's correlation over the samples w that are valid in both at that u, with <.> their mean, by FFT (Padfield
2012, doi:10.1109/TIP.2011.2181402): masked samples, gain and offset have no influence. A parabola through 3 x 3 values
locates the peak between pixels. It is biased by the peak's shape and by the borders of masks (rmse .009 px with a
quarter of each frame masked), so the last passes are least squares steps on f = gain * r(x - d) + offset over the valid
samples (.004 px), which have no such bias (Lucas & Kanade 1981). Frames are band-passed: at much lower frequencies haze
and growth dominate, at higher ones aliasing.

Sign: frame_t(i) = field(i - d_t), content lies at larger rows and columns for a positive shift. Unit: LR pixels.
Left out: rotation, scale, one shift per band, displacements that vary over the scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional

from s2sr.model.psf import detector_widths
from s2sr.model.scene import Scene

FINE, SMOOTH = 0.5, 1.5  # LR pixels: standard deviations of the two Gaussians of the band-pass
TRUST, CHANCE = 0.25, 4.0  # a peak must exceed the correlation TRUST by CHANCE standard deviations


@dataclass(frozen=True)
class Registration:
    """The shifts of the observations, and which of them can be trusted."""

    shifts: Tensor  # [t, 2] float32 (dy, dx) LR pixels, zero mean over the trusted observations, 0 for the others
    trusted: Tensor  # [t] bool
    correlation: Tensor  # [t] with the mean of the others, at the peak, -1 to 1
    samples: Tensor  # [t] number of samples it is based on, in the band that has most
    found: Tensor  # [t, 2] like shifts, including those that are not trusted

    def evidence(self, t: int) -> str:
        """The evidence for the shift of an observation, in words."""
        dy, dx = self.found[t].tolist()
        return (
            f"correlation {self.correlation[t]:.2f} over {self.samples[t]:.0f} pixels at a shift of {dy:.2f}, {dx:.2f}"
        )


def estimate_shifts(scene: Scene, *, max_shift: float = 3.0) -> Registration:
    """Estimate the shift of each observation against the mean of the other trusted ones.

    An observation with low correlation, or with a shift of more than `max_shift` LR pixels along an axis, is not
    trusted: its shift is 0, and it enters neither the reference of the others nor the zero mean.
    """
    t, _, y, x = scene.frames.shape
    shifts, correlation, trusted = torch.zeros(t, 2), torch.zeros(t), torch.ones(t, dtype=torch.bool)
    if t < 2:
        return Registration(shifts, trusted, correlation, torch.zeros(t), shifts)

    frames, weights = _band_passed(scene)
    per_band = 1 / detector_widths(scene.bands) ** 2  # the samples of a resampled 20 m band repeat each other
    # A frame at d leaves the others' mean at -d / (t - 1); one pixel more for the parabola's arms.
    search = min(math.ceil(max_shift * t / (t - 1)) + 1, max(1, min(y, x) // 4))
    for whole_pixels in (True, True, False, False, False):
        aligned = _shifted(frames, -shifts)
        overlap = _shifted(weights, -shifts) > 0.9
        others, known = _mean_of_others(aligned, overlap & trusted[:, None, None, None])
        if whole_pixels:
            correlation, samples, step = _search(aligned, overlap.float(), others, known.float(), search, per_band)
        else:
            seen = (overlap & _eroded(known, 1)).float()
            one_by_one = zip(aligned.split(1), seen.split(1), others.split(1), strict=True)  # within the cache
            steps = [_polish(*each, per_band) for each in one_by_one]
            correlation, samples, step = map(torch.cat, zip(*steps, strict=True))
        shifts = shifts + step * (t - 1) / t
        # Fisher's z: of the same standard deviation whatever the correlation, also where there are few samples
        least = math.atanh(TRUST) + CHANCE / (samples - 3).clamp(min=1e-3).sqrt()
        trusted = correlation.clamp(max=1 - 1e-6).atanh() >= least
        if trusted.sum() >= 2:
            shifts = shifts - shifts[trusted].mean(0)
        trusted &= (shifts.abs() <= max_shift).all(1)
        if trusted.sum() < 2:
            trusted[:] = False
            break

    found = shifts - (shifts[trusted].mean(0) if trusted.any() else 0)
    return Registration(torch.where(trusted[:, None], found, 0), trusted, correlation, samples, found)


def _band_passed(scene: Scene) -> tuple[Tensor, Tensor]:
    """[t, b, y, x] frames between the scales FINE and SMOOTH, of unit variance, and their weights, 0 or 1.

    Of bands that are masked alike [t, 1, y, x] weights: moved once, not once per band. Masked samples hold the temporal
    mean in the frame's own gain and offset, so that a mask has no edge to align.
    """
    valid = scene.valid.float()
    count = valid.sum((-2, -1), keepdim=True).clamp(min=1)
    frames = (scene.frames - (scene.frames * valid).sum((-2, -1), keepdim=True) / count) * valid
    mean = scene.temporal_mean
    mean = mean - (mean * valid).sum((-2, -1), keepdim=True) / count
    power = (mean.square() * valid).sum((-2, -1), keepdim=True)
    gain = (frames * mean).sum((-2, -1), keepdim=True) / power.clamp(min=1e-20)
    filled = torch.where(scene.valid, frames, gain * mean)

    reach = math.ceil(3 * SMOOTH)
    taps = torch.arange(-reach, reach + 1.0)
    fine, smooth = (torch.exp(-0.5 * (taps / sigma) ** 2) for sigma in (FINE, SMOOTH))
    band = _separable(filled, fine / fine.sum()) - _separable(filled, smooth / smooth.sum())
    spread = ((band.square() * valid).sum((-2, -1), keepdim=True) / count).sqrt()

    # One pixel off masks and borders; the whole filter off what no observation shows and nothing can fill.
    framed = functional.pad(scene.valid[..., 1:-1, 1:-1], (1, 1, 1, 1))
    weights = _eroded(framed, 1) & _eroded(scene.valid.any(0, keepdim=True), reach)
    if (weights == weights[:, :1]).all():
        weights = weights[:, :1]
    return band / spread.clamp(min=1e-9), weights.float()


def _eroded(mask: Tensor, reach: int) -> Tensor:
    """[t, b, y, x] whether all of a mask (bool) is true up to `reach` pixels away along rows and columns."""
    for axis in (2, 3):
        n, whole = mask.shape[axis], mask
        mask = whole.clone()
        for k in range(1, min(reach, n - 1) + 1):
            mask.narrow(axis, k, n - k).logical_and_(whole.narrow(axis, 0, n - k))
            mask.narrow(axis, 0, n - k).logical_and_(whole.narrow(axis, k, n - k))
    return mask


def _separable(images: Tensor, rows: Tensor, columns: Tensor | None = None) -> Tensor:
    """[t, b, y, x] correlated with kernels [k] or [t, k] along rows and along columns; the border is repeated."""
    t, b = images.shape[:2]
    reach = rows.shape[-1] // 2
    rows, columns = (
        k.expand(t, -1).repeat_interleave(b, 0)[:, None] for k in (rows, rows if columns is None else columns)
    )
    padded = functional.pad(images, (reach, reach, reach, reach), mode="replicate").flatten(0, 1)[None]
    padded = functional.conv2d(padded, rows[..., None], groups=t * b)
    return functional.conv2d(padded, columns[:, :, None], groups=t * b)[0].unflatten(0, (t, b))


def _shifted(images: Tensor, shifts: Tensor) -> Tensor:
    """[t, b, y, x] with the content moved to larger rows and columns by `shifts` [t, 2]: a windowed sinc of 8 taps."""
    taps = torch.arange(-4 - math.ceil(shifts.abs().max()), 5.0 + math.ceil(shifts.abs().max()))
    u = (taps + shifts[..., None]).clamp(-4, 4)
    kernels = torch.sinc(u) * torch.cos(math.pi * u / 8).square()
    kernels = kernels / kernels.sum(-1, keepdim=True)
    return _separable(images, kernels[:, 0], kernels[:, 1])


def _mean_of_others(frames: Tensor, use: Tensor) -> tuple[Tensor, Tensor]:
    """[t, b, y, x] for each t the mean over the used samples of all others, and where there are any."""
    used = frames * use
    count = use.sum(0, dtype=used.dtype) - use.to(used.dtype)
    others = used.sum(0) - used  # exactly 0 where there are none
    return others.div_(count.clamp(min=1)), count > 0


def _search(
    frames: Tensor, weights: Tensor, reference: Tensor, known: Tensor, reach: int, per_band: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """[t] the correlation at its peak up to `reach` pixels away, [t] samples, [t, 2] where the peak is."""
    one_by_one = zip(frames, weights, reference, known, strict=True)  # six spectra each: memory
    rho, samples = map(torch.stack, zip(*(_correlation(*each, reach) for each in one_by_one), strict=True))
    share = _shares(rho.amax((-2, -1)), samples * per_band)
    correlation, step = _peak((share[..., None, None] * rho).sum(1))
    return correlation, samples.amax(1), step


def _correlation(frames: Tensor, w: Tensor, reference: Tensor, known: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """[b, u, u] rho for whole shifts from -reach to reach along rows and columns, and [b] the samples at 0."""
    y, x = frames.shape[-2:]
    size = (next_fast_len(y + reach, real=True), next_fast_len(x + reach, real=True))  # zeros: nothing wraps around
    u = torch.arange(-reach, reach + 1)

    def spectra(image: Tensor, mask: Tensor) -> list[Tensor]:
        return [torch.fft.rfft2(each, s=size) for each in (mask, mask * image, mask * image.square())]

    def total(a: Tensor, b: Tensor) -> Tensor:
        return torch.fft.irfft2(a * b.conj(), s=size)[..., u[:, None], u]

    (w0, wf, wff), (k0, kr, krr) = spectra(frames, w), spectra(reference, known)
    n = total(w0, k0).clamp(min=1)
    f, r = total(wf, k0) / n, total(w0, kr) / n
    power = (total(wff, k0) / n - f.square()) * (total(w0, krr) / n - r.square())
    return (total(wf, kr) / n - f * r) / power.clamp(min=1e-12).sqrt(), n[..., reach, reach]


def _peak(rho: Tensor) -> tuple[Tensor, Tensor]:
    """[t] the largest value of [t, u, u] off the border, and [t, 2] its place between the pixels, 0 at the centre.

    The parabola has its cross term: edges that run diagonally tilt the peak.
    """
    reach = rho.shape[-1] // 2
    value, at = rho[:, 1:-1, 1:-1].flatten(1).max(1)
    row, column = at // (2 * reach - 1) + 1, at % (2 * reach - 1) + 1
    around = torch.arange(-1, 2)
    p = rho[torch.arange(len(rho))[:, None, None], row[:, None, None] + around[:, None], column[:, None, None] + around]
    slope = torch.stack([p[:, 2, 1] - p[:, 0, 1], p[:, 1, 2] - p[:, 1, 0]], -1) / 2
    a = p[:, 2, 1] - 2 * p[:, 1, 1] + p[:, 0, 1]
    b = p[:, 1, 2] - 2 * p[:, 1, 1] + p[:, 1, 0]
    c = (p[:, 2, 2] - p[:, 2, 0] - p[:, 0, 2] + p[:, 0, 0]) / 4
    curvature = torch.stack([a, c, c, b], -1).unflatten(-1, (2, 2))
    return value, torch.stack([row, column], -1) - reach + _solve(curvature, -slope)


def _polish(frames: Tensor, w: Tensor, reference: Tensor, per_band: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[t] the correlation, [t] samples, [t, 2] one Gauss-Newton step on f = gain * r(x - step) + offset."""
    samples = w.sum((-2, -1))
    w = w / samples.clamp(min=1)[..., None, None]

    def mean(a: Tensor, b: Tensor) -> Tensor:  # of a * b, where a has its weights already
        return torch.linalg.vecdot(a.flatten(2), b.flatten(2))[..., None, None]

    f, r = frames - mean(w, frames), reference - mean(w, reference)
    weighted = w * r
    power, common, energy = mean(weighted, r), mean(weighted, f), mean(w * f, f)
    gain = common / power.clamp(min=1e-12)
    rest = f - gain * r
    noise = mean(w * rest, rest).clamp(min=1e-4 * energy).clamp(min=1e-12)
    slopes = [gain * (g - mean(w, g)) for g in torch.gradient(reference, dim=(-2, -1))]
    weight = samples * per_band / noise[..., 0, 0]
    steep = [w * slope for slope in slopes]
    pairs = [(weight * mean(a, b)[..., 0, 0]).sum(1) for a in steep for b in slopes]
    pulls = [(weight * mean(a, rest)[..., 0, 0]).sum(1) for a in steep]
    step = _solve(torch.stack(pairs, -1).unflatten(-1, (2, 2)), -torch.stack(pulls, -1))
    rho = (common / (energy * power).clamp(min=1e-12).sqrt())[..., 0, 0]
    return (_shares(rho, samples * per_band) * rho).sum(1), samples.amax(1), step


def _solve(matrices: Tensor, right: Tensor) -> Tensor:
    """[t, 2] at most one pixel along each axis; 0 in a direction that the matrix [t, 2, 2] does not determine."""
    return (torch.linalg.pinv(matrices, hermitian=True) @ right[..., None])[..., 0].clamp(-1, 1)


def _shares(rho: Tensor, samples: Tensor) -> Tensor:
    """[t, b] what each band counts: its samples and the variance that it explains over what it leaves; sum 1."""
    rho = rho.clamp(0, 0.9999)
    weight = samples * rho / (1 - rho.square())
    return weight / weight.sum(1, keepdim=True).clamp(min=1e-12)
