"""Shifts, gain, PSF, noise, change and spectrum from the frames alone: what a stage without weights minimises.

Frames are not periodic: a high-pass filter goes before a window that fades them out, and its transfer function is
divided out after; else what is smoothest, and strongest, would leak. The window moves with the scene (as the shifts
are when a round begins), so that all frames fade the same ground.

A band is seen on the grid of its own measurements: where a file repeats each 20 m sample, on that of 20 m.

Places change. An observation differs from the scene by noise, and by a share c_t of the scene's own power spectrum that
is in no other: v_t(f) = noise_t^2 + c_t sum_a U_a^2. Without it change would pass for noise of all frequencies.

What tells sigma from the scene's spectrum is what is known of both beforehand: spectra are nearly power laws, and a
sensor's PSF is nearly what was published of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from s2sr.fit.aliases import Aliases
from s2sr.fit.likelihood import Frames, Model, negative_log_evidence

if TYPE_CHECKING:
    from s2sr.fit.module import Reconstruction
    from s2sr.model.field import SplatField
    from s2sr.model.sampling import Sampling
    from s2sr.model.spectrum import Spectrum


class Fit(Protocol):
    """What has an evidence: a Reconstruction, or a sample of a scene before there is one."""

    field: SplatField
    frames: Tensor  # [t, b, y, x] reflectance
    valid: Tensor  # [t, b, y, x] bool
    trusted: Tensor  # [t, b, y, x] bool, of the valid samples those that agree with the others
    filled: dict[Sampling, Tensor]  # [t, b, y, x] of each part that the evidence sees, untrusted samples as predicted
    spectrum: Spectrum

    @property
    def noise(self) -> Tensor: ...  # [t, b] standard deviation, reflectance

    @property
    def change(self) -> Tensor: ...  # [t, b] of the scene's power


@dataclass(frozen=True)
class Evidence:
    """The objective of a stage that knows no weights: its blocks are of shifts, radiometry, psf, noise and spectrum.

    The border fades over `taper` LR pixels; frequencies below `lowest` (cycles per LR pixel) do not count. Of frames
    larger than `side` LR pixels the clearest part of that side is taken. At every round anew, samples that are masked,
    or further than `outlier` standard deviations from what all others predict, are set to that prediction, by `fill`
    quasi-Newton steps from the one before (expectation-maximisation). `spread` is the standard deviation of log sigma,
    over sensors, about where it starts.
    """

    taper: float = 5.0
    lowest: float = 0.1
    side: int = 128
    fill: int = 4
    outlier: float = 5.0
    spread: float = 0.2

    def __call__(self, module: Fit) -> Callable[[], dict[str, Tensor]]:
        """The objective on the frames as they are filled now."""
        moments = self.moments(module)
        frames = [each.completed() for each in moments]

        def parts() -> dict[str, Tensor]:
            nats = [negative_log_evidence(f, **each.now()) for f, each in zip(frames, moments, strict=True)]
            away = (module.field.log_sigma - module.field.log_sigma_start) / self.spread
            prior = module.spectrum.prior() + away.square().sum() / 2
            return {"evidence": torch.stack(nats).sum(), "prior": prior}

        return parts

    def moments(self, module: Fit) -> list[Moments]:
        """Of the bands that are measured on one grid together."""
        grids: dict[Sampling, list[int]] = {}
        for band, sampling in enumerate(module.field.samplings):
            grids.setdefault(sampling, []).append(band)
        return [Moments(self, module, bands, sampling) for sampling, bands in grids.items()]


class Moments:
    """What the hyper-parameters of a module make of its frames, in the window that they had when a round began.

    Of `bands` that have one sampling.
    """

    def __init__(self, evidence: Evidence, module: Fit, bands: list[int], sampling: Sampling) -> None:
        self.evidence, self.module, self.bands, self.sampling = evidence, module, bands, sampling
        self.pitch = pitch = sampling.pitch
        rows, columns = sampling.slices()
        _, _, y, x = clearest(module.valid[:, bands, rows, columns], evidence.side // pitch)
        self.part = (slice(None), bands, _every(rows, y), _every(columns, x))
        height, width = module.valid[self.part].shape[2:]
        self.aliases = Aliases.of((height, width), device=module.frames.device)
        self.squared = self.aliases.squared() / pitch**2
        self.basis = module.spectrum.basis(self.squared)
        self.counts = self.aliases.counts * (self.squared[0] > evidence.lowest**2)
        shifts = module.field.shifts.detach().double() / pitch
        along = [fade(n, d, evidence.taper / pitch) for n, d in zip((height, width), shifts.T, strict=True)]
        self.window = (along[0][:, :, None] * along[1][:, None])[:, None]  # [t, 1, y, x]
        power = self.window.square()
        self.worth = self.counts / power[0].square().mean()  # a window counts samples in full that it has faded
        self.clear = (module.trusted[self.part] * power).sum((2, 3)) / power.sum((2, 3))

    def now(self) -> dict[str, Tensor]:
        """The arguments of the evidence at the present parameters, in double precision and pixels of the own grid."""
        module, field, bands = self.module, self.module.field, self.bands
        gain, noise, change = (x[:, bands].double() for x in (field.radiometry.gain, module.noise, module.change))
        shifts, sigma, widths = (
            x.double() / self.pitch for x in (field.shifts, field.sigma_psf[bands], field.widths[bands])
        )
        density = (self.basis @ module.spectrum.coefficients[bands].double().T).exp()
        amplitude = self.aliases.transfer(sigma, widths) * density.sqrt() / self.pitch
        scene = amplitude.square().sum(0)[:, :, None]
        return {"shifts": shifts, "gain": gain, "variance": noise.square() + change * scene, "amplitude": amplitude}

    @torch.no_grad()
    def model(self) -> Model:
        """At the present parameters."""
        return Model(self.aliases, **self.now())

    def spectra(self, frames: Tensor) -> Tensor:
        """[y, x, t, b] of frames [t, b, y, x], 0 where they do not count."""
        found = filtered_spectra(frames, self.window) * ((self.counts > 0) / high_pass(self.aliases))
        return found.permute(2, 3, 0, 1)

    def completed(self) -> Frames:
        """The frames' spectra: samples that are masked, or contradict the others, at their conditional mean."""
        module, model = self.module, self.model()
        trusted, seen = module.trusted[self.part], module.frames[self.part].double()
        if self.sampling not in module.filled:
            module.filled[self.sampling] = seen if trusted.all() else module.field().detach()[self.part].double()
        filled = module.filled[self.sampling].to(seen)  # a checkpoint's are loaded beside the device
        filled = torch.where(trusted, seen, filled).requires_grad_()
        scale = module.noise.detach()[:, self.bands].double().square()[..., None, None] * ~trusted

        def closure() -> Tensor:
            """1/2 Y^H C^-1 Y."""
            spectra = self.spectra(filled)
            energy = (spectra.conj() * model.innovation(spectra.detach())).real.sum((2, 3)) * self.counts
            (filled.grad,) = torch.autograd.grad(energy.sum(), filled)
            return energy.sum().detach() / 2

        if not trusted.all():
            from s2sr.fit.quasi_newton import QuasiNewton  # torch.optim takes a second to import

            fill = QuasiNewton([filled], max_iter=self.evidence.fill, metric=lambda _, vectors: [vectors[0] * scale])
            fill.step(closure)
        filled = module.filled[self.sampling] = filled.detach()
        spectra = self.spectra(filled)
        module.trusted[self.part] = self._credible(model, spectra, seen - filled)
        return Frames(spectra, self.aliases, self.worth, self.clear)

    def _credible(self, model: Model, spectra: Tensor, difference: Tensor) -> Tensor:
        """[t, b, y, x] which valid samples all others predict, but for noise; `difference` is observed less filled.

        With z = C^-1 y a sample is z / (C^-1)_ii from what all others predict, give or take (C^-1)_ii^(-1/2).
        """
        _, _, leverage, _ = model.uncertainty(self.clear)
        share = self.counts / self.counts.sum()
        precision = torch.einsum("yx,yxtb->tb", share, (1 - leverage) / model.variance)[..., None, None]
        innovation = torch.fft.irfft2(
            model.innovation(spectra).permute(2, 3, 0, 1), s=difference.shape[2:], norm="ortho"
        )
        away = torch.where(difference == 0, innovation * (self.window > 0.5) / precision, difference)
        size = away.abs() * precision.sqrt() / self.evidence.outlier
        valid = self.module.valid[self.part]
        beside = functional.max_pool2d((valid & (size > 1)).double(), 3, 1, 1) > 0  # an outlier's neighbours need less
        return valid & (size < torch.where(beside, 0.5, 1.0))

    def slopes(self) -> Tensor:
        """[a, y, x, b, p] of log U along log sigma and the spectrum's coefficients."""
        variance = (self.module.field.sigma_psf[self.bands].detach().double() * math.pi).square()
        along_sigma = -4 * self.squared[..., None] * variance
        basis = self.basis[..., None, :].expand(*along_sigma.shape, -1) / 2
        return torch.cat((along_sigma[..., None], basis), -1)

    def information(self, model: Model) -> Tensor:
        """[b, p, p] Fisher information of the same, with what is known of scenes."""
        _, covariance, _, _ = model.uncertainty(self.clear)
        n, slopes = len(model.amplitude), self.slopes()
        alias = [[_squared(int(i == j) - covariance[max(i, j)][min(i, j)]) for j in range(n)] for i in range(n)]
        both = torch.stack([torch.stack(row) for row in alias])  # what is found of two aliases at once
        precision = self.module.spectrum.precision().to(slopes)
        known = torch.cat((precision.new_tensor([self.evidence.spread**-2]), precision)).diag()
        return 2 * torch.einsum("yx,acyxb,ayxbp,cyxbq->bpq", self.worth, both, slopes, slopes) + known


class Information:
    """A metric for hyper-parameters: the inverse of their Fisher information, what couples them least left out.

    With C the frames' covariance at f it is 1/2 sum_f tr(C^-1 dC C^-1 dC). Left out is what shift, gain and noise of an
    observation say of each other, of another's and of the scene.
    """

    @torch.no_grad()
    def __init__(self, module: Reconstruction, evidence: Evidence) -> None:
        field, log_noise, coefficients = module.field, module.log_noise, module.spectrum.coefficients
        shifts = field.shifts.new_zeros(field.shifts.shape, dtype=torch.float64)
        gain = torch.zeros_like(log_noise, dtype=torch.float64)
        of_noise = gain.new_zeros(*gain.shape, 2, 2)
        of_scene = gain.new_zeros(len(coefficients), *[1 + coefficients.shape[1]] * 2)
        for moments in evidence.moments(module):
            bands, counts, model = moments.bands, moments.worth, moments.model()
            _, covariance, leverage, _ = model.uncertainty(moments.clear)
            power = model.amplitude.square()
            alone = moments.clear * (1 - leverage) / model.variance  # C^-1 of one observation
            noise = 2 * module.noise[:, bands].double().square().expand_as(model.variance)
            change = module.change[:, bands].double() * power.sum(0)[:, :, None]
            slopes = torch.stack((noise, change))
            both = alone * (1 - leverage) / model.variance
            of_noise[:, bands] = torch.einsum("yx,yxtb,pyxtb,qyxtb->tbpq", counts, both, slopes, slopes) / 2
            seen = power * counts[..., None] * torch.stack([1 - row[-1].real for row in covariance])
            gain[:, bands] = torch.einsum("yxtb,ayxb->tb", alone, seen)
            turns = (2 * math.pi / moments.pitch * moments.aliases.each).square()
            shifts += torch.einsum("yxtb,ayxb,cayx->tc", alone * model.gain.square(), seen, turns)
            of_scene[bands] = moments.information(model)
        self.groups: list[tuple[list[Tensor], Tensor]] = [  # what is solved for together, and its [..., p, p]
            ([field.raw_shifts], shifts[..., None, None]),
            ([field.radiometry.raw_gain], gain[..., None, None]),
            ([field.log_sigma, coefficients], of_scene),
            ([log_noise, module.log_change], of_noise),
        ]

    def __call__(self, parameters: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        """Steps for vectors along some of the parameters."""
        given = {id(p): v for p, v in zip(parameters, vectors, strict=True)}
        found: dict[int, Tensor] = {}
        for group, matrix in self.groups:
            size = {id(p): p.numel() // matrix[..., 0, 0].numel() for p in group}
            members = [id(p) for p in group if id(p) in given]
            if members:
                free = [id(p) in given for p in group for _ in range(size[id(p)])]
                inner = matrix[..., free, :][..., free]
                inner = inner + torch.diag_embed(0.01 * inner.diagonal(dim1=-2, dim2=-1) + 1)  # a nat bounds the rest
                right = torch.cat([given[p].double().view(*inner.shape[:-2], -1) for p in members], -1)
                steps = torch.linalg.solve(inner, right).split([size[p] for p in members], -1)
                found.update(zip(members, steps, strict=True))
        return [found[id(p)].reshape(v.shape).to(v) for p, v in zip(parameters, vectors, strict=True)]


@torch.no_grad()
def sigma_errors(module: Reconstruction, evidence: Evidence | None = None) -> Tensor:
    """[b] standard errors of the PSF's sigma, pixels of each band's own grid.

    The scene's spectrum is as unknown as sigma; noise and shifts, known far better, stay as they are.
    """
    variance = module.field.sigma_psf.new_empty(len(module.field.bands), dtype=torch.float64)
    for moments in (evidence or Evidence()).moments(module):
        variance[moments.bands] = torch.linalg.inv(moments.information(moments.model()))[:, 0, 0]
    return module.field.sigma_psf / module.field.widths * variance.sqrt().to(module.field.widths)


def clearest(valid: Tensor, side: int) -> tuple[slice, slice, slice, slice]:
    """The part of [t, b, y, x], at most `side` along y and x, that has most valid samples; the first of equals."""
    starts = []
    for n in valid.shape[2:]:
        whole = min(n, side)
        starts.append([slice(k, k + whole) for k in range(n % whole // 2, n - whole + 1, whole)])
    parts = [(slice(None), slice(None), y, x) for y in starts[0] for x in starts[1]]
    return max(parts, key=lambda part: int(valid[part].sum()))


def _every(grid: slice, part: slice) -> slice:
    """A part of the pixels that a slice takes, as one slice."""
    return slice(grid.start + part.start * grid.step, grid.start + part.stop * grid.step, grid.step)


def filtered_spectra(frames: Tensor, window: Tensor) -> Tensor:
    """[..., y, x / 2 + 1] unitary rfft2 of frames [t, b, y, x] less their binomial filter, times the window."""
    padded = functional.pad(frames, (1, 1, 1, 1), mode="replicate")
    rows = (padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]) / 4
    rest = frames - (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
    return torch.fft.rfft2(rest * window, norm="ortho")


def high_pass(aliases: Aliases) -> Tensor:
    """[y, x] what one less the binomial filter 1 2 1 along both axes transmits; 1 where that is nothing."""
    y, x = (torch.cos(math.pi * f[0]).square() for f in (aliases.rows, aliases.columns))
    found = 1 - y[:, None] * x
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
