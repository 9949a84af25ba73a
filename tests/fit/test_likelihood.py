"""The evidence, its gradient and its information against the dense normal distribution."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from s2sr.fit.aliases import Aliases, inverted
from s2sr.fit.likelihood import Frames, Model, negative_log_evidence, shift_information

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


def moments(scale: int, shifts=SHIFTS, gain=GAIN, noise=NOISE, sigma=SIGMA, level=WIDTH) -> Model:
    aliases = Aliases.of((N, N), scale=scale)
    amplitude = aliases.transfer(sigma[None], WIDTH[None]) * (level * power(aliases.squared())).sqrt()[:, None]
    noise = noise.square()[:, None]
    return Model(aliases, shifts, gain[:, None], noise, torch.zeros_like(noise), amplitude)


def evidence(frames: Tensor, scale: int, *parameters: Tensor, clear: float = 1.0) -> Tensor:
    model = moments(scale, *parameters)
    return negative_log_evidence(as_seen(frames, model, clear), model)


def as_seen(frames: Tensor, model: Model, clear: float = 1.0) -> Frames:
    spectra = torch.fft.rfft2(frames, norm="ortho")[:, None]
    return Frames(spectra, model.aliases.counts.expand(N, -1), torch.full_like(model.gain, clear))


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


@pytest.mark.parametrize("scale", [2, 3])
def test_the_gradient_is_that_of_the_value(frames, scale):
    parameters = (SHIFTS, GAIN, NOISE, SIGMA, WIDTH)
    given = tuple(p.clone().requires_grad_() for p in parameters)
    assert torch.autograd.gradcheck(
        lambda *p: evidence(frames, scale, *p, clear=0.8), given, eps=3e-6, rtol=1e-4, atol=1e-3
    )


def test_the_gradient_along_change_that_has_the_spectrum_of_the_scene(frames):
    model = moments(2)
    seen = as_seen(frames, model, 0.9)
    given = torch.tensor([1e-3, 0.2, 0.03], dtype=torch.float64)[:, None].requires_grad_()
    level = WIDTH.clone().requires_grad_()

    def value(change: Tensor, level: Tensor) -> Tensor:
        return negative_log_evidence(seen, replace(moments(2, level=level), change=change))

    assert torch.autograd.gradcheck(value, (given, level), eps=1e-6, rtol=1e-4, atol=3e-4)


def test_a_few_rows_of_frequencies_at_a_time(frames, monkeypatch):
    parameters = [p.clone().requires_grad_() for p in (SHIFTS, GAIN, NOISE, SIGMA, WIDTH)]

    def value_and_slopes() -> list[Tensor]:
        value = evidence(frames, 2, *parameters, clear=0.8)
        return [value.detach(), *torch.autograd.grad(value, parameters)]

    whole = value_and_slopes()
    innovation = moments(2).innovation(torch.float64)(as_seen(frames, moments(2)).spectra)
    monkeypatch.setattr("s2sr.fit.likelihood.BLOCK", 2 * 3 * (N // 2 + 1))
    torch.testing.assert_close(value_and_slopes(), whole)
    torch.testing.assert_close(moments(2).innovation(torch.float64)(as_seen(frames, moments(2)).spectra), innovation)


def test_samples_at_their_conditional_mean_count_nothing(dense, frames):
    """Then Y^H C^-1 Y is that of the samples that are there, and (C^-1 Y) is zero where they are not."""
    covariance = dense.covariance_matrix
    there = torch.rand(len(covariance), generator=torch.Generator().manual_seed(3)) > 0.2
    y = frames.flatten().clone()
    inner = torch.linalg.solve(covariance[there][:, there], y[there])
    y[~there] = covariance[~there][:, there] @ inner
    model = moments(SCALE)
    innovation = model.innovation(torch.float64)(torch.fft.rfft2(y.view(-1, 1, N, N), norm="ortho"))
    found = torch.fft.irfft2(innovation, s=(N, N), norm="ortho").flatten()
    torch.testing.assert_close(found[~there], torch.zeros_like(found[~there]), atol=1e-8, rtol=0)
    torch.testing.assert_close(found[there], inner)


def test_the_determinant_is_near_that_of_the_samples_that_are_there(dense, frames):
    """4 nats off where 13 of 108 samples are missing, 25 if all counted."""
    covariance = dense.covariance_matrix
    there = torch.rand(len(covariance), generator=torch.Generator().manual_seed(4)) > 0.1
    zero, n = torch.zeros_like(frames), float(there.sum())
    expected = torch.linalg.slogdet(covariance[there][:, there])[1] / 2 + n / 2 * math.log(2 * math.pi)
    found = evidence(zero, SCALE, clear=n / len(there))
    assert float(found - expected) == pytest.approx(0, abs=5)
    assert abs(float(evidence(zero, SCALE) - expected)) > 20


def test_a_common_shift_changes_nothing(frames):
    moved = SHIFTS + torch.tensor([0.4, -1.3], dtype=torch.float64)
    assert float(evidence(frames, 3, moved)) == pytest.approx(float(evidence(frames, 3)), rel=1e-10)


def test_the_inverse_and_its_volume():
    torch.manual_seed(1)
    a = torch.randn(5, 4, 4, dtype=torch.complex128)
    b = a @ a.mH + torch.eye(4)
    inverse = b.permute(1, 2, 0).clone()
    torch.testing.assert_close(inverted(inverse), torch.linalg.slogdet(b)[1])
    torch.testing.assert_close(inverse.permute(2, 0, 1), torch.linalg.inv(b))


def test_the_aliases_are_the_frequency_and_the_next_ones():
    aliases = Aliases.of((6, 6))
    f = torch.tensor([0, 1, 2, -3, -2, -1]) / 6
    torch.testing.assert_close(
        aliases.rows.float().sort(0).values, torch.stack((f, f - (f >= 0) * 2 + 1)).sort(0).values
    )


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
    found = shift_information(moments(SCALE))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.max()))
    torch.testing.assert_close(
        found @ torch.ones(6, dtype=torch.float64) / found.max(), torch.zeros(6).double(), atol=1e-9, rtol=0
    )
