"""How much the detail of two bands is alike: the correlation R of `bands`, from the observations.

By expectation-maximisation (Dempster, Laird & Rubin 1977): R is the covariance of detail given the frames, its
mean's and what is left of it, in the mean over frequencies. A frequency counts as much as is seen of it, squared: what
is not seen says of R what was assumed. Noise is taken as independent between bands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.bands import components
from s2sr.fit.posterior import FourierMetric, closed_form

if TYPE_CHECKING:
    from s2sr.fit.module import Reconstruction

STEPS = 8
COARSE = 64  # at most so many frequencies per axis: thousands of them are enough for a few numbers


def coupled_form(module: Reconstruction) -> None:
    """The start of a stage: the closed form of bands whose detail is correlated as the observations say."""
    module.correlation.copy_(torch.eye(len(module.correlation)))
    closed_form(module)
    if len(module.correlation) > 1:
        module.correlation.copy_(detail_correlation(module))
        closed_form(module)


@torch.no_grad()
def detail_correlation(module: Reconstruction) -> Tensor:
    """[b, b] R, from weights that are the posterior mean of independent bands."""
    metric, weights = FourierMetric(module), module.field.weights
    rows, columns = (slice(None, None, -(-n // COARSE)) for n in metric.information[0][0][0].shape)
    information = torch.stack([_dense(each)[rows, columns].flatten(0, 1) for each in metric.information])
    mean = []
    for w, root in zip(weights, metric.roots, strict=True):
        white = torch.fft.rfft2(w, norm="ortho") / root
        white[0, 0] = 0  # the mean is free
        mean.append(torch.stack(metric.taken(white), -1)[rows, columns].flatten(0, 1))
    there = float(module.valid.any(0).sum()) / (information[0, :, 0, 0].numel())
    lattice = module.field.lattice.shape
    area = float(module.valid.any(0).double().mean()) * (module.frames[0, 0].numel() * module.field.scale**2) / (lattice[0] * lattice[1])
    return most_probable(information, torch.stack(mean).to(information.dtype), area)


def most_probable(information: Tensor, mean: Tensor, area: float) -> Tensor:
    """[b, b] R of white detail whose posterior, were the bands independent, has `mean` [b, f, a] and the covariance
    (1 + information)^-1, [b, f, a, a]; `area`: the share of it that was observed.
    """
    one = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    right = ((information + one) @ mean[..., None])[..., 0]
    seen = 1 - torch.linalg.inv(information + one).diagonal(dim1=-2, dim2=-1).real
    counts = seen.mean(0).square()
    found = torch.eye(len(mean), dtype=counts.dtype, device=mean.device)
    level = information.diagonal(dim1=-2, dim2=-1).real[..., 0].clamp(min=1e-30).log().mean(1).exp()
    for _ in range(STEPS):
        mix = components(found, level)
        left = torch.linalg.inv(torch.einsum("bk,bfij->kfij", mix.square().to(mean.dtype), information) + one)
        white = torch.einsum("kfij,bk,bfj->kfi", left, mix.to(mean.dtype), right)
        moments = torch.einsum("kfi,lfi,fi->kl", white, white.conj(), counts.to(mean.dtype)).real / area
        moments = moments + torch.diag(torch.einsum("kfii,fi->k", left, counts.to(mean.dtype)).real)
        found = mix @ moments @ mix.T
        size = found.diagonal().sqrt()
        found = found / size[:, None] / size
    return found


def _dense(rows) -> Tensor:
    """[..., n, n] of a Hermitian matrix's lower triangle."""
    n = len(rows)
    full = [torch.stack([rows[i][j] if j <= i else rows[j][i].conj() for j in range(n)], -1) for i in range(n)]
    return torch.stack(full, -2)
