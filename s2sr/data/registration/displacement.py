"""By how much frames are displaced from a reference: masked normalised cross-correlation, and Gauss-Newton.

With f a frame and r the reference,

    rho(u) = sum w (f(x) - <f>) (r(x - u) - <r>) / sqrt(sum w (f(x) - <f>)^2 * sum w (r(x - u) - <r>)^2)

is Pearson's correlation over the samples w that are valid in both at that u, with <.> their mean, by FFT (Padfield
2012, doi:10.1109/TIP.2011.2181402): masked samples, gain and offset have no influence. A parabola through 3 x 3 values
locates the peak between pixels. It is biased by the peak's shape and by the borders of masks (rmse .009 px with a
quarter of each frame masked). Least squares steps on f = gain * r(x - d) + offset over the valid samples (.004 px) have
no such bias (Lucas & Kanade 1981).
"""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len
from torch import Tensor


def search(
    frames: Tensor, weights: Tensor, reference: Tensor, known: Tensor, reach: int, per_band: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """[t] the correlation at its peak up to `reach` pixels away, [t] samples, [t, 2] where the peak is."""
    one_by_one = zip(frames, weights, reference, known, strict=True)  # six spectra each: memory
    rho, samples = map(torch.stack, zip(*(_correlation(*each, reach) for each in one_by_one), strict=True))
    share = _shares(rho.amax((-2, -1)), samples * per_band)
    correlation, step = _peak((share[..., None, None] * rho).sum(1))
    return correlation, samples.amax(1), step


def polish(frames: Tensor, w: Tensor, reference: Tensor, per_band: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
    value, index = rho[:, 1:-1, 1:-1].flatten(1).max(1)
    row, column = index // (2 * reach - 1) + 1, index % (2 * reach - 1) + 1
    around = torch.arange(-1, 2)
    p = rho[torch.arange(len(rho))[:, None, None], row[:, None, None] + around[:, None], column[:, None, None] + around]
    slope = torch.stack([p[:, 2, 1] - p[:, 0, 1], p[:, 1, 2] - p[:, 1, 0]], -1) / 2
    a = p[:, 2, 1] - 2 * p[:, 1, 1] + p[:, 0, 1]
    b = p[:, 1, 2] - 2 * p[:, 1, 1] + p[:, 1, 0]
    c = (p[:, 2, 2] - p[:, 2, 0] - p[:, 0, 2] + p[:, 0, 0]) / 4
    curvature = torch.stack([a, c, c, b], -1).unflatten(-1, (2, 2))
    return value, torch.stack([row, column], -1) - reach + _solve(curvature, -slope)


def _solve(matrices: Tensor, right: Tensor) -> Tensor:
    """[t, 2] at most one pixel along each axis; 0 in a direction that the matrix [t, 2, 2] does not determine."""
    return (torch.linalg.pinv(matrices, hermitian=True) @ right[..., None])[..., 0].clamp(-1, 1)


def _shares(rho: Tensor, samples: Tensor) -> Tensor:
    """[t, b] what each band counts: its samples and the variance that it explains over what it leaves; sum 1."""
    rho = rho.clamp(0, 0.9999)
    weight = samples * rho / (1 - rho.square())
    return weight / weight.sum(1, keepdim=True).clamp(min=1e-12)
