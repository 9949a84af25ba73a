"""What a field shows, on any lattice and grid: refined, rendered, and as an independent simulator sees the image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad
from small_fields import SHIFTS, field_of, range_of, smoothed

from s2sr.data import simulate
from s2sr.model.field import SplatField
from s2sr.model.grid import Grid

# --- refinement


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("coarse", "fine"), [(2, 4), (2, 8), (3, 6), (4, 8)])
def test_refinement_preserves_the_observations(coarse, fine, dtype):
    """Relative to the range of the weights, which are white, 9e-9 was measured at most, and 4e-8 in float32."""
    field = field_of((7, 9), scale=coarse, dtype=dtype)
    before, extent = field().detach(), range_of(field.weights)
    field.refine(fine)
    assert field.scale == fine
    assert field.blocks()["weights"] == [field.weights]
    worst = float((field().detach() - before).abs().max()) / extent
    assert worst < 1e-6, worst


@pytest.mark.parametrize(("coarse", "fine"), [(2, 4), (2, 8), (3, 6)])
def test_refinement_preserves_the_image_of_a_smooth_scene(coarse, fine):
    """Relative to its range, 9e-4, 2.9e-3 and 7e-4 were measured: the ripple by which the coarse render divided."""
    field = smoothed(field_of((7, 9), scale=coarse))
    product, extent = field.grid.scaled(12), range_of(field.weights)
    before = field.render(product)
    field.refine(fine)
    worst = float((field.render(product) - before).abs().max()) / extent
    assert worst < 5e-3, worst


def test_refinement_to_its_own_scale_does_nothing_and_to_another_raises():
    field = field_of(scale=4)
    weights = field.weights
    field.refine(4)
    assert field.weights is weights
    for scale in (2, 6):
        with pytest.raises(ValueError, match="not a multiple of 4"):
            field.refine(scale)


# --- rendering


def splat_mean(field: SplatField, b: int, cell: tuple[float, float, float, float]) -> float:
    """The mean of the splat sum over (top, bottom, left, right), in LR pixels, by quadrature."""
    s, sigma, w = field.scale, field.lattice.sigma, field.weights[b].detach().numpy()
    y, x = (field.lattice.centres(axis).numpy() for axis in (0, 1))

    def at(column: float, row: float) -> float:
        down, across = (np.exp(-0.5 * ((p - mu) / sigma) ** 2) for p, mu in ((row, y), (column, x)))
        return down @ w @ across / (2 * math.pi * (sigma * s) ** 2)

    top, bottom, left, right = cell
    return dblquad(at, top, bottom, left, right, epsabs=1e-7)[0] / ((bottom - top) * (right - left))


@pytest.mark.parametrize(("s", "pixel"), [(1, (2, 3)), (3, (7, 4)), (5, (0, 20))])
def test_a_rendered_pixel_is_the_mean_of_the_splat_sum(s, pixel):
    """They agree up to the ripple of the field of ones, 1.6e-3 at most, by which the render divides."""
    field = field_of((5, 6), scale=2)
    row, column = pixel
    cell = (row / s, (row + 1) / s, column / s, (column + 1) / s)
    image = field.render(field.grid.scaled(s))
    ones = field_of((5, 6), scale=2)
    with torch.no_grad():
        ones.weights.fill_(1)
    for b in range(2):
        expected = splat_mean(field, b, cell) / splat_mean(ones, b, cell)
        assert float(image[b, row, column]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("s", [1, 3, 8])
@pytest.mark.parametrize(("row", "column", "shape"), [(0, 0, (7, 9)), (2, 3, (4, 5)), (1, 4, (1, 1))])
def test_a_crop_is_a_window_of_the_whole(s, row, column, shape):
    field = field_of((7, 9), scale=2)
    whole = field.render(field.grid.scaled(s))
    part = field.render(field.grid.crop(row, column, shape).scaled(s))
    window = whole[:, s * row : s * (row + shape[0]), s * column : s * (column + shape[1])]
    torch.testing.assert_close(part, window, rtol=0, atol=1e-12)


def test_a_large_product_is_the_sum_of_its_windows():
    """It has more rows and columns than are evaluated at a time."""
    field = field_of((17, 19), scale=2)
    whole = field.render(field.grid.scaled(8))
    part = field.render(field.grid.crop(9, 10, (3, 4)).scaled(8))
    torch.testing.assert_close(part, whole[:, 72:96, 80:112], rtol=0, atol=1e-12)


def test_a_coarse_product_is_the_mean_of_a_fine_one():
    """They agree up to the ripple by which each is divided; 2.5e-4 of the range was measured."""
    field = field_of((6, 9), scale=2)
    coarse = field.render(field.grid.scaled(3))
    fine = torch.nn.functional.avg_pool2d(field.render(field.grid.scaled(12)), 4)
    assert float((coarse - fine).abs().max()) / range_of(field.weights) < 1e-3


def test_default_is_the_resolution_of_the_lattice():
    field = field_of((5, 6), scale=3)
    assert torch.equal(field.render(), field.render(field.grid.scaled(3)))


def test_north_up_and_mirrored_products_agree():
    field = field_of((5, 6))
    a, _, c, _, e, f = field.grid.scaled(3).transform
    upwards = Grid(field.grid.crs, (a, 0, c, 0, -e, f + 15 * e), (15, 18))
    leftwards = Grid(field.grid.crs, (-a, 0, c + 18 * a, 0, e, f), (15, 18))
    image = field.render(field.grid.scaled(3))
    torch.testing.assert_close(field.render(upwards), image.flip(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(field.render(leftwards), image.flip(2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("away", [-40, 40, 100, 1000])
def test_far_outside_there_is_nothing(away):
    field = field_of((5, 6))
    for row, column in ((away, 0), (0, away), (away, away)):
        assert field.render(field.grid.crop(row, column, (3, 4)).scaled(2)).isnan().all()


def test_a_product_that_reaches_far_outside_has_its_inside():
    field = field_of((5, 6))
    wide = field.render(field.grid.crop(-150, -150, (305, 306)))
    torch.testing.assert_close(wide[:, 150:155, 150:156], field.render(field.grid), rtol=0, atol=1e-12)
    assert wide[:, :100].isnan().all()
    assert wide[:, :, 210:].isnan().all()


def test_a_grid_elsewhere_raises():
    field = field_of((5, 6))
    with pytest.raises(ValueError, match="different CRS"):
        field.render(Grid("EPSG:3035", field.grid.transform, (5, 6)))
    with pytest.raises(ValueError, match="rotated"):
        field.render(Grid(field.grid.crs, (7, 7, 500_000, 7, -7, 5_600_000), (5, 6)))


# --- the independent simulator


def test_the_simulator_agrees():
    """The field is rendered at 32 pixels per LR pixel, and this raster observed without a splat or an erf.

    Relative to the range of the frames, 1.5e-4 was measured: the ripple by which the render divides.
    """
    shifts = np.array(SHIFTS) - np.mean(SHIFTS, 0)
    field = smoothed(field_of((6, 9), shifts=shifts), cycles=0.8)
    widths, sigma = field.widths.numpy(), field.sigma_psf.detach().numpy()
    margin = simulate.margin_for(shifts=shifts, sigma=sigma, widths=widths)
    raster = field.render(field.grid.crop(-margin, -margin, (6 + 2 * margin, 9 + 2 * margin)).scaled(32))
    frames = simulate.observe(raster.numpy(), 32, shifts=shifts, sigma=sigma, widths=widths, margin=margin)
    with torch.no_grad():
        mine = field().numpy()
    worst = np.abs(mine - frames).max() / np.ptp(frames)
    assert worst < 5e-4, worst
