"""The uncertainty of the product: a standard deviation per pixel and band, and the count of observations.

The standard deviation is that of product - truth, the truth seen at the product's resolution: blurred by the product's
splat, S(f) = exp(-2 pi^2 sigma_splat^2 f^2), and averaged over its pixels, T(f) = sinc(f / scale) along each axis. The
product itself is as sharp as the observations allow: recovered detail is not blurred by S. With the scene's power P and
the posterior as in `spectral_model`, of mean M and B = I + H^H V^-1 H on the four aliases that a footprint passes, the
mean of |T (M - S X)|^2 is

    V = integral of T^2 S^2 P exp(2 D^2) - sum over aliases of T^2 (2 S exp(D^2 / 2) - 1) P (1 - (B^-1)_aa)

the same everywhere, in reflectance squared. D is 0 if the PSF's sigma was given. If it was fitted, only G^2 P is known:
an error e of sigma is one of exp(2 x) in P and of exp(-x) in the recovered detail, with x = 4 pi^2 f^2 sigma e. V is
the mean over such x, of standard deviation D, with e distributed as `sigma_errors` says. Most of V is detail that no
observation shows, beyond some .6 cycles per pixel: there P is extrapolated with the slope of edges, whatever the bend
below, and D is kept at its value at .6. Three things make V local and the product's:

* Edges. The scene's power is a(x) P(f), a Gaussian scale mixture (Portilla et al. 2003), with the activity a(x) from
  the product itself: the energy of its gradient within a pixel, most where it goes in two directions, as a straight
  edge is found along its whole length. Of the variance of that energy's logarithm, `CHANCE` is no property of the
  place; by that share it is shrunk towards its mean, so that a forest has nearly one a. Mean 1.
* Masks, borders and change. Q is that of the observations that are clear at x, each with its noise as it is there:
  places change, whether a fit has made use of that or not. V is tabulated over a and over the observations'
  information, between the lowest and the highest that occur.
* The estimator. If e is the error of the posterior mean, a product that departs from it by d has the error e - d. With
  an edge-preserving prior d is correlated with e: with r^2 = mean d^2 / V and the correlation c, the variance is
  V (1 - 2 c r + r^2). If sigma was fitted without the evidence, the posterior is that of the most probable sigma.

Other errors (of shifts, radiometry) are part of the noise estimated per observation, or not covered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor
from torch.nn import Parameter

from s2sr.fit.evidence import Evidence
from s2sr.fit.information import Information, sigma_errors
from s2sr.fit.noise import robust_std
from s2sr.fit.posterior import local_noise, posterior_mean
from s2sr.fit.quasi_newton import QuasiNewton
from s2sr.model.footprint import gaussian
from s2sr.model.lattice import Lattice
from s2sr.model.spectrum import Spectrum

if TYPE_CHECKING:
    from s2sr.fit.module import Reconstruction
    from s2sr.fit.problem import Problem

REACH = 0.3  # detector pixels, standard deviation of the Gaussian over which activity is measured
STRAIGHT = 0.1  # of the gradient's energy at an edge that is straight: it is found along its whole length
BESIDE = 0.2  # of the mean over the bands, beside a band's own
CHANCE = 0.5  # this and the next: benchmarks/uncertainty.py fit
CORRELATION = 0.31  # of what an edge-preserving prior adds to the posterior mean with what that lacks
SEEN = 0.6  # cycles per detector pixel: what is finer is extrapolated
TAIL = 3.0  # the exponent by which power falls there: that of edges
CHANGE = 1e-3  # of the scene's power, where its search starts: from a tenth it is not found in 20 iterations
SIDE = 64  # LR pixels of the part on which noise, spectrum and sigma are found
ACTIVITIES = torch.logspace(-3, 2, 11, dtype=torch.float64)
NODES = 16  # of the information
FREQUENCIES = 24  # along each axis of one LR Nyquist cell, where V is integrated


def clear(valid: Tensor, shift: Tensor, scale: int) -> Tensor:
    """[b, y * scale, x * scale] the validity, or its weight, of the LR sample at the centre of each product pixel.

    valid: [b, y, x] of one observation; shift: [2] (dy, dx), LR pixels: a point p of the field lies at p + shift in it.
    """
    shape, valid = valid.shape, F.pad(valid, [1] * 4)  # nothing is valid beyond the frame
    for axis, d in ((2, shift[1]), (1, shift[0])):  # whole rows are copied faster than single samples
        n = shape[axis]
        sample = ((torch.arange(n * scale, device=valid.device) + 0.5) / scale + d).floor().long()
        valid = valid.index_select(axis, sample.clamp(-1, n) + 1)
    return valid


def clear_count(valid: Tensor, shifts: Tensor, scale: int) -> Tensor:
    """[b, y * scale, x * scale] number of observations that are clear at a product pixel (uint8, or int32 above 255).

    valid: [t, b, y, x]; shifts: [t, 2], LR pixels.
    """
    counted = valid.to(torch.uint8 if len(valid) < 256 else torch.int32)
    count, *others = (clear(*one, scale) for one in zip(counted, shifts, strict=True))
    for one in others:
        count += one
    return count


def settle(module: Reconstruction) -> None:
    """Re-estimate noise and spectrum of a module by the evidence, given everything else; then its local noise.

    Starts from initial guesses, whatever the stages found, in case one went astray. A free sigma is re-estimated, too,
    unless a stage has done so by the evidence; not together with the noise: where much changes, a flat spectrum behind
    a wide PSF would then be most probable. Change counts as local noise: subtracting it from the frames makes the scene
    no more certain where the ground changes.
    """
    module.field.changed.zero_()
    with torch.no_grad():
        if module.fits_noise:
            module.log_noise.copy_(robust_std(module.residual(), module.valid).log())
            module.log_change.fill_(math.log(CHANGE))
        module.spectrum = Spectrum(module.field.render(module.field.grid).var((-2, -1)))
    module.filled, module.trusted = {}, module.valid.clone()
    blocks = module.blocks()
    most_probable(module, [*blocks["noise"], *blocks["spectrum"]])
    found = any(phase.stage.fits("psf") and phase.stage.fits("spectrum") for phase in module.phases)
    if blocks["psf"] and not found:
        most_probable(module, [*blocks["spectrum"], *blocks["psf"]])
    local_noise(module)


def most_probable(module: Problem, free: list[Parameter]) -> None:
    """Maximise the evidence over some parameters, in up to 20 iterations."""
    for p in module.parameters():
        p.requires_grad_(any(p is q for q in free))
    evidence = Evidence(side=SIDE)
    parts = evidence(module)
    optimizer = QuasiNewton(free, tolerance=4e-4, metric=Information(module, evidence))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.stack(list(parts().values())).sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def posterior_variance(
    activities: Tensor,  # [a]
    weights: Tensor,  # [k, t] g^2 / v of the clear observations, 0 of the others
    *,
    phases: Tensor,  # [4, f, t] exp(2 pi i f_a . d_t)
    amplitude: Tensor,  # [4, f] U
    found: Tensor,  # [4, f] T^2 (2 S exp(D^2 / 2) - 1) P
    prior: Tensor,  # the integral of T^2 S^2 P exp(2 D^2)
) -> Tensor:  # [k, a]
    """V where the scene's power is a P and the observations have these weights."""
    variance = []
    for w in weights:
        coupling = torch.einsum("aft,bft,t->fab", phases, phases.conj(), w.to(phases.dtype))
        coupling = coupling * amplitude.T[:, :, None] * amplitude.T[:, None, :]
        inner = activities[:, None, None, None] * coupling + torch.eye(4, dtype=coupling.dtype)
        left = torch.linalg.inv(inner).diagonal(dim1=-2, dim2=-1).real  # [a, f, 4]
        explained = ((1 - left) * found.T).sum((-2, -1)) / phases.shape[1]
        variance.append(activities * (prior - explained))
    return torch.stack(variance)


def frequencies(cells: int = 2, n: int = FREQUENCIES) -> Tensor:
    """[cells^2, f, 2] the aliases of n^2 / 2 LR frequencies (the others are their negatives), cycles per LR pixel."""
    f = (torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5
    base = torch.cartesian_prod(f, f[n // 2 :])
    steps = torch.arange(cells, dtype=torch.float64)
    whole = torch.cartesian_prod(steps, steps)[:, None]
    return torch.remainder(base + whole + cells / 2, cells) - cells / 2


@torch.no_grad()
def departure(module: Problem, image: Tensor, scale: int) -> Tensor:
    """[b, y * scale, x * scale] the product `image` minus the posterior mean; reflectance."""
    field = module.field
    own, mean = field.weights.data, torch.empty_like(field.weights)
    modes, found = posterior_mean(module)
    modes.fill(mean, found)
    field.weights.data = mean
    step = image - field.render(field.grid.scaled(scale))
    field.weights.data = own
    return step


@torch.no_grad()
def variances(module: Problem, band: int, weights: Tensor, scale: int, *, sigma_error: float = 0.0) -> Tensor:
    """[k, a] V of a band at ACTIVITIES for rows of weights [k, t], g^2 / v of the observations that are clear.

    sigma_error: of the PSF's sigma, LR pixels.
    """
    field = module.field
    pitch = field.samplings[band].pitch  # the aliases are those of the grid of its measurements
    near, every = frequencies(2) / pitch, frequencies(2 * max(scale, field.scale) * pitch) / pitch
    sigma, width = field.sigma_psf[band].double(), field.widths[band].double()

    def averaged(f: Tensor) -> Tensor:  # T^2
        return torch.sinc(f / scale).square().prod(-1)

    def splat(f: Tensor) -> Tensor:  # S
        return torch.exp(-2 * (math.pi * field.lattice.sigma) ** 2 * f.square().sum(-1))

    def power(f: Tensor) -> Tensor:
        squared = f.square().sum(-1)
        return module.spectrum(band, squared.minimum(seen)) * (seen / squared.maximum(seen)) ** (TAIL / 2)

    def doubt(f: Tensor) -> Tensor:  # D^2
        return (4 * math.pi**2 * sigma * sigma_error * f.square().sum(-1).minimum(seen)).square()

    seen = (SEEN / width).square()
    blurred = averaged(every) * splat(every).square() * power(every) * (2 * doubt(every)).exp()
    transfer = (torch.sinc(width * near) * torch.exp(-2 * (math.pi * sigma * near).square())).prod(-1)
    return posterior_variance(
        ACTIVITIES,
        weights,
        phases=torch.exp(2j * math.pi * (near @ field.shifts.double().T)),
        amplitude=transfer * power(near).sqrt() / pitch,
        found=averaged(near) * (2 * splat(near) * (doubt(near) / 2).exp() - 1) * power(near) / pitch**2,
        prior=blurred.sum() / every.shape[1] / pitch**2,
    )


@dataclass(frozen=True)
class Errors:
    """All that determines a band's standard deviation, except the constants calibrated on scenes with known truth."""

    table: Tensor  # [k, a] V at the square of k equal steps of information, and at ACTIVITIES
    information: Tensor  # [y, x] of LR pixels, of the most that occurs
    there: Tensor  # [y, x] of LR pixels, 0 where nothing was observed, to 1
    energy: Tensor  # [y * scale, x * scale] of the product's gradient, within REACH, over its mean
    departed: float  # r

    def deviation(self, *, chance: float = CHANCE, correlation: float = CORRELATION) -> Tensor:
        """[y * scale, x * scale] reflectance."""
        scale = len(self.energy) // len(self.there)
        information, there = enlarged(self.information, scale), enlarged(self.there, scale)
        factor = 1 - 2 * correlation * self.departed + self.departed**2
        # the table's rows go with the square root of the information, its columns with the logarithm of the activity
        first, last = float(ACTIVITIES[0].log()), float(ACTIVITIES[-1].log())
        row = information.sqrt_().mul_(2).sub_(1)
        column = activity(self.energy, there, chance).log_().sub_(first).mul_(2 / (last - first)).sub_(1)
        at = torch.stack([column, row], -1)[None]
        deviation = ((self.table * factor).log() / 2).to(at)[None, None]
        return F.grid_sample(deviation, at, padding_mode="border", align_corners=True)[0, 0].exp_()


def errors(module: Reconstruction, image: Tensor, scale: int) -> list[Errors]:
    """The Errors of every band of the product `image` [b, y * scale, x * scale]. Module and image are on the CPU."""
    field = module.field
    known = (module.log_noise, module.log_change, module.excess, field.changed, field.log_sigma)
    fitted, spectrum = [x.detach().clone() for x in known], module.spectrum
    settle(module)
    departed = departure(module, image, scale).square_()
    learnt = bool(field.blocks()["psf"])
    sigma_error = field.widths * (sigma_errors(module, Evidence(side=SIDE)) if learnt else 0)
    weights = (field.radiometry.gain / module.noise).detach().double().square()
    shares = module.valid / module.excess  # of the information that a sample has where nothing changes
    shares = torch.stack([s.repeat(x) for s, x in zip(field.samplings, shares.unbind(1), strict=True)], 1)
    shares = torch.stack([clear(*one, 1) for one in zip(shares, field.shifts.detach(), strict=True)])

    def of_band(b: int) -> Errors:
        local = shares[:, b] * weights[:, b, None, None]  # [t, y, x]
        information = local.sum(0)
        most = information.max().clamp(min=1e-9)
        # denser where V changes fastest, at low information; each node scales a set of observations that occurs
        wanted = most * torch.linspace(0, 1, NODES, dtype=torch.float64).square()
        nearest = (information.flatten() - wanted[:, None]).abs().argmin(1)
        share = wanted / information.flatten()[nearest].clamp(min=1e-9)
        weight = share[:, None] * local.flatten(1).T[nearest]
        table = variances(module, b, weight, scale, sigma_error=float(sigma_error[b]))
        blurred = smoothed(information / most, "constant")  # as footprints do
        there = smoothed(information > 0, "nearest")
        seen = enlarged(there, scale)
        share_of_v = (seen * departed[b]).sum() / seen.sum().clamp(min=1e-9) / table[-1, ACTIVITIES == 1]
        return Errors(table, blurred, there, energy[b], math.sqrt(share_of_v))

    energy = energies(image, REACH * scale * field.widths)
    found = [of_band(b) for b in range(len(image))]
    module.spectrum = spectrum
    for x, value in zip(known, fitted, strict=True):
        x.data.copy_(value)
    return found


def standard_deviation(module: Reconstruction, image: Tensor, scale: int) -> Tensor:
    """[b, y * scale, x * scale] of the product `image` at `scale` pixels per LR pixel; reflectance.

    Module and image are on the CPU.
    """
    return torch.stack([found.deviation() for found in errors(module, image, scale)])


def smoothed(values: Tensor, beyond: str) -> Tensor:
    """[y, x] float32 values of LR pixels under a Gaussian of half a pixel; `beyond` the border: as scipy's filters."""
    return torch.from_numpy(ndimage.gaussian_filter(values.float().numpy(), 0.5, mode=beyond))


def enlarged(values: Tensor, scale: int) -> Tensor:
    """[y * scale, x * scale] values [y, x] of LR pixels, linear between their centres."""
    return F.interpolate(values[None, None], scale_factor=scale, mode="bilinear", align_corners=False)[0, 0]


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
