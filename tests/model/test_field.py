"""The laws of the measurement model. Nothing here imports the operator: the references are written out densely."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad
from torch import Tensor
from torch.func import functional_call

from s2sr.data import simulate
from s2sr.model.field import SLACK, SplatField
from s2sr.model.footprint import pixel_integral
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF

MIXED = ("B02", "B11")  # 10 and 20 m
SHIFTS = ((0.31, -0.17), (-0.42, 0.05), (0.11, 0.12))
EXACT = {torch.float32: 2e-6, torch.float64: 1e-13}  # relative


def grid(rows: int, columns: int) -> Grid:
    return Grid("EPSG:32631", (10, 0, 500_000, 0, -10, 5_600_000), (rows, columns))


def field_of(
    shape: tuple[int, int] = (7, 9),
    *,
    bands: tuple[str, ...] = MIXED,
    scale: int = 2,
    shifts: object = SHIFTS,
    sigma: float = 0.4,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    **options: bool,
) -> SplatField:
    """A field of white noise: the hardest for every law."""
    psf = PSF(sigma, learn=options.pop("learn", False))
    shifts = torch.as_tensor(shifts, dtype=dtype).view(-1, 2)
    field = SplatField(grid(*shape), bands, scale=scale, psf=psf, shifts=shifts, dtype=dtype, **options)
    with torch.no_grad():
        field.weights.normal_(generator=torch.Generator().manual_seed(seed))
    return field


def smoothed(field: SplatField, cycles: float = 0.35) -> SplatField:
    """The field with weights that hold a few sinusoids of up to `cycles` per LR pixel, 0.1 to 0.5."""
    rng = np.random.default_rng(1)
    y, x = (field.lattice.centres(axis) for axis in (0, 1))
    with torch.no_grad():
        for w in field.weights:
            waves = [
                torch.cos(2 * math.pi * (f * y[:, None] + g * x) + p)
                for f, g, p in zip(*rng.uniform(-cycles, cycles, (2, 8)), rng.uniform(0, 6, 8), strict=True)
            ]
            w.copy_(0.3 + 0.2 * torch.stack(waves).mean(0))
    return field


def range_of(w: Tensor) -> float:
    return float((w.max() - w.min()).detach())


def dense(field: SplatField) -> Tensor:
    """The frames by A_y @ W @ A_x.T, A from the formula over all splats: not truncated, not normalised, no margin."""
    s, frames = field.scale, []
    for b, w in enumerate(field.weights):
        width = field.widths[b]
        sigma = torch.hypot(width * field.log_sigma[b].exp(), torch.tensor(0.6 / s, dtype=w.dtype))
        sides = []
        for axis, n in enumerate(field.grid.shape):
            pixels = torch.arange(n, dtype=w.dtype) + 0.5
            u = pixels[:, None] - field.shifts[:, axis, None, None] - field.lattice.centres(axis).to(w)
            sides.append(pixel_integral(u, width, sigma) / s)  # [t, n, k]
        frames.append(sides[0] @ w @ sides[1].mT)
    return field.radiometry(torch.stack(frames, 1))


# --- flux


def assert_constant(field: SplatField) -> None:
    """A constant observes, and renders on any grid, as the constant."""
    with torch.no_grad():
        field.weights.fill_(0.3)
        frames = field()
    tolerance = {"rtol": EXACT[frames.dtype], "atol": 0}
    torch.testing.assert_close(frames, torch.full_like(frames, 0.3), **tolerance)
    for product in (None, field.grid.crop(2, 1, (3, 4)).scaled(3), field.grid.scaled(5)):
        image = field.render(product)
        torch.testing.assert_close(image, torch.full_like(image, 0.3), **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1, 2, 3, 8])
@pytest.mark.parametrize("shape", [(7, 9), (5, 33)])
def test_flux(shape, scale, dtype):
    assert_constant(field_of(shape, scale=scale, dtype=dtype, bands=("B02", "B11", "B01")))
    assert_constant(field_of(shape, scale=scale, dtype=dtype, shifts=[(3, -2.6), (-3, 2.6)]))


# --- the forward operator


@pytest.mark.parametrize(
    ("shape", "scale", "shifts"),
    [
        ((1, 7), 2, [(0.0, 0.0)]),
        ((7, 17), 3, [(0.4, -0.2), (-0.4, 0.2)]),
        ((17, 33), 1, SHIFTS),
        ((33, 1), 8, [(0.1, 0.3), (0.2, -0.2), (-0.5, 0.0), (0.2, -0.1)]),
        ((5, 6), 2, [(3, -2.6), (-3, 2.6), (0.1, 0.0), (0.2, 0.3), (-0.3, -0.3)]),
    ],
)
def test_frames_and_gradients_against_the_dense_reference(shape, scale, shifts):
    field = field_of(shape, scale=scale, shifts=shifts, learn=True, gain=True, offset=True)
    with torch.no_grad():
        field.radiometry.raw_gain.normal_(1, 0.1, generator=torch.Generator().manual_seed(1))
        field.radiometry.raw_offset.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
    mine, reference = field(), dense(field)
    torch.testing.assert_close(mine, reference, rtol=0, atol=1e-12)
    pull = torch.randn(mine.shape, dtype=mine.dtype, generator=torch.Generator().manual_seed(3))
    parameters = dict(field.named_parameters())
    for name, got, expected in zip(
        parameters,
        torch.autograd.grad(mine, list(parameters.values()), pull),
        torch.autograd.grad(reference, list(parameters.values()), pull),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


def test_float32_is_as_good_as_its_digits():
    """Measured 9e-7 of the weights' range: the five standard deviations at which a kernel is cut."""
    single = field_of((17, 33), scale=8, dtype=torch.float32)
    double = field_of((17, 33), scale=8)
    with torch.no_grad():
        w = single.weights.double()
        m = double.lattice.margin - single.lattice.margin
        double.weights.zero_()
        double.weights[:, 8 * m : 8 * m + w.shape[1], 8 * m : 8 * m + w.shape[2]] = w
        double.log_sigma.copy_(single.log_sigma)
        double.raw_shifts.copy_(single.raw_shifts)
        worst = float((single().double() - dense(double)).abs().max()) / range_of(w)
    assert worst < 2e-6, worst


def test_gradcheck():
    field = field_of((2, 3), scale=1, shifts=[(0.2, 0.1), (-0.2, -0.1)], learn=True, gain=True, offset=True)
    names = [name for name, _ in field.named_parameters()]

    def frames(*values):
        return functional_call(field, dict(zip(names, values, strict=True)), ())

    assert torch.autograd.gradcheck(frames, tuple(field.parameters()), fast_mode=True)


def test_forward_is_linear_in_the_weights_and_its_gradient_the_adjoint():
    field, other = field_of((7, 17), seed=1), field_of((7, 17), seed=2)
    frames = field()
    y = torch.randn(frames.shape, dtype=frames.dtype, generator=torch.Generator().manual_seed(3))
    (back,) = torch.autograd.grad(frames, field.weights, y)
    with torch.no_grad():
        left, right = float((other() * y).sum()), float((other.weights * back).sum())
    assert left == pytest.approx(right, rel=1e-12), f"<A x, y> = {left!r} but <x, A' y> = {right!r}"


@pytest.mark.parametrize(("rows", "columns"), [(1, 0), (0, 1), (2, 3)])
def test_weights_moved_by_whole_pixels_move_the_frames(rows, columns):
    field = field_of((9, 11), scale=3)
    before = field()
    with torch.no_grad():
        field.weights.copy_(field.weights.roll((3 * rows, 3 * columns), (1, 2)))
    after = field()[..., rows:, columns:]
    torch.testing.assert_close(after, before[..., : 9 - rows, : 11 - columns], rtol=0, atol=1e-13)


def test_a_positive_shift_moves_the_content_to_larger_rows_and_columns():
    """One splat, found again by its centre of gravity; a detector's box moves that by less than 0.01."""
    field = field_of((21, 23), shifts=[(0.4, -0.3), (-0.4, 0.3)], bands=("B02",))
    with torch.no_grad():
        field.weights.zero_()
        m = field.lattice.margin
        field.weights[0, 2 * (m + 9), 2 * (m + 12)] = 1
        frames = field()[:, 0]
    y, x = torch.arange(21) + 0.5, torch.arange(23) + 0.5
    for frame, (dy, dx) in zip(frames, [(0.4, -0.3), (-0.4, 0.3)], strict=True):
        centre = (frame.sum(1) @ y.double() / frame.sum(), frame.sum(0) @ x.double() / frame.sum())
        assert [float(c) for c in centre] == pytest.approx([9.25 + dy, 12.25 + dx], abs=0.01)


def test_the_shifts_have_zero_mean_whatever_the_raw_values():
    field = field_of(shifts=[(5, 1), (6, 2), (5.5, -3)])
    torch.testing.assert_close(field.shifts.mean(0), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(field.shifts[1] - field.shifts[0], torch.tensor([1.0, 1.0], dtype=torch.float64))


# --- margin


@pytest.mark.parametrize("largest", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("scale", [1, 4])
def test_no_footprint_leaves_the_lattice(scale, largest):
    """Up to the largest initial shift and the slack, the splats of the lattice see all of every footprint."""
    field = field_of((3, 5), scale=scale, shifts=[(largest, -largest), (-largest, largest)])
    far = largest + SLACK
    with torch.no_grad():
        field.raw_shifts.copy_(torch.tensor([(far, far), (-far, -far)], dtype=torch.float64))
        field.weights.fill_(1)
        torch.testing.assert_close(dense(field), torch.ones(2, 2, 3, 5, dtype=torch.float64), rtol=0, atol=1e-13)
        field.weights.normal_()
        torch.testing.assert_close(field(), dense(field), rtol=0, atol=1e-12)


def test_a_trial_step_far_away_stays_finite():
    field = field_of(learn=True)
    with torch.no_grad():
        field.raw_shifts[0] = torch.tensor([1e6, -1e9])
        field.log_sigma += 4
    frames = field()
    frames.square().sum().backward()
    assert frames.isfinite().all()
    assert all(p.grad.isfinite().all() for block in field.blocks().values() for p in block)


@pytest.mark.parametrize(
    ("name", "value"), [("raw_shifts", math.nan), ("raw_shifts", math.inf), ("log_sigma", math.nan)]
)
def test_a_trial_step_that_is_not_finite_gives_frames_that_say_so(name, value):
    """Rather than an error: the line search goes on from there."""
    field = field_of(learn=True)
    with torch.no_grad():
        field.get_parameter(name)[0] = value
        frames = field()
    assert frames.shape == (3, 2, 7, 9)
    assert frames.isnan().any()


def test_sigma_stays_within_a_factor_of_four_of_its_start():
    field = field_of(learn=True)
    start = field.sigma_psf.detach().clone()
    with torch.no_grad():
        field.log_sigma.fill_(math.inf)
    torch.testing.assert_close(field.sigma_psf / start, torch.full_like(start, math.exp(1.4)))
    assert field().isfinite().all()


def test_a_narrow_psf_stays_finite():
    field = field_of(learn=True)
    with torch.no_grad():
        field.log_sigma -= 50
    frames = field()
    frames.square().sum().backward()
    assert frames.isfinite().all()
    assert field.log_sigma.grad.isfinite().all()


# --- refinement


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("coarse", "fine"), [(2, 4), (2, 8), (3, 6), (4, 8)])
def test_refinement_preserves_the_observations(coarse, fine, dtype):
    """Relative to the range of the weights, white as they are. Measured 9e-9 at most, in float32 4e-8."""
    field = field_of((7, 9), scale=coarse, dtype=dtype)
    before, extent = field().detach(), range_of(field.weights)
    field.refine(fine)
    assert field.scale == fine
    assert field.blocks()["weights"] == [field.weights]
    worst = float((field().detach() - before).abs().max()) / extent
    assert worst < 1e-6, worst


@pytest.mark.parametrize(("coarse", "fine"), [(2, 4), (2, 8), (3, 6)])
def test_refinement_preserves_the_image_of_a_smooth_scene(coarse, fine):
    """Relative to its range: measured 9e-4, 2.9e-3, 7e-4. It is the ripple that the coarse render divided by."""
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
    """Quadrature of the splat sum over (top, bottom, left, right), LR pixels."""
    s, sigma, w = field.scale, field.lattice.sigma, field.weights[b].detach().numpy()
    y, x = (field.lattice.centres(axis).numpy() for axis in (0, 1))

    def at(column: float, row: float) -> float:
        down, across = (np.exp(-0.5 * ((p - mu) / sigma) ** 2) for p, mu in ((row, y), (column, x)))
        return down @ w @ across / (2 * math.pi * (sigma * s) ** 2)

    top, bottom, left, right = cell
    return dblquad(at, top, bottom, left, right, epsabs=1e-7)[0] / ((bottom - top) * (right - left))


@pytest.mark.parametrize(("s", "pixel"), [(1, (2, 3)), (3, (7, 4)), (5, (0, 20))])
def test_a_rendered_pixel_is_the_mean_of_the_splat_sum(s, pixel):
    """Up to the ripple of the field of ones, 1.6e-3 at most, by which the render divides."""
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
    """More rows and columns than are evaluated at a time."""
    field = field_of((17, 19), scale=2)
    whole = field.render(field.grid.scaled(8))
    part = field.render(field.grid.crop(9, 10, (3, 4)).scaled(8))
    torch.testing.assert_close(part, whole[:, 72:96, 80:112], rtol=0, atol=1e-12)


def test_a_coarse_product_is_the_mean_of_a_fine_one():
    """Up to the ripple by which each is divided: measured 2.5e-4 of the range."""
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
    """The rendered field, on a raster of 32 pixels per LR pixel, observed without a splat or an erf.

    Relative to the range of the frames, measured 1.5e-4: the ripple by which the render divides.
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


# --- what is fitted


def test_initialise_continues_the_image_over_the_margin():
    field = field_of((5, 6), scale=4)
    y, x = torch.arange(5, dtype=torch.float64)[:, None], torch.arange(6, dtype=torch.float64)
    field.initialise(torch.stack([0.1 + 0.02 * y + 0.03 * x, torch.full((5, 6), 0.4, dtype=torch.float64)]))
    m = field.lattice.margin
    rows, columns = field.lattice.centres(0), field.lattice.centres(1)
    ramp = 0.1 + 0.02 * (rows[:, None] - 0.5) + 0.03 * (columns - 0.5)
    inside = (slice(4 * (m + 2), -4 * (m + 2)),) * 2
    tilted, flat = field.weights.detach()
    assert float((tilted - ramp)[inside].abs().max()) < 0.0025, "bicubic with a = -3/4 bends a ramp by 7 % of a step"
    torch.testing.assert_close(flat, torch.full_like(flat, 0.4), rtol=0, atol=1e-12)
    assert float(tilted[0, 0]) == pytest.approx(0.1, abs=1e-12)


@pytest.mark.parametrize("learn", [True, False])
@pytest.mark.parametrize(("gain", "offset"), [(True, False), (False, True), (False, False)])
def test_blocks_hold_what_is_free(learn, gain, offset):
    field = field_of(learn=learn, gain=gain, offset=offset)
    radiometry = [field.radiometry.raw_gain] * gain + [field.radiometry.raw_offset] * offset
    blocks = {name: [id(p) for p in block] for name, block in field.blocks().items()}
    assert blocks == {
        "weights": [id(field.weights)],
        "shifts": [id(field.raw_shifts)],
        "radiometry": [id(p) for p in radiometry],
        "psf": [id(field.log_sigma)] * learn,
    }


def test_sigma_counts_pixels_of_the_bands_own_grid():
    field = field_of(sigma=0.4)
    assert field.sigma_by_band() == {"B02": pytest.approx(0.4), "B11": pytest.approx(0.4)}
    assert field.sigma_psf.tolist() == pytest.approx([0.4, 0.8])
