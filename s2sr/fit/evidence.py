"""The probability of the observations with the scene integrated out, and the scene given the observations.

For given shifts the model is linear in the scene and on a periodic domain each LR frequency f couples its aliases f_a
alone. With G the footprint's transfer function (the PSF without splats), P the scene's power spectrum, v_t the noise
variance, g_t the gain and Y the unitary DFT of the frames

    Y_t(f) = sum_a g_t G(f_a) exp(-2 pi i f_a . d_t) X(f_a) + N_t
    U = diag(G sqrt(P)),  Q_ab = sum_t g_t^2 / v_t exp(2 pi i (f_a - f_b) . d_t)
    Z_a = sum_t g_t / v_t exp(2 pi i f_a . d_t) Y_t,  B = I + U Q U
    -2 log evidence = sum_f { sum_t |Y_t|^2 / v_t - (UZ)^H B^-1 (UZ) + log det B + sum_t log(2 pi v_t) }
    X given Y: mean sqrt(P) B^-1 U Z, covariance sqrt(P) B^-1 sqrt(P)

(Tipping & Bishop 2003 in the block form of Elad & Hel-Or 2001.) All aliases make this exact; two per axis, f and
f - sign(f), are where G is not negligible, and make B 4 x 4. Real frames make half of the frequencies do, each counted
twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from s2sr.fit.module import Reconstruction
    from s2sr.model.field import SplatField
    from s2sr.model.spectrum import Spectrum

Rows = Sequence[Sequence[Tensor]]  # a matrix of fields


@dataclass(frozen=True)
class Aliases:
    """The aliases of every LR frequency, per axis: what is separable stays so."""

    rows: Tensor  # [a, y] cycles per LR pixel
    columns: Tensor  # [a, x] of the half that real frames have
    counts: Tensor  # [x] how many of all frequencies each stands for

    @classmethod
    def of(cls, shape: tuple[int, int], *, scale: int = 2, device: torch.device | None = None) -> Aliases:
        """Those of frames of `shape` that a lattice of `scale` samples per LR pixel and axis has."""
        full = torch.fft.fftfreq(shape[0], dtype=torch.float64, device=device)
        half = torch.fft.rfftfreq(shape[1], dtype=torch.float64, device=device)
        counts = torch.full_like(half, 2)
        counts[0] = 1
        if shape[1] % 2 == 0:
            counts[-1] = 1
        return cls(_folded(full, scale), _folded(half, scale), counts)

    def thinned(self, rows: int, columns: int) -> Aliases:
        """Those of every so manieth frequency along each axis."""
        return Aliases(self.rows[:, ::rows], self.columns[:, ::columns], self.counts[::columns])

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(product(range(len(self.rows)), range(len(self.columns))))

    def squared(self) -> Tensor:
        """[a, y, x] |f_a|^2."""
        return (self.rows.square()[:, None, :, None] + self.columns.square()[None, :, None]).flatten(0, 1)

    def transfer(self, sigma: Tensor, width: Tensor) -> Tensor:
        """[a, y, x] G of a Gaussian of `sigma` after a box of `width`, LR pixels."""
        axes = (self.rows, self.columns)
        y, x = (torch.sinc(width * f) * torch.exp(-2 * (math.pi * sigma * f).square()) for f in axes)
        return (y[:, None, :, None] * x[None, :, None]).flatten(0, 1)

    def gathered(self, frames: Tensor, shifts: Tensor, weights: Tensor) -> Tensor:
        """[a, y, x] Z of spectra [t, y, x] with weights g / v [t]."""
        y, x = (_phase(f[:, None] * d[:, None]) for f, d in zip((self.rows, self.columns), shifts.T, strict=True))
        return torch.einsum("atn,ctm,tnm->acnm", y * weights[:, None], x, frames).flatten(0, 1)

    def coupling(self, shifts: Tensor, weights: Tensor) -> Rows:
        """Q [a][b], lower triangle, each [y, x] or less, with weights g^2 / v [t]."""
        y, x = (f[..., None] for f in (self.rows, self.columns))
        dy, dx = shifts.T
        rows = [[_phase((y[a] - y[b]) * dy) * weights for b in range(len(y))] for a in range(len(y))]
        columns = [[_phase((x[a] - x[b]) * dx) for b in range(len(x))] for a in range(len(x))]
        pairs = self.pairs
        return [[rows[a][c] @ columns[b][d].mT for c, d in pairs[: k + 1]] for k, (a, b) in enumerate(pairs)]


def _folded(f: Tensor, scale: int) -> Tensor:
    """[a, n] the aliases of f [n] in -scale / 2 ... scale / 2; f itself and f - sign(f) for a scale of 2."""
    return torch.remainder(f + torch.arange(scale, device=f.device)[:, None] + scale / 2, scale) - scale / 2


def _phase(turns: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)


def cholesky(matrix: Rows) -> Rows:
    """L of L L^H, lower triangles of fields: a few vector operations where a batched routine would loop."""
    factor: list[list[Tensor]] = []
    for i, row in enumerate(matrix):
        factor.append([])
        for j, entry in enumerate(row):
            rest = entry - sum(factor[i][k] * factor[j][k].conj() for k in range(j))
            factor[i].append(rest / factor[j][j] if i > j else rest.real.clamp(min=1e-30).sqrt().to(rest.dtype))
    return factor


def forward_solve(factor: Rows, right: Sequence[Tensor]) -> list[Tensor]:
    """L^-1 right."""
    found: list[Tensor] = []
    for i, row in enumerate(factor):
        found.append((right[i] - sum(row[k] * found[k] for k in range(i))) / row[i].real)
    return found


def backward_solve(factor: Rows, right: Sequence[Tensor]) -> list[Tensor]:
    """L^-H right."""
    found: dict[int, Tensor] = {}
    for i in reversed(range(len(factor))):
        known = sum(factor[k][i].conj() * found[k] for k in range(i + 1, len(factor)))
        found[i] = (right[i] - known) / factor[i][i].real
    return [found[i] for i in range(len(factor))]


def information(aliases: Aliases, amplitude: Tensor, shifts: Tensor, weights: Tensor) -> Rows:
    """The Cholesky factor of B = I + U Q U; amplitude: [a, y, x] U; weights: [t] g^2 / v."""
    coupling = aliases.coupling(shifts, weights)
    return cholesky(
        [[amplitude[a] * q * amplitude[b] + (a == b) for b, q in enumerate(row)] for a, row in enumerate(coupling)]
    )


def negative_log_evidence(
    spectra: Tensor,  # [t, y, x] unitary rfft2 of one band's frames
    aliases: Aliases,
    counts: Tensor,  # [y, x] how often each frequency counts
    *,
    shifts: Tensor,  # [t, 2] LR pixels
    gain: Tensor,  # [t]
    noise: Tensor,  # [t] standard deviation, reflectance
    sigma: Tensor,  # of the PSF, LR pixels
    width: Tensor,  # of the detector, LR pixels
    power: Tensor,  # [a, y, x] P
) -> Tensor:
    """-log p(frames) of one band, nats; differentiable."""
    amplitude = aliases.transfer(sigma, width) * power.sqrt()
    variance = noise.square()
    factor = information(aliases, amplitude, shifts, gain.square() / variance)
    seen = forward_solve(factor, list(amplitude * aliases.gathered(spectra, shifts, gain / variance)))
    explained = sum(z.real.square() + z.imag.square() for z in seen)
    volume = sum(2 * row[-1].real.log() for row in factor)
    energy = (spectra.real.square() + spectra.imag.square()) / variance[:, None, None]
    each = energy.sum(0) - explained + volume + (2 * math.pi * variance).log().sum()
    return (each * counts).sum() / 2


def shift_information(
    aliases: Aliases,
    *,
    shifts: Tensor,  # [t, 2] LR pixels
    gain: Tensor,  # [t]
    noise: Tensor,  # [t] reflectance
    sigma: Tensor,  # LR pixels
    width: Tensor,  # LR pixels
    power: Tensor,  # [a, y, x] P
) -> Tensor:
    """[2 t, 2 t] Fisher information of the shifts (all dy, then all dx) in one band, the scene unknown.

    1/2 sum_f tr(C^-1 dC C^-1 dC) with C the frames' covariance at f. The common shift is not determined: what `pinv`
    gives is the Cramer-Rao bound in the gauge of zero mean.
    """
    amplitude = aliases.transfer(sigma, width) * power.sqrt()
    seen, turns = [], []
    for k, (a, c) in enumerate(aliases.pairs):
        fy, fx = aliases.rows[a][:, None, None], aliases.columns[c][:, None]
        seen.append(amplitude[k][..., None] * gain * _phase(-(fy * shifts[:, 0] + fx * shifts[:, 1])))
        turns.append([-2j * math.pi * f.expand(*amplitude.shape[1:], 1) for f in (fy, fx)])
    outer = [p[..., :, None] * p[..., None, :].conj() for p in seen]
    inverse = torch.linalg.inv(sum(outer) + torch.diag(noise.square()))
    slopes = [sum(o * turn[axis][..., None] for o, turn in zip(outer, turns, strict=True)) for axis in (0, 1)]
    left, right = [inverse @ m for m in slopes], [m @ inverse for m in slopes]
    blocks: list[list[Tensor]] = []
    for i in (0, 1):
        blocks.append([])
        for j in (0, 1):
            # dC_k = E_k M - M E_k, with E_k one at (k, k): tr(C^-1 dC_k C^-1 dC_l) for all k and l at once
            each = right[i] * right[j].mT + left[i].mT * left[j]
            each = each - inverse.mT * (slopes[i] @ left[j]) - inverse * (slopes[j] @ left[i]).mT
            blocks[i].append((each.real * aliases.counts[:, None, None]).sum((0, 1)) / 2)
    return torch.cat([torch.cat(row, 1) for row in blocks])


class Fit(Protocol):
    """What has an evidence: a Reconstruction, or a sample of a scene before there is one."""

    field: SplatField
    frames: Tensor  # [t, b, y, x] reflectance
    spectrum: Spectrum

    @property
    def noise(self) -> Tensor: ...  # [t, b] standard deviation, reflectance

    def completed(self) -> Tensor: ...  # [t, b, y, x] the frames without gaps


@dataclass(frozen=True)
class Evidence:
    """The objective of a stage that knows no weights: its blocks are of shifts, radiometry, psf, noise and spectrum.

    Frames are not periodic: they are faded out over `taper` LR pixels at the border, by a window that moves with the
    scene (as the shifts are when the phase begins), so that all fade the same ground. A high-pass filter goes before,
    its transfer function is divided out after: else what is smoothest, and strongest, would leak. Frequencies below
    `lowest` (cycles per LR pixel) do not count. A masked sample is the field's prediction with the noise of its frame:
    without it the noise would come out too low. In turn with stages that fit weights this is
    expectation-maximisation.
    """

    taper: float = 8.0
    lowest: float = 0.05
    most: int | None = None  # frequencies along each axis: of larger frames every so manieth counts; None: all

    def __call__(self, module: Fit) -> Callable[[], dict[str, Tensor]]:
        """The objective on the frames as they are filled now."""
        field = module.field
        shape = field.grid.shape
        rows, columns = (max(1, n // self.most) if self.most else 1 for n in shape)
        aliases = Aliases.of(shape, device=module.frames.device).thinned(rows, columns)
        spectra, squared, transmitted = (
            self.spectra(module.completed(), field.shifts.detach())[..., ::rows, ::columns],
            aliases.squared(),
            _high_pass(aliases),
        )
        counts = aliases.counts * (squared[0] > self.lowest**2)
        spectra = torch.where(counts > 0, spectra / transmitted, 0)

        def parts() -> dict[str, Tensor]:
            shifts, sigma, noise, gain = (
                x.double() for x in (field.shifts, field.sigma_psf, module.noise, field.radiometry.gain)
            )
            bands = [
                negative_log_evidence(
                    spectra[:, b],
                    aliases,
                    counts,
                    shifts=shifts,
                    gain=gain[:, b],
                    noise=noise[:, b],
                    sigma=sigma[b],
                    width=field.widths[b],
                    power=module.spectrum(b, squared),
                )
                for b in range(len(sigma))
            ]
            return {"evidence": torch.stack(bands).sum()}

        return parts

    def spectra(self, frames: Tensor, shifts: Tensor) -> Tensor:
        """[t, b, y, x / 2 + 1] unitary, of frames [t, b, y, x] that are high-pass filtered and faded out."""
        y = frames.double()
        padded = torch.nn.functional.pad(y, (1, 1, 1, 1), mode="replicate")
        rows = (padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]) / 4
        y = y - (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
        rows, columns = (_fade(n, d.double(), self.taper) for n, d in zip(y.shape[2:], shifts.T, strict=True))
        return torch.fft.rfft2(y * rows[:, None, :, None] * columns[:, None, None, :], norm="ortho")


def sigma_errors(module: Reconstruction, evidence: Evidence | None = None) -> Tensor:
    """[b] standard errors of the PSF's sigma, pixels of each band's own grid, from the evidence's curvature.

    The scene's spectrum is as unknown as sigma; noise and shifts, known far better, stay as they are. The window
    counts samples that it has faded, so the information is that of the samples it is worth.
    """
    evidence = evidence or Evidence()
    field = module.field
    parts = evidence(module)
    unknown = [field.log_sigma, *module.spectrum.parameters()]
    fixed = {p: p.requires_grad for p in module.parameters()}
    for p in fixed:
        p.requires_grad_(any(p is u for u in unknown))
    slopes = torch.autograd.grad(parts()["evidence"], unknown, create_graph=True)
    slope = torch.cat([g.flatten() for g in slopes])
    rows = [torch.autograd.grad(g, unknown, retain_graph=True) for g in slope]
    for p, free in fixed.items():
        p.requires_grad_(free)
    curvature = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]).double()
    if not curvature.isfinite().all():  # the fit itself went astray
        return torch.full_like(field.log_sigma, torch.nan)
    worth = 1.0
    for n in field.grid.shape:
        window = _fade(n, torch.zeros(1, dtype=torch.float64), evidence.taper)
        worth /= float(window.pow(4).mean())
    variance = torch.linalg.pinv((curvature + curvature.T) / 2 * worth, hermitian=True).diagonal()
    return field.log_sigma.detach().exp() * variance[: len(field.bands)].clamp(min=0).sqrt().to(field.log_sigma)


def _high_pass(aliases: Aliases) -> Tensor:
    """[y, x] what one less the binomial filter 1 2 1 along both axes transmits."""
    return 1 - torch.cos(math.pi * aliases.rows[0]).square()[:, None] * torch.cos(math.pi * aliases.columns[0]).square()


def _fade(n: int, shifts: Tensor, taper: float) -> Tensor:
    """[t, n] windows of power 1 that rise as a squared sine over `taper` pixels (at most half of all) at both borders.

    They move with the shifts [t] and end where the largest would leave the frame.
    """
    reach = shifts.abs().max()
    x = torch.arange(n, dtype=shifts.dtype, device=shifts.device) + 0.5 - shifts[:, None]
    from_border = (torch.minimum(x, n - x) - reach) / min(taper, n / 2)
    window = torch.sin(math.pi / 2 * from_border.clamp(0, 1)).square()
    return window / window.square().mean(-1, keepdim=True).sqrt()
