"""How much goes on at a place, by the detail that the product shows there: the local factor of the scene's power.

It is the energy of the product's gradient within a pixel, which counts most where the gradient goes in two directions,
as a straight edge is found along its whole length. Of the variance of that energy's logarithm, `CHANCE` is no property
of the place; by that share it is shrunk towards its mean, so that a forest has nearly the same activity everywhere. Its
mean is 1.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from s2sr.model.footprint import gaussian
from s2sr.model.lattice import Lattice

REACH = 0.3  # detector pixels, standard deviation of the Gaussian over which activity is measured
STRAIGHT = 0.1  # of the gradient's energy at an edge that is straight: it is found along its whole length
BESIDE = 0.2  # of the mean over the bands, beside a band's own
CHANCE = 0.46  # benchmarks/uncertainty.py fit


def energies(image: Tensor, reaches: Tensor) -> list[Tensor]:
    """[y, x] of every band of an image [b, y, x]: the energy of its gradient over the mean, and `BESIDE` of all bands'.

    reaches: [b] of the Gaussians, pixels. Where one band shows detail, another may only have missed it.
    """
    found = [gradient_energy(band.float(), reach) for band, reach in zip(image, reaches.tolist(), strict=True)]
    for energy in found:
        energy /= energy.mean().clamp(min=1e-30)
    common = BESIDE / len(found) * sum(found)
    return [energy.add_(common) for energy in found]


def gradient_energy(band: Tensor, reach: float) -> Tensor:
    """[y, x] the energy of the gradient of an image [y, x], where it has one direction less than where it has two.

    2 sqrt(det J + (`STRAIGHT` tr J)^2), J the structure tensor (Foerstner & Guelch 1987): the outer product of the
    gradient with itself under a Gaussian of `reach` pixels, cut off at four of them.
    """
    height, width = band.shape
    lattice = Lattice((height, width), scale=1, margin=0)

    def near(product: Tensor) -> Tensor:
        averaged, kernel = product[None], partial(gaussian, sigma=reach)
        for axis in (0, 1):
            averaged = lattice.along(axis, averaged, lattice.centres(axis), kernel, 4 * reach, normalise=True)
        return averaged[0]

    rows, columns = torch.gradient(band)
    determinant = near(rows * columns).square_().neg_()
    trace, other = near(rows.square_()), near(columns.square_())
    determinant.addcmul_(trace, other).clamp_(min=0)
    return trace.add_(other).mul_(STRAIGHT).square_().add_(determinant).sqrt_().mul_(2)


def activity(energy: Tensor, there: Tensor, chance: float = CHANCE) -> Tensor:
    """[y, x] how much goes on here, in power, of what does on the mean, by the energy [y, x] of the gradient.

    1 where `there` [y, x], 0 to 1, is 0: where nothing was observed, the image is smooth for no reason.
    """
    share = there + 1e-12
    share /= share.sum()

    def mean(values: Tensor) -> Tensor:
        return torch.linalg.vecdot(values.flatten(), share.flatten())

    found = (energy / energy.mean().clamp(min=1e-30)).clamp_(min=1e-6).log_()
    found -= mean(found)
    variance = float(mean(found.square()))
    found.mul_(max(0.0, 1 - chance / max(variance, 1e-12))).exp_()
    found /= mean(found)
    return found.sub_(1).mul_(there).add_(1).clamp_(min=1e-3)
