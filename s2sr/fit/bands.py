"""What the bands of a scene have in common: an edge of the ground, or the shadow of a tree, is in all of them.

Of detail that is white in its own band's spectrum, z_b = W_b S / (s sqrt(P_b)) with the weights' unitary DFT W, the
prior's covariance between bands is the correlation R, the same at all frequencies (in aerial images it hardly changes
from .05 to 1 cycles per LR pixel). R = C C^T makes components y = C^-1 z white and independent; C is chosen so that
what the observations tell of them, C^T D C, is diagonal too where D, a number per band, stands for the bands' own
information (the maximum noise fractions of Green et al. 1988; Hunt & Kuebler 1984).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from s2sr.fit.module import Reconstruction


def components(correlation: Tensor, information: Tensor) -> Tensor:
    """[b, b] C of the correlation R [b, b] and what is seen of every band [b]: C C^T = R, C^T diag C diagonal."""
    root = torch.linalg.cholesky(correlation)
    _, directions = torch.linalg.eigh(root.T * information @ root)
    return root @ directions


def mixed(matrix: Tensor, spectra: Tensor) -> Tensor:
    """[c, ...] the real combinations [c, b] of complex spectra [b, ...]."""
    if len(spectra) == 1:
        return spectra * matrix.view(1, *[1] * (spectra.ndim - 1))
    parts = torch.view_as_real(spectra)
    return torch.view_as_complex((matrix @ parts.flatten(1)).view(len(matrix), *parts.shape[1:]))
