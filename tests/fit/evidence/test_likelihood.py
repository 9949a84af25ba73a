"""The evidence and its gradient against the dense normal distribution."""

from __future__ import annotations

import math

import pytest
import torch
from dense_frames import CHANGE, GAIN, NOISE, SCALE, SHIFTS, SIGMA, SLOPE, WIDTH, N, distribution, drawn, moments
from torch import Tensor
from torch.distributions import MultivariateNormal

from s2sr.fit.evidence.likelihood import Frames, negative_log_evidence
from s2sr.fit.evidence.spectral_model import Model


@pytest.fixture(scope="module")
def dense() -> MultivariateNormal:
    return distribution()


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return drawn()


def evidence(frames: Tensor, scale: int, *parameters: Tensor, clear: float = 1.0) -> Tensor:
    model = moments(scale, *parameters)
    return negative_log_evidence(as_seen(frames, model, clear), model)


def as_seen(frames: Tensor, model: Model, clear: float = 1.0) -> Frames:
    spectra = torch.fft.rfft2(frames, norm="ortho")[:, None]
    return Frames(spectra, model.aliases.counts.expand(N, -1), torch.full_like(model.gain, clear))


def test_with_all_aliases_it_is_the_dense_normal_distribution(dense, frames):
    expected = -float(dense.log_prob(frames.flatten()))
    assert float(evidence(frames, SCALE)) == pytest.approx(expected, rel=1e-11)


def test_with_change_too(frames):
    expected = -float(distribution(changing=True).log_prob(frames.flatten()))
    found = evidence(frames, SCALE, SHIFTS, GAIN, NOISE, SIGMA, WIDTH, CHANGE)
    assert float(found) == pytest.approx(expected, rel=1e-11)
    assert float(found) != pytest.approx(float(evidence(frames, SCALE)), abs=1)


def test_two_aliases_per_axis_are_enough(dense, frames):
    """The footprint leaves little of the others: .04 nats of 216 samples."""
    expected = -float(dense.log_prob(frames.flatten()))
    assert float(evidence(frames, 2)) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("scale", [2, 3])
def test_the_gradient_is_that_of_the_value(frames, scale):
    parameters = (SHIFTS, GAIN, NOISE, SIGMA, WIDTH, CHANGE, SLOPE)
    given = tuple(p.clone().requires_grad_() for p in parameters)
    assert torch.autograd.gradcheck(
        lambda *p: evidence(frames, scale, *p, clear=0.8), given, eps=3e-6, rtol=1e-4, atol=1e-3
    )


def test_a_few_rows_of_frequencies_at_a_time(frames, monkeypatch):
    parameters = [p.clone().requires_grad_() for p in (SHIFTS, GAIN, NOISE, SIGMA, WIDTH, CHANGE, SLOPE)]

    def value_and_slopes() -> list[Tensor]:
        value = evidence(frames, 2, *parameters, clear=0.8)
        return [value.detach(), *torch.autograd.grad(value, parameters)]

    whole = value_and_slopes()
    monkeypatch.setattr("s2sr.fit.evidence.spectral_model.BLOCK", 2 * 3 * (N // 2 + 1))
    torch.testing.assert_close(value_and_slopes(), whole)


def test_the_determinant_is_near_that_of_the_samples_that_are_there(dense, frames):
    """It is 4 nats off where 13 of 108 samples are missing, and would be 25 nats off if all counted."""
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
