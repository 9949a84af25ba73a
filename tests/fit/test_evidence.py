"""The evidence against the dense normal distribution, and what maximising it recovers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from s2sr.fit.evidence import (
    Aliases,
    Evidence,
    backward_solve,
    cholesky,
    forward_solve,
    negative_log_evidence,
    shift_information,
)

N, SCALE = 6, 4
SHIFTS = torch.tensor([(0.2, -0.1), (-0.3, 0.25), (0.1, -0.15)], dtype=torch.float64)
GAIN = torch.tensor([0.9, 1.05, 1.1], dtype=torch.float64)
NOISE = torch.tensor([0.02, 0.03, 0.05], dtype=torch.float64)
SIGMA, WIDTH = torch.tensor(0.42, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)


def power(squared: Tensor) -> Tensor:
    return 0.3 * (0.05**2 + squared) ** -1.25


def observing() -> tuple[Tensor, Tensor]:
    """The frames of every Fourier coefficient of a periodic scene [t * N * N, (N * SCALE)^2], and P of each."""
    f = torch.fft.fftfreq(N * SCALE, 1 / SCALE, dtype=torch.float64)
    fy, fx = (axis.flatten() for axis in torch.meshgrid(f, f, indexing="ij"))
    y, x = (axis.reshape(-1, 1) for axis in torch.meshgrid(*[torch.arange(N, dtype=torch.float64)] * 2, indexing="ij"))
    transfer = torch.sinc(fy) * torch.sinc(fx) * torch.exp(-2 * (math.pi * SIGMA) ** 2 * (fy**2 + fx**2))
    frames = [
        gain * transfer * torch.exp(2j * math.pi * (fy * (y - dy) + fx * (x - dx))) / N
        for gain, (dy, dx) in zip(GAIN, SHIFTS, strict=True)
    ]
    return torch.cat(frames), power(fy**2 + fx**2)


@pytest.fixture(scope="module")
def dense() -> MultivariateNormal:
    matrix, prior = observing()
    covariance = ((matrix * prior) @ matrix.mH).real + torch.diag(NOISE.square().repeat_interleave(N * N))
    return MultivariateNormal(torch.zeros(len(covariance), dtype=torch.float64), covariance)


@pytest.fixture(scope="module")
def frames(dense) -> Tensor:
    torch.manual_seed(0)
    return dense.sample().view(-1, N, N)


def evidence(frames: Tensor, scale: int, shifts=SHIFTS, gain=GAIN, noise=NOISE, sigma=SIGMA, level=WIDTH) -> Tensor:
    aliases = Aliases.of((N, N), scale=scale)
    return negative_log_evidence(
        torch.fft.rfft2(frames, norm="ortho"),
        aliases,
        aliases.counts.expand(N, -1),
        shifts=shifts,
        gain=gain,
        noise=noise,
        sigma=sigma,
        width=WIDTH,
        power=level * power(aliases.squared()),
    )


def test_with_all_aliases_it_is_the_dense_normal_distribution(dense, frames):
    expected = -float(dense.log_prob(frames.flatten()))
    assert float(evidence(frames, SCALE)) == pytest.approx(expected, rel=1e-11)


def test_two_aliases_per_axis_are_enough(dense, frames):
    """The others have passed a footprint that leaves little of them: .04 nats of 216 samples."""
    expected = -float(dense.log_prob(frames.flatten()))
    assert float(evidence(frames, 2)) == pytest.approx(expected, abs=0.2)


def test_odd_and_even_frames_count_every_frequency():
    for shape in ((6, 6), (5, 6), (6, 5), (7, 5)):
        counts = Aliases.of(shape).counts
        assert float(counts.sum()) == shape[1]


def test_the_gradient_is_that_of_the_value(frames):
    parameters = (SHIFTS, GAIN, NOISE, SIGMA, WIDTH)
    given = tuple(p.clone().requires_grad_() for p in parameters)
    assert torch.autograd.gradcheck(lambda *p: evidence(frames, 2, *p), given, eps=3e-6, rtol=1e-4, atol=1e-3)


def test_a_common_shift_changes_nothing(frames):
    moved = SHIFTS + torch.tensor([0.4, -1.3], dtype=torch.float64)
    assert float(evidence(frames, 3, moved)) == pytest.approx(float(evidence(frames, 3)), rel=1e-10)


def test_the_factor_solves():
    torch.manual_seed(1)
    a = torch.randn(5, 4, 4, dtype=torch.complex128)
    b = a @ a.mH + torch.eye(4)
    right = torch.randn(5, 4, dtype=torch.complex128)
    factor = cholesky([[b[:, i, j] for j in range(i + 1)] for i in range(4)])
    found = torch.stack(backward_solve(factor, forward_solve(factor, list(right.T))), -1)
    torch.testing.assert_close(found, torch.linalg.solve(b, right))


def test_the_aliases_are_the_frequency_and_the_next_ones():
    aliases = Aliases.of((6, 6))
    f = torch.tensor([0, 1, 2, -3, -2, -1]) / 6
    torch.testing.assert_close(
        aliases.rows.float().sort(0).values, torch.stack((f, f - (f >= 0) * 2 + 1)).sort(0).values
    )


def test_high_pass_and_window_leave_the_middle_of_the_spectrum(frames):
    """A wave well inside the taper keeps its power."""
    n = 96
    wave = torch.cos(2 * math.pi * 12 / n * torch.arange(n, dtype=torch.float64)).expand(n, n)[None, None]
    still = torch.zeros(1, 2)
    spectra = Evidence().spectra(wave, still)[0, 0]
    transmitted = 1 - math.cos(math.pi * 12 / n) ** 2
    total = (spectra.abs().square() * Aliases.of((n, n)).counts).sum() / transmitted**2
    assert float(total) == pytest.approx(float(wave.square().sum()), rel=0.05)


def test_the_window_moves_with_the_scene():
    """Else frames of the same ground would differ at their borders, and the difference pass for noise."""
    n, d = 64, torch.tensor([[0.3, -0.2], [-0.3, 0.2]])
    x = torch.arange(n, dtype=torch.float64) + 0.5
    wave = [torch.outer(*(torch.cos(2 * math.pi * 9.3 / n * (x - shift)) for shift in pair)) for pair in d.double()]
    aliases = Aliases.of((n, n))
    spectra = Evidence(taper=20).spectra(torch.stack(wave)[:, None], d)[:, 0]
    back = [
        torch.exp(2j * math.pi * (aliases.rows[0][:, None] * dy + aliases.columns[0] * dx)) for dy, dx in d.double()
    ]
    one, other = (y * phase for y, phase in zip(spectra, back, strict=True))
    assert float((one - other).abs().square().sum() / one.abs().square().sum()) < 1e-5


def test_the_information_on_shifts_is_that_of_the_dense_normal_distribution():
    """1/2 tr(C^-1 dC C^-1 dC), dC by differences."""
    f = torch.fft.fftfreq(N * SCALE, 1 / SCALE, dtype=torch.float64)
    fy, fx = (axis.flatten() for axis in torch.meshgrid(f, f, indexing="ij"))
    matrix, prior = observing()

    def covariance(shifts: Tensor) -> Tensor:
        moves = [torch.exp(-2j * math.pi * (fy * dy + fx * dx)) for dy, dx in shifts - SHIFTS]
        moved = matrix * torch.stack(moves).repeat_interleave(N * N, 0)
        return ((moved * prior) @ moved.mH).real + torch.diag(NOISE.square().repeat_interleave(N * N))

    inverse, e = torch.linalg.inv(covariance(SHIFTS)), 1e-4
    slopes = []
    for axis in (0, 1):
        for t in range(3):
            step = torch.zeros_like(SHIFTS)
            step[t, axis] = e
            slopes.append(inverse @ (covariance(SHIFTS + step) - covariance(SHIFTS - step)) / (2 * e))
    expected = torch.tensor([[float((a * b.T).sum()) / 2 for b in slopes] for a in slopes], dtype=torch.float64)
    aliases = Aliases.of((N, N), scale=SCALE)
    given = {"shifts": SHIFTS, "gain": GAIN, "noise": NOISE, "sigma": SIGMA, "width": WIDTH}
    found = shift_information(aliases, **given, power=power(aliases.squared()))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.max()))
    torch.testing.assert_close(
        found @ torch.ones(6, dtype=torch.float64) / found.max(), torch.zeros(6).double(), atol=1e-9, rtol=0
    )
