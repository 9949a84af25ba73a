import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.special import erf
from skimage.metrics import peak_signal_noise_ratio

from s2sr.report.metrics import SHARPNESS, area_average, bicubic, fidelity, percentile, sharpness, shift_rmse

WIDTH = 32  # LR pixels


def edge(scale, sigma, *, angle=0.0, height=16):
    """[1, y, x] exact pixel means (along x) of the unit edge Phi(distance / sigma), at `scale` pixels per LR pixel."""
    x = np.arange(WIDTH * scale + 1) / scale - WIDTH / 2 - 0.13
    y = (np.arange(height * scale) + 0.5) / scale - height / 2
    cosine, sine = math.cos(angle), math.sin(angle)
    z = (x * cosine + y[:, None] * sine) / sigma
    integral = sigma / cosine * (z * (1 + erf(z / math.sqrt(2))) / 2 + np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))
    return np.diff(integral, axis=1)[None] * scale


def closed_form(sigma):
    """The scores of an unslanted edge in `WIDTH` LR pixels: its gradient is a Gaussian of variance sigma^2 + 1/12."""
    variance = sigma**2 + 1 / 12
    distance = 0.01 * WIDTH / 2  # one per cent of the pixels are nearer to the edge
    return {
        "edge_contrast": math.exp(-(distance**2) / 2 / variance) / math.sqrt(2 * math.pi * variance),
        "laplacian_var": 1 / (4 * math.sqrt(math.pi) * variance**1.5 * WIDTH),
        "gradient_energy": 1 / (2 * math.sqrt(math.pi) * variance**0.5 * WIDTH),
    }


@pytest.mark.parametrize("scale", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("sigma", [0.3, 0.45, 0.7])
def test_sharpness_of_an_edge_is_the_closed_form_at_every_scale(scale, sigma):
    found, expected = sharpness(edge(scale, sigma), scale), closed_form(sigma)
    # measured: at most 2.5 % for the percentile, which has a few columns to choose from, and 0.7 % for the integrals
    assert found["edge_contrast"] == pytest.approx(expected["edge_contrast"], rel=0.03)
    assert found["laplacian_var"] == pytest.approx(expected["laplacian_var"], rel=0.01)
    assert found["gradient_energy"] == pytest.approx(expected["gradient_energy"], rel=0.01)


def test_sharpness_rises_with_sharpness_and_not_with_direction():
    for name in SHARPNESS:
        scores = [sharpness(edge(4, sigma, angle=0.3), 4)[name] for sigma in (1.0, 0.7, 0.5, 0.35, 0.25)]
        assert scores == sorted(scores)
        assert scores[-1] > 1.5 * scores[0]
    slanted, straight = (sharpness(edge(8, 0.5, angle=angle), 8)["edge_contrast"] for angle in (0.3, 0.0))
    assert slanted == pytest.approx(straight, rel=0.03)


def test_sharpness_ignores_gain_offset_and_transposition():
    image = np.random.default_rng(0).random((2, 40, 52))
    expected = sharpness(image, 4)
    for other in (0.02 * image + 0.3, -image, image.transpose(0, 2, 1), torch.from_numpy(image)):
        assert sharpness(other, 4) == pytest.approx(expected, rel=1e-3)
    bands = [sharpness(image[b : b + 1], 4)["laplacian_var"] for b in range(2)]
    assert expected["laplacian_var"] == pytest.approx(np.mean(bands))


def test_sharpness_does_not_see_invalid_pixels():
    image = edge(4, 0.5)
    valid = np.ones(image.shape[1:], dtype=bool)
    valid[20:28, 100:110] = False
    hole = np.where(valid, image, 50.0)
    assert sharpness(hole, 4)["gradient_energy"] > 3 * closed_form(0.5)["gradient_energy"]
    masked = sharpness(np.where(valid, image, np.nan), 4)
    # the scores are means over the pixels left, of which fewer are flat
    assert masked["edge_contrast"] == pytest.approx(closed_form(0.5)["edge_contrast"], rel=0.05)
    assert masked["gradient_energy"] == pytest.approx(closed_form(0.5)["gradient_energy"], rel=0.15)


def test_sharpness_of_a_constant_or_of_nothing_is_unknown():
    assert all(math.isnan(value) for value in sharpness(np.full((1, 16, 16), 0.1), 2).values())
    assert all(math.isnan(value) for value in sharpness(np.full((1, 16, 16), np.nan), 2).values())


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (40, 50)])
def test_percentile_is_that_of_numpy(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for percent in (0, 0.5, 50, 99, 100):
        assert percentile(values, percent) == pytest.approx(np.percentile(values, percent), rel=1e-6)


@pytest.mark.parametrize("scale", [1, 2, 3, 8])
def test_bicubic_keeps_a_ramp_where_it_is(scale):
    y, x = torch.meshgrid(torch.arange(12) + 0.5, torch.arange(15) + 0.5, indexing="ij")
    fine_y, fine_x = ((torch.arange(n * scale) + 0.5) / scale for n in (12, 15))
    expected = 2 * fine_y[:, None] + 3 * fine_x
    found = bicubic((2 * y + 3 * x)[None], scale)[0]
    inside = (slice(3 * scale, -3 * scale),) * 2
    torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=1e-4)


def test_area_average_of_whole_blocks_is_their_mean_and_all_ratios_preserve_the_flux():
    image = np.random.default_rng(0).random((2, 30, 50))
    np.testing.assert_allclose(area_average(image, 10, 2), image.reshape(2, 6, 5, 10, 5).mean((2, 4)), rtol=1e-12)
    for to in (1, 3, 4, 7, 10, 20):
        assert area_average(image, 10, to).mean() == pytest.approx(image.mean(), rel=1e-12)


def test_area_average_splits_pixels_and_shifts_exactly():
    ramp = (np.arange(30) + 0.5)[None, None] / 10 * np.ones((1, 20, 1))
    fine = (np.arange(12) + 0.5) / 4
    # 2.5 pixels each: the mean of a staircase over its ramp is off by at most 1/8 of a step of 1/10
    np.testing.assert_allclose(area_average(ramp, 10, 4)[0, 0], fine, atol=0.0126)
    coarse = np.arange(3) + 0.5
    np.testing.assert_allclose(area_average(ramp, 10, 1, (0, 0.2))[0, 0, 1:], coarse[1:] - 0.2, rtol=1e-12)
    np.testing.assert_allclose(area_average(ramp, 10, 1, (0.7, -0.2))[0, 0, :-1], coarse[:-1] + 0.2, rtol=1e-12)


@pytest.fixture(scope="module")
def truth():
    """[2, 480, 560] at 16 pixels per LR pixel: 30 x 35 LR pixels of smooth texture."""
    noise = np.random.default_rng(1).normal(size=(2, 480, 560))
    return ndimage.gaussian_filter(noise, (0, 6, 6)) + 0.2


def test_fidelity_is_the_rule(truth):
    image = area_average(truth, 16, 4) + np.random.default_rng(2).normal(0, 1e-3, (2, 120, 140))
    found = fidelity(0.3 * image - 5, truth, scale=4, truth_scale=16)
    inside = (slice(24, -24), slice(24, -24))
    psnr = []
    for x, y in zip(image, area_average(truth, 16, 4), strict=True):
        x, y = x[inside], y[inside]
        a, b = np.polyfit(x.ravel(), y.ravel(), 1)
        limits = np.percentile(y, [0.5, 99.5])
        psnr.append(peak_signal_noise_ratio(y, a * x + b, data_range=limits[1] - limits[0]))
    assert found["psnr"] == pytest.approx(np.mean(psnr), abs=1e-6)
    assert 0.9 < found["ssim"] < 1


def test_fidelity_of_the_truth_is_perfect_at_any_scale(truth):
    for scale in (2, 3, 4, 8):
        assert fidelity(area_average(truth, 16, scale), truth, scale=scale, truth_scale=16)["ssim"] > 1 - 1e-9
    damaged = area_average(truth, 16, 4)
    damaged[:, :24] = damaged[:, -24:] = damaged[:, :, :24] = damaged[:, :, -24:] = 7.0  # the border does not count
    assert fidelity(damaged, truth, scale=4, truth_scale=16)["psnr"] > 200


def test_fidelity_compares_finer_images_at_4x(truth):
    detail = np.indices((480, 560)).sum(0) % 2 * 0.05  # gone in the mean over 4 x 4 pixels
    assert fidelity(truth + detail, truth, scale=16, truth_scale=16)["psnr"] > 200


def test_fidelity_shift_is_true_minus_estimated(truth):
    """Pixel i of observation t is centred at i + 1/2 - d[t] of the field it shows."""
    true = np.array([[0.30, -0.10], [-0.05, 0.45], [0.20, 0.15]])
    estimated = true - true.mean(0)  # the zero-mean gauge

    def observe(field, shift):  # field(y, x) on LR coordinates -> [y, x] LR samples
        y, x = np.arange(10, 20) + 0.5, np.arange(10, 25) + 0.5
        return field(y[:, None] - shift[0], x - shift[1])

    def pattern(y, x):
        return np.sin(1.1 * y + 0.4 * x) + np.cos(0.5 * y - 1.3 * x)

    def product(y, x):
        return pattern(y - shift[0], x - shift[1])

    shift = (true - estimated).mean(0)
    for d_true, d_estimated in zip(true, estimated, strict=True):
        np.testing.assert_allclose(observe(pattern, d_true), observe(product, d_estimated), atol=1e-12)

    def raster(field, scale):
        y, x = ((np.arange(n * scale) + 0.5) / scale for n in (30, 35))
        return field(y[:, None], x)[None]

    image, fine = raster(product, 4), raster(pattern, 16)
    scores = {
        sign: fidelity(image, fine, scale=4, truth_scale=16, shift=tuple(sign * shift))["psnr"] for sign in (1, 0, -1)
    }
    assert scores[1] > 55
    assert scores[1] > scores[0] + 20 > scores[-1] + 20


def test_fidelity_of_a_scene_that_is_all_border_is_unknown(truth):
    small = truth[:, : 13 * 16, : 13 * 16]
    assert all(math.isnan(v) for v in fidelity(small[:, ::4, ::4], small, scale=4, truth_scale=16).values())


def test_fidelity_refuses_another_footprint(truth):
    with pytest.raises(ValueError, match="differ"):
        fidelity(truth[:, :240, :240], truth, scale=8, truth_scale=16)


def test_shift_rmse_leaves_the_gauge_out():
    true = np.array([[0.1, 0.2], [0.3, -0.4], [-0.2, 0.0]])
    assert shift_rmse(torch.tensor(true + np.array([5.0, -3.0])), true) == pytest.approx(0, abs=1e-12)
    assert shift_rmse(true + np.array([[0.3, 0], [0, 0], [-0.3, 0]]), true) == pytest.approx(math.sqrt(0.18 / 6))
