"""The frames' inverse covariance against the dense normal distribution."""

from __future__ import annotations

import torch
from dense_frames import SCALE, N, covariance, drawn, moments


def test_samples_at_their_conditional_mean_count_nothing():
    """Then Y^H C^-1 Y is that of the samples that are there, and (C^-1 Y) is zero where they are not."""
    dense = covariance()
    there = torch.rand(len(dense), generator=torch.Generator().manual_seed(3)) > 0.2
    y = drawn().flatten()
    inner = torch.linalg.solve(dense[there][:, there], y[there])
    y[~there] = dense[~there][:, there] @ inner
    innovation = moments(SCALE).innovation(torch.float64)(torch.fft.rfft2(y.view(-1, 1, N, N), norm="ortho"))
    found = torch.fft.irfft2(innovation, s=(N, N), norm="ortho").flatten()
    torch.testing.assert_close(found[~there], torch.zeros_like(found[~there]), atol=1e-8, rtol=0)
    torch.testing.assert_close(found[there], inner)


def test_a_few_rows_of_frequencies_at_a_time(monkeypatch):
    spectra = torch.fft.rfft2(drawn(), norm="ortho")[:, None]
    whole = moments(2).innovation(torch.float64)(spectra)
    monkeypatch.setattr("s2sr.fit.evidence.spectral_model.BLOCK", 2 * 3 * (N // 2 + 1))
    torch.testing.assert_close(moments(2).innovation(torch.float64)(spectra), whole)


def test_the_precision_of_an_observation_is_that_of_the_dense_normal_distribution():
    """The mean over its samples is compared."""
    model = moments(SCALE)
    found = (model.precision(model.posterior())[:, 0] * model.aliases.counts).sum((1, 2)) / N**2
    expected = torch.linalg.inv(covariance()).diagonal().view(3, N * N).mean(1)
    torch.testing.assert_close(found, expected)
