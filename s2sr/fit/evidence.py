"""Shifts, radiometry, PSF, noise and spectrum from the frames alone: what a stage without weights minimises.

Frames are not periodic: a high-pass filter goes before a window that fades them out, and its transfer function is
divided out after; else what is smoothest, and strongest, would leak. The window moves with the scene (as the shifts
are when a round begins), so that all frames fade the same ground.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from s2sr.fit.aliases import Aliases
from s2sr.fit.conjugate import ConjugateGradient
from s2sr.fit.likelihood import Frames, Model, negative_log_evidence
from s2sr.model.spectrum import BEND

if TYPE_CHECKING:
    from s2sr.fit.module import Reconstruction


@dataclass(frozen=True)
class Evidence:
    """The objective of a stage that knows no weights: its blocks are of shifts, radiometry, psf, noise and spectrum.

    The border fades over `taper` LR pixels; frequencies below `lowest` (cycles per LR pixel) do not count. Of frames
    larger than `side` LR pixels the clearest `cuts` of that side are taken. Masked samples are set to their conditional
    mean, at every round anew (expectation-maximisation).
    """

    taper: float = 5.0
    lowest: float = 0.1
    side: int = 128
    cuts: int = 4
    fill: int = 4  # conjugate gradients at most
    outlier: float = 5.0  # standard deviations

    def __call__(self, module: Reconstruction) -> Callable[[], dict[str, Tensor]]:
        """The objective on the frames as they are filled now."""
        if module.filled is None:
            module.filled = torch.where(module.trusted, module.frames, module.field().detach()).double()
        moments = Moments(self, module)
        frames = moments.completed()

        def parts() -> dict[str, Tensor]:
            return {"evidence": negative_log_evidence(frames, **moments.now()), "bend": module.spectrum.prior()}

        return parts


class Moments:
    """What the hyper-parameters of a module make of frames in the window of `evidence`."""

    def __init__(self, evidence: Evidence, module: Reconstruction) -> None:
        self.evidence, self.module = evidence, module
        shifts = module.field.shifts.detach().double()
        sides = [min(n, evidence.side) for n in module.field.grid.shape]
        self.aliases = Aliases.of((sides[0], sides[1]), device=module.frames.device)
        self.squared = self.aliases.squared()
        self.basis = module.spectrum.basis(self.squared)
        self.counts = self.aliases.counts * (self.squared[0] > evidence.lowest**2)
        rows, columns = (fade(n, d, evidence.taper) for n, d in zip(sides, shifts.T, strict=True))
        self.window = rows[:, :, None] * columns[:, None]  # [t, y, x]
        weight = self.window.square() / self.window.square().mean((-2, -1), keepdim=True)
        valid = self._cut(module.trusted.double(), self._corners(sides, evidence.side))
        clear = (valid * weight[:, None]).mean((-2, -1))  # [k, t, b]
        best = clear.mean((1, 2)).argsort(descending=True)[: evidence.cuts].tolist()
        self.corners = [self._corners(sides, evidence.side)[k] for k in best]
        self.clear = clear[best].mean(0)

    def _corners(self, sides: Sequence[int], most: int) -> list[tuple[int, int]]:
        """The first row and column of every cut; what exceeds whole cuts is left out all around."""
        starts = []
        for n, side in zip(self.module.field.grid.shape, sides, strict=True):
            starts.append([n % side // 2 + side * k for k in range(n // side)])
        return [(y, x) for y in starts[0] for x in starts[1]]

    def _cut(self, frames: Tensor, corners: Sequence[tuple[int, int]]) -> Tensor:
        """[k, t, b, y, x]"""
        height, width = self.window.shape[1:]
        return torch.stack([frames[..., y : y + height, x : x + width] for y, x in corners])

    def spectra(self, frames: Tensor) -> Tensor:
        """[y, x, t, k, b] unitary, of frames [t, b, y, x] that are high-pass filtered and faded out."""
        padded = functional.pad(frames, (1, 1, 1, 1), mode="replicate")
        rows = (padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]) / 4
        rest = frames - (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
        cuts = self._cut(rest, self.corners) * self.window[:, None]
        found = torch.fft.rfft2(cuts, norm="ortho") * (self.counts > 0) / high_pass(self.aliases)
        return found.permute(3, 4, 1, 0, 2)

    def slopes(self) -> Tensor:
        """[a, y, x, b, p] of log U along log sigma and the spectrum's coefficients."""
        variance = (self.module.field.sigma_psf.detach().double() * math.pi).square()
        along_sigma = -4 * self.squared[..., None] * variance
        basis = self.basis[..., None, :].expand(*along_sigma.shape, -1) / 2
        return torch.cat((along_sigma[..., None], basis), -1)

    def information(self, model: Model) -> Tensor:
        """[b, p, p] Fisher information of the same, with what is known of scenes."""
        _, covariance, _, _ = model.uncertainty(self.clear)
        n, slopes = len(model.amplitude), self.slopes()
        alias = [[_squared(int(i == j) - covariance[max(i, j)][min(i, j)]) for j in range(n)] for i in range(n)]
        both = torch.stack([torch.stack(row) for row in alias])  # what is found of two aliases at once
        counts = self.counts * len(self.corners)
        return 2 * torch.einsum("yx,acyxb,ayxbp,cyxbq->bpq", counts, both, slopes, slopes) + self.known

    @property
    def known(self) -> Tensor:
        """[p, p]"""
        return torch.diag(self.basis.new_tensor([0, 0, 0, BEND[1] ** -2]))

    def now(self) -> dict[str, Tensor]:
        """The arguments of the evidence at the present parameters, in double precision."""
        module, field = self.module, self.module.field
        shifts, gain, noise, change = (
            x.double() for x in (field.shifts, field.radiometry.gain, module.noise, module.change)
        )
        variance = (field.sigma_psf.double() * math.pi).square()
        box = self.aliases.transfer(torch.zeros_like(variance), field.widths.double()).clamp(min=1e-12)
        log_amplitude = (
            box.log()
            - 2 * self.squared[..., None] * variance
            + self.basis @ module.spectrum.coefficients.double().T / 2
        )
        spread = (2 * log_amplitude).exp().sum(0)
        return {
            "shifts": shifts,
            "gain": gain,
            "variance": noise.square() + change * spread[:, :, None],
            "log_amplitude": log_amplitude,
        }

    @torch.no_grad()
    def model(self) -> Model:
        """At the present parameters."""
        given = self.now()
        return Model(self.aliases, amplitude=given.pop("log_amplitude").exp(), **given)

    def completed(self) -> Frames:
        """The frames' spectra: samples that are masked, or contradict the others, at their conditional mean."""
        module, model = self.module, self.model()
        filled = module.filled.requires_grad_()
        scale = module.noise.detach().double().square()[..., None, None] * ~module.trusted
        optimizer = ConjugateGradient([filled], max_iter=self.evidence.fill, tolerance=1e-2, metric=lambda g: g * scale)

        def closure() -> Tensor:
            """Its gradient is that of 1/2 Y^H C^-1 Y."""
            spectra = self.spectra(filled)
            energy = (spectra.conj() * model.innovation(spectra.detach())).real.sum((2, 3, 4)) * self.counts
            (filled.grad,) = torch.autograd.grad(energy.sum(), filled)
            return energy.sum().detach()

        if not module.trusted.all():
            optimizer.step(closure)
        filled = filled.detach()
        spectra = self.spectra(filled)
        self._judge(model, filled, model.innovation(spectra))
        module.filled = torch.where(module.trusted, module.frames.double(), filled)
        return Frames(spectra, self.aliases, self.counts, self.clear)

    def _judge(self, model: Model, filled: Tensor, innovation: Tensor) -> None:
        """Which samples are trusted from now on: those that are predicted by all others within `outlier` deviations."""
        module = self.module
        _, _, leverage, _ = model.uncertainty(self.clear)
        precision = ((1 - leverage) / model.variance * self.counts[..., None, None]).sum((0, 1)) / self.counts.sum()
        cuts = torch.fft.irfft2(innovation.permute(3, 2, 4, 0, 1), s=self.window.shape[1:], norm="ortho")
        z = torch.zeros_like(filled)
        for (y, x), cut in zip(self.corners, cuts, strict=True):
            height, width = self.window.shape[1:]
            z[..., y : y + height, x : x + width] = cut * (self.window[:, None] > 0.5)
        z = torch.where(module.trusted, z / precision[..., None, None], module.frames - filled)
        size = z.abs() * precision.sqrt()[..., None, None]
        beside = functional.max_pool2d((size > self.evidence.outlier).float(), 3, 1, 1) > 0
        module.trusted = module.valid & (size < torch.where(beside, 0.5, 1.0) * self.evidence.outlier)


class Information:
    """A metric for hyper-parameters: the inverse of their Fisher information, what couples them least left out.

    With C the frames' covariance at f it is 1/2 sum_f tr(C^-1 dC C^-1 dC). Left out is what shift, gain and noise of one
    observation say of each other, of another's and of the scene.
    """

    @torch.no_grad()
    def __init__(self, module: Reconstruction, evidence: Evidence | None = None) -> None:
        moments = Moments(evidence or Evidence(), module)
        model, counts, clear, field = moments.model(), moments.counts * len(moments.corners), moments.clear, module.field
        _, covariance, leverage, _ = model.uncertainty(clear)
        power, n = model.amplitude.square(), len(model.amplitude)
        own = clear * ((1 - leverage) / model.variance).square()  # C^-1 of one observation, squared
        slopes = torch.stack(
            torch.broadcast_tensors(
                2 * module.noise.double().square(), module.change.double() * power.sum(0)[:, :, None]
            )
        )
        noise = torch.einsum("yx,yxtb,pyxtb,qyxtb->tbpq", counts, own, slopes, slopes) / 2
        seen = torch.stack([1 - covariance[i][i].real for i in range(n)]) * power * counts[..., None]
        single = clear * (1 - leverage) / model.variance
        gain = torch.einsum("yxtb,ayxb->tb", single, seen)
        turns = (2 * math.pi * moments.aliases.each).square()
        shifts = torch.einsum("yxtb,ayxb,cayx->tc", single * model.gain.square(), seen, turns)
        self.groups = [  # parameters that are solved for together, for every index of theirs: [..., p, p]
            ([field.raw_shifts], shifts[..., None, None]),
            ([field.radiometry.raw_gain], gain[..., None, None]),
            ([field.log_sigma, module.spectrum.coefficients], moments.information(model)),
            ([module.log_noise, module.log_change], noise),
        ]

    def __call__(self, parameters: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        """Steps for vectors along some of the parameters."""
        given = {id(p): v for p, v in zip(parameters, vectors, strict=True)}
        found = {}
        for members, matrix in self.groups:
            sizes = [p.numel() // matrix[..., 0, 0].numel() for p in members]
            free = [id(p) in given for p, n in zip(members, sizes, strict=True) for _ in range(n)]
            inner = matrix[..., free, :][..., free]
            here = [p for p in members if id(p) in given]
            if here:
                right = torch.cat([given[id(p)].double().view(*inner.shape[:-2], -1) for p in here], -1)
                inner = inner + torch.diag_embed(0.01 * inner.diagonal(dim1=-2, dim2=-1) + 1)
                parts = torch.linalg.solve(inner, right).split([n for p, n in zip(members, sizes, strict=True) if id(p) in given], -1)
                found.update({id(p): x for p, x in zip(here, parts, strict=True)})
        return [found[id(p)].reshape(v.shape).to(v) for p, v in zip(parameters, vectors, strict=True)]


def sigma_errors(module: Reconstruction, evidence: Evidence | None = None) -> Tensor:
    """[b] standard errors of the PSF's sigma, pixels of each band's own grid.

    The scene's spectrum is as unknown as sigma; noise and shifts, known far better, stay as they are. The window counts
    samples that it has faded, so the information is that of the samples it is worth.
    """
    with torch.no_grad():
        moments = Moments(evidence or Evidence(), module)
        variance = torch.linalg.inv(moments.information(moments.model()))[:, 0, 0]
        faded = float(moments.window[0].pow(4).mean())
    return module.field.sigma_psf.detach() / module.field.widths * (variance * faded).sqrt().to(module.field.widths)


def high_pass(aliases: Aliases) -> Tensor:
    """[y, x] what one less the binomial filter 1 2 1 along both axes transmits; 1 where that is nothing."""
    found = 1 - torch.cos(math.pi * aliases.rows[0]).square()[:, None] * torch.cos(math.pi * aliases.columns[0]).square()
    return torch.where(found > 0, found, 1)


def fade(n: int, shifts: Tensor, taper: float) -> Tensor:
    """[t, n] windows of power 1 that rise as a squared sine over `taper` pixels (at most half of all) at both borders.

    They move with the shifts [t] and end where the largest would leave the frame.
    """
    reach = shifts.abs().max()
    x = torch.arange(n, dtype=shifts.dtype, device=shifts.device) + 0.5 - shifts[:, None]
    from_border = (torch.minimum(x, n - x) - reach) / min(taper, n / 2)
    window = torch.sin(math.pi / 2 * from_border.clamp(0, 1)).square()
    return window / window.square().mean(-1, keepdim=True).sqrt()


def _squared(z: Tensor) -> Tensor:
    return z.real.square() + z.imag.square()
