"""What the bands of a scene have in common: an edge on the ground, or the shadow of a tree, is in all of them.

Detail z_b, whitened by the spectrum of its band, has the correlation R between bands, the same at all frequencies (in
aerial images it hardly changes from 0.05 to 1 cycles per LR pixel). With R = C C^T the components y = C^-1 z are white
and independent. The observations' information on z, averaged over frequencies, is D = diag(D_b). C is chosen so that
their information on the components, C^T D C, is diagonal as well: the maximum noise fractions of Green et al. 1988 (in
restoration: Hunt & Kuebler 1984).
"""

from __future__ import annotations

import torch
from torch import Tensor

from s2sr.fit.aliases import inverted

BLOCK = 2**17  # values mixed at a time, to stay in the cache


def mix(matrix: Tensor, spectra: Tensor) -> Tensor:
    """Multiply complex spectra [b, y, ...] by a real matrix [b, b] across bands, in place."""
    height = max(1, BLOCK // spectra[:, 0].numel())
    for part in spectra.split(height, 1):
        parts = torch.view_as_real(part)
        parts.copy_((matrix @ parts.flatten(1)).view(parts.shape))
    return spectra


def seen(information: Tensor) -> Tensor:
    """[b] D, from the information [b, ..., a] on a band's aliases: the geometric mean of each frequency's maximum."""
    return information.amax(-1).flatten(1).clamp(min=1e-30).log().mean(1).exp()


def components(correlation: Tensor, level: Tensor) -> Tensor:
    """[b, c] C, from the correlation R [b, b] and D = level [b]."""
    root = torch.linalg.cholesky(correlation)
    _, directions = torch.linalg.eigh(root.T * level @ root)
    return root @ directions


def covariances(coupling: Tensor, amplitude: Tensor, components: Tensor, dtype: torch.dtype) -> Tensor:
    """[a, a, c, y, x] the posterior covariance of each component, the inverse of 1 + sum_b C_bc^2 U_b Q_b U_b.

    coupling: [b, a, a] Q; amplitude: [b, a, y, x] U.
    """
    bands, size, rows, columns = amplitude.shape
    first, second = torch.tril_indices(size, size, device=amplitude.device)
    shares = torch.view_as_real(coupling[:, first, second]).permute(1, 2, 0)[:, :, None] * components.T.square()
    found = torch.empty(size, size, bands, rows, columns, dtype=dtype, device=amplitude.device)
    height = max(1, BLOCK // found[..., 0, :].numel())
    for k in range(0, rows, height):
        u = amplitude[:, :, k : k + height].transpose(0, 1).flatten(2)
        parts = (shares.flatten(1, 2) @ (u[first] * u[second])).unflatten(1, (2, bands))
        entries = torch.complex(*parts.unbind(1))
        matrix = entries.new_empty(size, size, *entries.shape[1:])
        matrix[first, second], matrix[second, first] = entries, entries.conj()
        matrix.diagonal().add_(1)
        inverted(matrix)
        found[:, :, :, k : k + height] = matrix.unflatten(-1, (-1, columns))
    return found
