"""What the bands of a scene have in common: an edge of the ground, or the shadow of a tree, is in all of them.

Detail z_b that is white in the spectrum of its own band has between bands the correlation R, the same at all
frequencies (in aerial images it hardly changes from .05 to 1 cycles per LR pixel). R = C C^T makes components
y = C^-1 z white and independent. Observations tell of z, in the mean over frequencies, D = diag(D_b): C is chosen so
that of the components they tell C^T D C, diagonal too, the maximum noise fractions of Green et al. 1988 (in
restoration: Hunt & Kuebler 1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from s2sr.fit.aliases import Rows, inverted

BLOCK = 2**17  # numbers of all bands that are mixed at a time: they stay in the cache


def mix(matrix: Tensor, spectra: Tensor) -> Tensor:
    """Complex spectra [b, y, x], in place, by their real combinations [b, b]."""
    height = max(1, BLOCK // spectra[:, 0].numel())
    for part in spectra.split(height, 1):
        parts = torch.view_as_real(part)
        parts.copy_((matrix @ parts.flatten(1)).view(parts.shape))
    return spectra


def seen(information: Tensor) -> Tensor:
    """[b] D of the information [b, ..., a] on a band's aliases: of each frequency's most the geometric mean."""
    return information.amax(-1).flatten(1).clamp(min=1e-30).log().mean(1).exp()


def components(correlation: Tensor, level: Tensor) -> Tensor:
    """[b, c] C of the correlation R [b, b] and D = level [b]."""
    root = torch.linalg.cholesky(correlation)
    _, directions = torch.linalg.eigh(root.T * level @ root)
    return root @ directions


def covariances(information: Sequence[Rows], components: Tensor) -> list[Tensor]:
    """[c] of [a, a, y, x]: the inverse of 1 and what is known of a component, sum_b C_bc^2 of the information on the
    bands.
    """
    size = len(information[0])
    lower = [(a, c) for a in range(size) for c in range(a + 1)]
    of_bands = torch.stack([torch.stack([*chain(*rows)]).flatten(0, 1) for rows in information])
    found = mix(components.T.square(), of_bands)
    every = []
    for each in found.unflatten(1, (len(lower), -1)):
        matrix = each.new_empty(size, size, *each.shape[1:])
        for (a, c), entry in zip(lower, each, strict=True):
            matrix[a, c], matrix[c, a] = entry, entry.conj()
        matrix.diagonal().add_(1)
        inverted(matrix)
        every.append(matrix)
    return every
