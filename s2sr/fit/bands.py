"""What the bands of a scene have in common: an edge of the ground, or the shadow of a tree, is in all of them.

Detail z_b that is white in the spectrum of its own band has between bands the correlation R, the same at all
frequencies (in aerial images it hardly changes from .05 to 1 cycles per LR pixel). R = C C^T makes components
y = C^-1 z white and independent. Observations tell of z, in the mean over frequencies, D = diag(D_b): C is chosen so
that of the components they tell C^T D C, diagonal too, the maximum noise fractions of Green et al. 1988 (in
restoration: Hunt & Kuebler 1984).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from s2sr.fit.aliases import Rows, cholesky


def mixed(matrix: Tensor, spectra: Tensor) -> Tensor:
    """[c, y, x] the real combinations [c, b] of complex spectra [b, y, x]."""
    parts = torch.view_as_real(spectra)
    return torch.view_as_complex((matrix @ parts.flatten(1)).view(len(matrix), *parts.shape[1:]))


def seen(information: Tensor) -> Tensor:
    """[b] D of the information [b, ...] on a band's first aliases: its geometric mean."""
    return information.flatten(1).clamp(min=1e-30).log().mean(1).exp()


def components(correlation: Tensor, level: Tensor) -> Tensor:
    """[b, c] C of the correlation R [b, b] and D = level [b]."""
    root = torch.linalg.cholesky(correlation)
    _, directions = torch.linalg.eigh(root.T * level @ root)
    return root @ directions


def factors(information: Sequence[Rows], mix: Tensor) -> list[Rows]:
    """[c] the Cholesky factor of 1 and what is known of a component, sum_b C_bc^2 of the information on the bands."""

    def factor(shares: Tensor) -> Rows:
        rows = [[_sum(shares, each) for each in zip(*row, strict=True)] for row in zip(*information, strict=True)]
        return cholesky([[entry + (a == c) for c, entry in enumerate(row)] for a, row in enumerate(rows)])

    return [factor(shares) for shares in mix.T.square()]


def _sum(shares: Tensor, fields: Sequence[Tensor]) -> Tensor:
    return torch.stack([share * field for share, field in zip(shares, fields, strict=True)]).sum(0)
