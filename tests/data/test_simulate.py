import numpy as np
import pytest
import torch
from scipy.integrate import dblquad

from s2sr.data.simulate import jitter, margin_for, observe, record, simulate_scene
from s2sr.errors import InputError
from s2sr.model.grid import Grid

SHIFTS = np.array([(0.0, 0.0), (0.31, -0.17), (-0.42, 0.05)])


def footprints(n: int, shift: float) -> np.ndarray:
    return np.arange(n) + 0.5 - shift


def wave(shape, margin, scale, frequency, phase):
    """A raster whose pixels are a product of sinusoids at their centres, (row, column) frequencies per LR pixel."""
    centres = [(np.arange((n + 2 * margin) * scale) + 0.5) / scale - margin for n in shape]
    down, across = (np.cos(2 * np.pi * f * u + p) for f, u, p in zip(frequency, centres, phase, strict=True))
    return down[:, None] * across


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("scale", [8, 10, 16])
def test_a_sinusoid_is_attenuated_by_the_closed_transfer_function(scale, width):
    """A sinusoid that is held constant over raster pixels carries sinc(f / scale) as well."""
    shape, margin, sigma, phase = (7, 11), 7, 0.43 * width, (0.4, -1.1)
    for frequency in ((0.05, 0.3), (0.45, 0.2), (0.7, 0.1), (0, 0.9)):
        sharp = wave(shape, margin, scale, frequency, phase)
        seen = observe(sharp[None], scale, shifts=SHIFTS, sigma=[sigma], widths=[width], margin=margin)[:, 0]
        transfer = np.prod(
            [np.sinc(f * width) * np.exp(-2 * (np.pi * sigma * f) ** 2) * np.sinc(f / scale) for f in frequency]
        )
        for t, shift in enumerate(SHIFTS):
            down, across = (
                np.cos(2 * np.pi * f * footprints(n, d) + p)
                for f, n, d, p in zip(frequency, shape, shift, phase, strict=True)
            )
            np.testing.assert_allclose(seen[t], transfer * down[:, None] * across, atol=2e-5)


def test_one_bright_raster_pixel_against_adaptive_quadrature():
    """The sharpest raster there is."""
    scale, margin, sigma, shift = 8, 4, 0.4, SHIFTS[1]
    sharp = np.zeros((1, 11 * scale, 11 * scale))
    sharp[0, 45, 41] = 1
    seen = observe(sharp, scale, shifts=shift[None], sigma=[sigma], widths=[1], margin=margin)[0, 0]
    low = np.array([45, 41]) / scale - margin

    def in_detector(y, x):
        return np.exp(-(y**2 + x**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)

    for i, j in ((1, 1), (0, 1), (2, 0)):
        cy, cx = footprints(3, shift[0])[i], footprints(3, shift[1])[j]
        v, u = low + 0.5 / scale
        # a raster pixel is small against the Gaussian: its own box is the average over its corners and middle (Simpson)
        weights, nodes = np.array([1, 4, 1]) / 6, np.array([-1, 0, 1]) / (2 * scale)
        expected = sum(
            wy * wx * dblquad(in_detector, cx - 0.5 - u - b, cx + 0.5 - u - b, cy - 0.5 - v - a, cy + 0.5 - v - a)[0]
            for wy, a in zip(weights, nodes, strict=True)
            for wx, b in zip(weights, nodes, strict=True)
        )
        assert abs(seen[i, j] - expected / scale**2) < 1e-4 * seen.max()


def test_a_positive_shift_looks_at_smaller_rows_and_columns():
    """A shift of whole pixels moves the picture in the frame to larger rows and columns."""
    sharp = np.random.default_rng(0).uniform(size=(2, 19 * 8, 23 * 8))
    still, moved = observe(sharp, 8, shifts=np.array([(0, 0), (2, 1)]), sigma=[0.4, 0.8], widths=[1, 2], margin=7)
    np.testing.assert_allclose(moved[:, 2:, 1:], still[:, :-2, :-1], atol=1e-12)
    assert abs(moved[:, :-2, :-1] - still[:, 2:, 1:]).max() > 0.01


def test_a_constant_stays_the_constant_up_to_the_border():
    sharp = np.full((2, 17 * 9, 15 * 9), 0.3)
    frames = observe(sharp, 9, shifts=SHIFTS, sigma=[0.4, 0.7], widths=[1, 2], margin=5)
    assert frames.shape == (3, 2, 7, 5)
    np.testing.assert_allclose(frames, 0.3, rtol=1e-12)


def test_too_small_a_margin_is_refused():
    enough = margin_for(shifts=SHIFTS, sigma=[0.4, 0.8], widths=[1, 2])
    assert enough == 5
    assert margin_for(shifts=2.5 * SHIFTS, sigma=[0.4, 0.8], widths=[1, 2]) == enough + 1  # by .63
    with pytest.raises(ValueError, match=f"margin of {enough - 1} LR pixels .* need {enough}"):
        observe(np.ones((2, 160, 160)), 10, shifts=SHIFTS, sigma=[0.4, 0.8], widths=[1, 2], margin=enough - 1)


def test_a_20_m_band_sees_a_box_of_two_pixels():
    """A sinusoid of half a cycle per LR pixel vanishes in a box of 2 and survives in a box of 1."""
    sharp = wave((6, 6), 5, 16, (0.5, 0), (1.4, 0))
    frames = observe(np.stack([sharp, sharp]), 16, shifts=SHIFTS[:1], sigma=[0.3, 0.3], widths=[1, 2], margin=5)
    assert abs(frames[0, 0]).max() > 0.3
    assert abs(frames[0, 1]).max() < 1e-12


def test_jitter_is_centred_and_has_its_width():
    shifts = jitter(400, 0.15, np.random.default_rng(1))
    np.testing.assert_allclose(shifts.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(shifts.std(0), 0.15, rtol=0.1)


def test_gain_offset_and_noise_are_what_they_are_called():
    frames = np.full((2, 1, 60, 60), 0.2)
    gains, offsets = np.array([[1.1], [0.9]]), np.array([[0.0], [0.01]])
    seen = record(frames, noise=0.002, rng=np.random.default_rng(0), gains=gains, offsets=offsets)
    np.testing.assert_allclose(seen.mean((1, 2, 3)), [0.22, 0.19], atol=2e-4)
    np.testing.assert_allclose(seen.std((1, 2, 3)), 0.002, rtol=0.05)


def scene(**changes):
    sharp = np.random.default_rng(3).uniform(0.05, 0.4, (2, 173, 151))
    facts = {"bands": ("B04", "B05"), "shifts": SHIFTS, "sigma_psf": 0.4, "noise": 0.002, "seed": 5}
    return sharp, simulate_scene(sharp, 8, **{**facts, **changes})


def test_a_scene_carries_its_truth_without_the_margin():
    """173 x 151 raster pixels at 8 per LR pixel are 21 x 18 whole ones; 5 of margin on each side."""
    sharp, made = scene()
    assert made.frames.shape == (3, 2, 11, 8)
    assert made.frames.dtype == torch.float32
    assert made.valid.all()
    assert made.truth.scale == 8
    np.testing.assert_allclose(made.truth.reflectance, sharp[:, 40:128, 40:104], rtol=1e-6)
    np.testing.assert_allclose(made.truth.shifts, SHIFTS, rtol=1e-6)
    np.testing.assert_allclose(made.truth.sigma_psf, [0.4, 0.4])


def test_the_seed_decides_the_noise():
    assert torch.equal(scene()[1].frames, scene()[1].frames)
    assert not torch.equal(scene()[1].frames, scene(seed=6)[1].frames)


def test_an_image_that_is_all_margin_or_of_another_grid_is_refused():
    with pytest.raises(InputError, match="all margin"):
        scene(margin=11)
    with pytest.raises(InputError, match=r"\(11, 8\).*\(11, 9\)"):
        scene(grid=Grid(None, (1, 0, 0, 0, -1, 0), (11, 9)))
