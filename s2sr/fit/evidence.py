"""Shifts, gain, PSF, noise, change and spectrum from the frames alone: the evidence as the objective of a stage.

Frames are not periodic: they are high-pass filtered, then faded out by a window, and the filter's transfer function is
divided out; otherwise the low frequencies, which are strongest, would leak. The window moves with the shifts (as they
are when a round begins), so that all frames fade out the same ground.

A band is treated on the grid of its own measurements: of 20 m, if a file repeats each 20 m sample.

The ground changes. An observation differs from the scene by noise, and by change whose power is a fraction c_t of the
scene's: v_t(f) = noise_t^2 + c_t sum_a U_a^2. Without the latter, change would pass for white noise.

Sigma and the scene's spectrum can be told apart only by prior knowledge: spectra are nearly power laws, and a sensor's
PSF is nearly the published one.
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
from s2sr.fit.likelihood import Frames, Model, Posterior, negative_log_evidence

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem
    from s2sr.model.field import SplatField
    from s2sr.model.sampling import Sampling
    from s2sr.model.spectrum import Spectrum

CHANGE_SLOPE = 1.0  # standard deviation of the exponent by which change falls faster than the scene


class Fit(Protocol):
    """What the evidence is computed of: a Problem, or a sample of a scene before there is one."""

    field: SplatField
    frames: Tensor  # [t, b, y, x] reflectance
    valid: Tensor  # [t, b, y, x] bool
    trusted: Tensor  # [t, b, y, x] bool: the valid samples that agree with other observations
    filled: dict[Sampling, Tensor]  # [t, b, y, x] the part that is used, untrusted samples as predicted
    spectrum: Spectrum

    @property
    def noise(self) -> Tensor: ...  # [t, b] standard deviation, reflectance

    @property
    def change(self) -> Tensor: ...  # [t, b] fraction of the scene's power


@dataclass(frozen=True)
class Evidence:
    """The objective of a stage without weights, with blocks of shifts, radiometry, psf, noise and spectrum.

    The border fades over `taper` LR pixels; frequencies below `lowest` (cycles per LR pixel) do not count. Of frames
    larger than `side` LR pixels only the clearest square of that side is used. At every round, samples that are masked,
    or more than `outlier` standard deviations from what all others predict, are set to that prediction, by up to `fill`
    conjugate gradient steps from the last one (expectation-maximisation). `spread` is the prior standard deviation of
    log sigma about its start.
    """

    taper: float = 5.0
    lowest: float = 0.1
    side: int = 128
    fill: int = 4
    outlier: float = 5.0
    spread: float = 0.2

    def __call__(self, module: Fit) -> Callable[[], dict[str, Tensor]]:
        """The objective, on newly filled-in frames."""
        moments = self.moments(module)
        frames = [each.completed() for each in moments]

        def parts() -> dict[str, Tensor]:
            nats = [negative_log_evidence(f, each.model()) for f, each in zip(frames, moments, strict=True)]
            away = (module.field.log_sigma - module.field.log_sigma_start) / self.spread
            prior = module.spectrum.prior() + away.square().sum() / 2
            return {"evidence": torch.stack(nats).sum(), "prior": prior}

        return parts

    def moments(self, module: Fit) -> list[Moments]:
        """One for each group of bands that are measured on the same grid."""
        grids = module.field.bands_by_sampling
        return [Moments(self, module, bands, sampling) for sampling, bands in grids.items()]


class Moments:
    """Frames of some bands in a window that is fixed for a round, and their second moments.

    numbers: indices of the bands, which share one sampling.
    """

    def __init__(self, evidence: Evidence, module: Fit, numbers: list[int], sampling: Sampling) -> None:
        self.evidence, self.module, self.sampling = evidence, module, sampling
        self.bands = bands = torch.tensor(numbers, device=module.frames.device)
        self.pitch = pitch = sampling.pitch
        rows, columns = sampling.slices()
        _, _, y, x = clearest(module.valid[:, bands, rows, columns], evidence.side // pitch)
        self.part = (slice(None), bands, _every(rows, y), _every(columns, x))
        self.shape = height, width = module.valid[self.part].shape[2:]
        self.aliases = Aliases.of((height, width), device=module.frames.device)
        self.squared = self.aliases.squared() / pitch**2
        self.basis = module.spectrum.basis(self.squared)
        self.counts = self.aliases.counts * (self.squared.amin(0) > evidence.lowest**2)
        self.response = (self.counts > 0) / high_pass(self.aliases)
        shifts = module.field.shifts.detach().double() / pitch
        along = [fade(n, d, evidence.taper / pitch) for n, d in zip((height, width), shifts.T, strict=True)]
        self.window = (along[0][:, :, None] * along[1][:, None])[:, None]  # [t, 1, y, x]
        power = self.window.square()
        self.worth = self.counts / power[0].square().mean()  # corrects for the fading of the window
        self.clear = (module.trusted[self.part] * power).sum((2, 3)) / power.sum((2, 3))

    def model(self) -> Model:
        """The second moments at the current parameters, in double precision and pixels of the bands' own grid."""
        module, field, bands = self.module, self.module.field, self.bands
        gain, noise, change = (x[:, bands].double() for x in (field.radiometry.gain, module.noise, module.change))
        shifts, sigma, widths = (
            x.double() / self.pitch for x in (field.shifts, field.sigma_psf[bands], field.widths[bands])
        )
        density = module.spectrum.coefficients[bands].double() @ self.basis.flatten(0, 2).T
        root = (density / 2).exp().view(len(bands), *self.squared.shape).movedim(1, 0)
        amplitude = self.aliases.transfer(sigma, widths) * root / self.pitch
        return Model(self.aliases, shifts, gain, noise.square(), change, amplitude)

    def spectra(self, frames: Tensor) -> Tensor:
        """[t, b, y, x] spectra of frames, 0 at frequencies that do not count."""
        return filtered_spectra(frames, self.window.to(frames)).mul_(self.response.to(frames))

    def adjoint(self, spectra: Tensor) -> Tensor:
        """The transpose of `spectra`: [t, b, y, x], from spectra with the symmetry of a real image."""
        windowed = torch.fft.irfft2(spectra * self.response.to(spectra.real), s=self.shape, norm="ortho")
        return high_passed(windowed.mul_(self.window.to(windowed)))

    @torch.no_grad()
    def completed(self) -> Frames:
        """The frames' spectra, with samples that are masked or contradict the others at their conditional mean."""
        module, model = self.module, self.model()
        trusted, seen = module.trusted[self.part], module.frames[self.part]
        whole = bool(trusted.all())
        if self.sampling not in module.filled:
            module.filled[self.sampling] = seen if whole else module.field().detach()[self.part]
        filled = module.filled[self.sampling].to(seen)  # a checkpoint's are loaded beside the device
        filled = torch.where(trusted, seen, filled)
        innovation = model.innovation(filled.dtype)
        if not whole:
            self._fill(filled, ~trusted, lambda frames: self.adjoint(innovation(self.spectra(frames))))
        module.filled[self.sampling] = filled
        spectra = self.spectra(filled.double())
        away = torch.fft.irfft2(innovation(spectra.to(filled.dtype.to_complex())), s=self.shape, norm="ortho")
        module.trusted[self.part] = self._credible(model, away, seen - filled)
        return Frames(spectra, self.worth, self.clear, whole)

    def _fill(self, frames: Tensor, missing: Tensor, precision: Callable[[Tensor], Tensor]) -> None:
        """Lowers 1/2 Y^H C^-1 Y in place, by conjugate gradients along the missing samples [t, b, y, x].

        precision: frames -> its gradient.
        """
        scale = self.module.noise[:, self.bands].square()[..., None, None] * missing
        left, direction, last = -precision(frames), torch.zeros_like(frames), torch.ones_like(frames[0, 0, 0, 0])
        enough = 1e-5 * missing.sum()  # nats, by `scale`; where neighbours are missing together, far more may remain
        for _ in range(self.evidence.fill):
            step = left * scale
            size = (left * step).sum()
            if not size > enough:
                break
            direction = step + size / last * direction
            bent = precision(direction)
            length, last = size / (direction * bent).sum().clamp(min=1e-30), size
            frames += length * direction
            left -= length * bent

    def _credible(self, model: Model, innovation: Tensor, difference: Tensor) -> Tensor:
        """[t, b, y, x] which valid samples agree with what all others predict; `difference` is observed minus filled.

        With z = C^-1 y a sample differs by z / (C^-1)_ii from that prediction, with standard deviation
        (C^-1)_ii^(-1/2).
        """
        leverage = model.leverage(model.posterior(self.clear))
        share = self.counts / self.counts.sum()
        precision = torch.einsum("yx,tbyx->tb", share, (1 - leverage) / model.variance)[..., None, None]
        away = torch.where(difference == 0, innovation * (self.window > 0.5) / precision, difference)
        size = away.abs() * precision.sqrt() / self.evidence.outlier
        valid = self.module.valid[self.part]
        beside = functional.max_pool2d((valid & (size > 1)).double(), 3, 1, 1) > 0  # stricter beside an outlier
        return valid & (size < torch.where(beside, 0.5, 1.0))

    def information(self, covariance: Tensor) -> Tensor:
        """[b, p, p] Fisher information on log sigma and the spectrum's coefficients, including their priors.

        covariance: [a, a, b, y, x] B^-1.
        """
        size, bands = len(covariance), len(self.bands)
        slopes = self.slopes.flatten(1, 2)
        found = slopes.new_zeros(bands, slopes.shape[2], slopes.shape[2])
        for a in range(size):
            for c in range(size):
                both = _squared(int(a == c) - covariance[a, c]) * self.worth  # the information on two aliases together
                found += 2 * (slopes[a].T * both.flatten(1)[:, None]) @ slopes[c]
        precision = self.module.spectrum.precision.to(slopes)
        known = torch.cat((precision.new_tensor([self.evidence.spread**-2]), precision)).diag()
        return self._on_log_sigma(found) + known

    def information_of_change(self, model: Model, posterior: Posterior) -> Tensor:
        """[b, p + 1, p + 1] what change adds to that if its spectrum is the scene's times a power of |f|.

        The last parameter is the exponent by which it falls faster than the scene. Noise and amount of change of every
        observation are marginalised.
        """
        faster = -self.squared.clamp(min=self.evidence.lowest**2).log()[..., None] / 4
        slopes = torch.cat((self.slopes, faster), -1)
        scene = torch.einsum("abyx,ayxp->pbyx", 2 * model.amplitude.square(), slopes)  # how its power moves
        along = torch.cat((torch.ones_like(model.scene)[None], model.scene[None], scene))
        alone = ((1 - model.leverage(posterior)) / model.variance).square() * self.worth
        each = torch.einsum("pbyx,qbyx,tbyx->tbpq", along, along, alone) / 2
        free, between, rest = each[..., :2, :2], each[..., :2, 2:], each[..., 2:, 2:]
        rest = rest - between.mT @ torch.linalg.solve(free, between)
        return self._on_log_sigma(torch.einsum("tb,tbpq->bpq", self.clear * model.change.square(), rest))

    @property
    def slopes(self) -> Tensor:
        """[a, y, x, p] derivatives of log U by sigma^2 / 2 and the spectrum's coefficients."""
        return torch.cat((-4 * math.pi**2 * self.squared[..., None], self.basis / 2), -1)

    def _on_log_sigma(self, information: Tensor) -> Tensor:
        """[b, p, p] convert an information from sigma^2 / 2 as first parameter to log sigma."""
        unit = torch.ones_like(information[..., 0])
        unit[:, 0] = self.module.field.sigma_psf[self.bands].detach().double().square()
        return unit[:, :, None] * information * unit[:, None]


class Information:
    """A metric for hyper-parameters: the inverse of their Fisher information, without its weakest couplings.

    With C the frames' covariance at f it is 1/2 sum_f tr(C^-1 dC C^-1 dC). Neglected are the couplings of an
    observation's shift, gain and noise with each other, with other observations and with the scene.
    """

    @torch.no_grad()
    def __init__(self, module: Problem, evidence: Evidence) -> None:
        field, log_noise, coefficients = module.field, module.log_noise, module.spectrum.coefficients
        shifts = field.shifts.new_zeros(field.shifts.shape, dtype=torch.float64)
        gain = torch.zeros_like(log_noise, dtype=torch.float64)
        of_noise = gain.new_zeros(*gain.shape, 2, 2)
        of_scene = gain.new_zeros(len(coefficients), *[1 + coefficients.shape[1]] * 2)
        for moments in evidence.moments(module):
            bands, counts, model = moments.bands, moments.worth, moments.model()
            posterior = model.posterior(moments.clear)
            leverage = model.leverage(posterior)
            alone = (1 - leverage) / model.variance  # C^-1 of one observation
            white, other = 2 * model.noise, model.change
            powers = torch.stack([model.scene.pow(k) * counts for k in range(3)])
            both = moments.clear * torch.einsum("tbyx,kbyx->ktb", alone.square(), powers) / 2
            mixed = white * other * both[1]
            entries = torch.stack((white.square() * both[0], mixed, mixed, other.square() * both[2]), -1)
            of_noise[:, bands] = entries.unflatten(-1, (2, 2))
            seen = model.amplitude.square() * counts * posterior.found
            gain[:, bands] = moments.clear * torch.einsum("tbyx,byx->tb", alone, seen.sum(0))
            turns = (2 * math.pi / moments.pitch * moments.aliases.each).square()
            turned = torch.einsum("abyx,cayx->cbyx", seen, turns)
            weight = moments.clear * model.gain.square()
            shifts += torch.einsum("tb,tbyx,cbyx->tc", weight, alone, turned)
            of_scene[bands] = moments.information(posterior.covariance)
        self.groups: list[tuple[list[Tensor], Tensor]] = [  # parameters solved for jointly, and their [..., p, p]
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
                free = [k for k, p in enumerate(p for p in group for _ in range(size[id(p)])) if id(p) in given]
                part = slice(free[0], free[-1] + 1)  # at most two parameters: the free ones are adjacent
                inner = matrix[..., part, part]
                inner = inner + torch.diag_embed(0.01 * inner.diagonal(dim1=-2, dim2=-1) + 1)  # a nat bounds the rest
                right = torch.cat([given[p].double().view(*inner.shape[:-2], -1) for p in members], -1)
                steps = torch.linalg.solve_ex(inner, right).result.split([size[p] for p in members], -1)
                found.update(zip(members, steps, strict=True))
        return [found[id(p)].reshape(v.shape).to(v) for p, v in zip(parameters, vectors, strict=True)]


@torch.no_grad()
def sigma_errors(module: Problem, evidence: Evidence | None = None) -> Tensor:
    """[b] standard errors of the PSF's sigma, pixels of each band's own grid.

    Marginalises the scene's spectrum; noise and shifts, which are known far better, are held fixed. That change has the
    scene's spectrum is an assumption: how far sigma would move if its slope differed is part of the error. Never larger
    than the prior's standard deviation.
    """
    evidence = evidence or Evidence()
    variance = module.field.sigma_psf.new_empty(len(module.field.bands), dtype=torch.float64)
    for moments in evidence.moments(module):
        model = moments.model()
        posterior = model.posterior(moments.clear)
        change = moments.information_of_change(model, posterior)
        known = moments.information(posterior.covariance) + change[:, :-1, :-1]
        of_sigma = torch.linalg.inv(known)[:, 0]
        moved = CHANGE_SLOPE * (of_sigma * change[:, -1, :-1]).sum(-1)
        variance[moments.bands] = (of_sigma[:, 0] + moved.square()).clamp(max=evidence.spread**2)
    return module.field.sigma_psf / module.field.widths * variance.sqrt().to(module.field.widths)


def clearest(valid: Tensor, side: int) -> tuple[slice, slice, slice, slice]:
    """The part of [t, b, y, x], at most `side` along y and x, with the most valid samples; of equals, the first."""
    starts = []
    for n in valid.shape[2:]:
        whole = min(n, side)
        starts.append([slice(k, k + whole) for k in range(n % whole // 2, n - whole + 1, whole)])
    parts = [(slice(None), slice(None), y, x) for y in starts[0] for x in starts[1]]
    return max(parts, key=lambda part: int(valid[part].sum()))


def _every(grid: slice, part: slice) -> slice:
    """A contiguous part of the pixels selected by a slice, as one slice."""
    return slice(grid.start + part.start * grid.step, grid.start + part.stop * grid.step, grid.step)


def filtered_spectra(frames: Tensor, window: Tensor) -> Tensor:
    """[..., y, x / 2 + 1] unitary rfft2 of frames [t, b, y, x], high-passed, times the window."""
    return torch.fft.rfft2(high_passed(frames).mul_(window), norm="ortho")


def high_passed(frames: Tensor) -> Tensor:
    """Frames [t, b, y, x] minus their binomial average (1 2 1 along both axes): a symmetric operator."""
    padded = functional.pad(frames, (1, 1, 1, 1), mode="replicate")
    pairs = padded[..., 1:, :] + padded[..., :-1, :]
    rows = pairs[..., 1:, :] + pairs[..., :-1, :]
    pairs = rows[..., 1:] + rows[..., :-1]
    return torch.sub(frames, pairs[..., 1:] + pairs[..., :-1], alpha=1 / 16)


def high_pass(aliases: Aliases) -> Tensor:
    """[y, x] transfer function of `high_passed`; 1 where that is 0."""
    y, x = (torch.cos(math.pi * f[0]).square() for f in (aliases.rows, aliases.columns))
    found = 1 - y[:, None] * x
    return torch.where(found > 0, found, 1)


def fade(n: int, shifts: Tensor, taper: float) -> Tensor:
    """[t, n] windows of unit power that rise as a squared sine over `taper` pixels (at most half of all) at both
    borders.

    They move with the shifts [t], inside the part that the largest shift leaves in the frame.
    """
    reach = shifts.abs().max()
    x = torch.arange(n, dtype=shifts.dtype, device=shifts.device) + 0.5 - shifts[:, None]
    from_border = (torch.minimum(x, n - x) - reach) / min(taper, n / 2)
    window = torch.sin(math.pi / 2 * from_border.clamp(0, 1)).square()
    return window / window.square().mean(-1, keepdim=True).sqrt()


def _squared(z: Tensor) -> Tensor:
    return z.real.square() + z.imag.square()
