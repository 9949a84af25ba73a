import math
from itertools import pairwise

import numpy as np
import pytest

from s2sr.report.resolution import (
    EDGES,
    KNOWN,
    RINGS,
    Resolution,
    crossing,
    falling,
    ring_correlation,
)


def white(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def ones(n):
    return np.ones(n)


@pytest.mark.parametrize("shape", [(48, 48), (40, 61)])
def test_identical_images_correlate_fully_and_independent_ones_not(shape):
    bands, scale = 30, 2
    a, b = (white(bands, *(scale * n for n in shape), seed=seed) for seed in (1, 2))
    assert ring_correlation(a, 0.3 * a + 2, scale, ones(bands))[:, 1:] == pytest.approx(1)
    assert ring_correlation(a, -a, scale, ones(bands))[:, 1:] == pytest.approx(-1)
    found = ring_correlation(a, b, scale, ones(bands))
    # real parts over as many modes as the ring has per LR pixel, of which the fading leaves (sum w^2)^2 / sum w^4
    inside = [np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) for n in shape]
    fade = [np.sin(np.pi / 2 * np.clip(x / 8, 0, 1)) ** 2 for x in inside]
    left = math.prod(np.sum(w**2) ** 2 / np.sum(w**4) for w in fade)
    expected = 1 / np.sqrt(np.pi * np.diff(EDGES**2) * left)
    known = slice(4, 20)  # rings of more than a hundred modes, inside the images' own Nyquist frequency
    z = found[:, known] / expected[known]
    assert abs(z.mean()) < 4 / math.sqrt(z.size)
    assert z.std() == pytest.approx(1, rel=0.12)  # measured .97 and .98


@pytest.mark.parametrize("shape", [(40, 36), (39, 41)])
def test_rings_are_those_of_the_whole_transform(shape):
    """Every frequency counts once, also those that a real transform leaves out."""
    a, b = white(1, *shape), white(1, *shape) + white(1, *shape, seed=1)
    inside = [np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) for n in shape]
    fade = [np.sin(np.pi / 2 * np.clip(x / 16, 0, 1)) ** 2 for x in inside]
    window = fade[0][:, None] * fade[1]
    X, Y = (np.fft.fft2(window * (z[0] - np.average(z[0], weights=window))) for z in (a, b))
    f = np.hypot(np.fft.fftfreq(shape[0], 1 / 2)[:, None], np.fft.fftfreq(shape[1], 1 / 2))
    of_ring = [(f >= low) & (f < high) for low, high in pairwise(EDGES)]
    one, two, both = ([z[r].real.sum() for r in of_ring] for z in (abs(X) ** 2, abs(Y) ** 2, X * Y.conj()))
    known = np.array(one) > 1e-9  # there is no more in the mean than rounding
    expected = np.array(both)[known] / np.sqrt(np.array(one) * two)[known]
    assert known.sum() > 15
    assert ring_correlation(a, b, 2, ones(1))[0][known] == pytest.approx(expected)


def test_a_low_pass_and_noise_cross_where_they_should():
    sigma, noise, scale, n = 0.4, 0.35, 4, 96
    scene = white(4, n, n)
    f = np.hypot(np.fft.fftfreq(n, 1 / scale)[:, None], np.fft.rfftfreq(n, 1 / scale))
    blurred = np.fft.irfft2(np.fft.rfft2(scene) * np.exp(-2 * (math.pi * sigma * f) ** 2), s=(n, n))
    a, b = (blurred + noise * white(4, n, n, seed=seed) for seed in (1, 2))
    found = ring_correlation(a, b, scale, ones(4)).mean(0)
    # F = G^2 / (G^2 + v) = 1/7 where G^2 = v / 6
    expected = math.sqrt(math.log(6 / noise**2) / (4 * math.pi**2 * sigma**2))
    assert 0.5 < expected < 1
    assert crossing(found * 3.5) == pytest.approx(expected, rel=0.03)
    # and the mean of both correlates with what was blurred by sqrt(2 F / (1 + F))
    truth = ring_correlation((a + b) / 2, scene, scale, ones(4)).mean(0)
    assert truth[:14] == pytest.approx(np.sqrt(2 * found / (1 + found))[:14], abs=0.06)


def test_a_wider_detector_counts_in_its_own_pixels():
    n = 120
    f = np.hypot(np.fft.fftfreq(n, 1 / 4)[:, None], np.fft.rfftfreq(n, 1 / 4))
    a, b = (np.fft.rfft2(white(1, n, n, seed=seed)) for seed in (1, 2))
    alike = np.fft.irfft2(np.where(f < 0.3, a, b), s=(n, n))  # up to .3 cycles per LR pixel
    for width in (1, 2):
        (found,) = ring_correlation(np.fft.irfft2(a, s=(n, n)), alike, 4, width * ones(1))
        assert crossing(found) == pytest.approx(0.3 * width, abs=0.03)
    half = Resolution(("B11",), 2 * ones(1), np.where(RINGS < 0.6, 1, 0)[None].astype(float), np.zeros((1, len(RINGS))))
    assert half.frequencies == pytest.approx([0.3])
    assert half.metrics("frc", 10.0)["frc_resolution_m_B11"] == pytest.approx(10 / 0.6)
    assert set(half.metrics("frc", None)) == {"frc_frequency", "frc_frequency_B11"}


@pytest.mark.parametrize("n", [14, 18])
def test_a_small_image_has_no_lowest_ring(n):
    """Only its mean is in that ring, which is no detail; and missing rings do not pull down the others."""
    a = white(1, 4 * n, 4 * n)
    found = ring_correlation(a, a + 0.1 * white(1, 4 * n, 4 * n, seed=1), 4, ones(1))
    assert np.isnan(found[0, 0])
    assert falling(found[0], np.zeros(len(RINGS)))[1:].min() > 0.97


def test_crossing():
    assert crossing(1.25 - RINGS) == pytest.approx(0.75)
    assert crossing(np.ones(len(RINGS))) == EDGES[-1]
    assert crossing(np.where(RINGS < 0.5, 1, np.nan)) == pytest.approx(0.5)
    uncertain = Resolution(("B02",), ones(1), np.ones((1, len(RINGS))), (RINGS > 0.7)[None] * (KNOWN + 0.01))
    assert uncertain.frequencies == pytest.approx([0.7])
