"""The laws of the measurement model. Nothing here imports the operator: the references are written out densely."""

from __future__ import annotations

import math

import pytest
import torch
from small_fields import EXACT, SHIFTS, dense, field_of, range_of
from torch.func import functional_call

from s2sr.model.field import SLACK, SplatField

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


def test_what_has_changed_is_added_to_its_frame_and_belongs_to_no_other_field():
    field = field_of((7, 9), scale=2)
    before = field().detach()
    field.changed.normal_(generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(field().detach(), before + field.changed)
    assert not field.unsolved(2).changed.any()


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


def test_an_unsolved_field_sees_like_the_first_and_only_its_weights_are_free():
    field = field_of(scale=2, learn=True, gain=True, offset=True)
    with torch.no_grad():
        field.radiometry.raw_gain.normal_(1, 0.1, generator=torch.Generator().manual_seed(1))
        field.radiometry.raw_offset.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
        field.log_sigma += 0.1
    other = field.unsolved(4)
    assert not other.weights.any()
    assert other.blocks() == {"weights": [other.weights], "shifts": [], "radiometry": [], "psf": []}
    other.weights.data = field.lattice.refine(field.weights.data, 4)[1]
    torch.testing.assert_close(other(), field(), rtol=0, atol=1e-6)


def test_sigma_counts_pixels_of_the_bands_own_grid():
    field = field_of(sigma=0.4)
    assert field.sigma_by_band() == {"B02": pytest.approx(0.4), "B11": pytest.approx(0.4)}
    assert field.sigma_psf.tolist() == pytest.approx([0.4, 0.8])
