import math

import pytest
import torch
from small_images import normal
from torch import Tensor

from s2sr.fit import losses
from s2sr.fit.losses import Huber, Misfit, Quadratic, mean_gradient, total_variation
from s2sr.model.lattice import Lattice

DELTA = 0.1


# --- misfit


@pytest.mark.parametrize("misfit", [Quadratic(), Huber(), Huber(0.7)])
def test_gradcheck_of_the_misfits(misfit):
    assert torch.autograd.gradcheck(misfit, (3 * normal(2, 3, 4).requires_grad_(),))


@pytest.mark.parametrize("block", [1, 60, 10**6])
@pytest.mark.parametrize("rho", [Quadratic(), Huber(0.7)])
def test_the_misfit_of_frames_is_that_of_their_standardised_residual(rho, block, monkeypatch):
    monkeypatch.setattr(losses, "BLOCK", block)
    seen, beside, observed = (normal(3, 2, 4, 5, seed=k) for k in (0, 1, 2))
    gain, offset, noise = (normal(3, 2, seed=k) for k in (3, 4, 5))
    valid, noise, excess = normal(3, 2, 4, 5, seed=6) > -0.5, noise.exp(), normal(3, 2, 4, 5).exp() + 1
    moving = [x.requires_grad_() for x in (seen, gain, offset)]
    arguments = (beside, observed, valid, noise, excess, rho)
    predicted = gain[..., None, None] * seen + offset[..., None, None] + beside
    z = (predicted - observed) / (noise[..., None, None] * excess.sqrt())
    expected = float(rho(z[valid]).detach())
    assert float(Misfit.apply(*moving, *arguments).detach()) == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda *p: Misfit.apply(*p, *arguments), moving)


def test_huber_is_quadratic_below_its_threshold():
    z = normal(500).clamp(-2.9, 2.9)
    torch.testing.assert_close(Huber(3.0)(z), Quadratic()(z), rtol=1e-14, atol=0)


def test_huber_is_linear_above_its_threshold():
    value = lambda z: float(Huber(3.0)(torch.tensor(z, dtype=torch.float64)))  # noqa: E731
    assert value(3.0) == value(-3.0) == 4.5
    assert value(10.0) - value(9.0) == pytest.approx(3.0)
    assert value(1e6) == pytest.approx(3e6, rel=1e-5)


# --- total variation


def bump(lattice: Lattice, size: tuple[float, float]) -> Tensor:
    """A smooth function on a lattice, with two waves over `size` LR pixels."""
    y, x = (lattice.centres(axis) / n for axis, n in zip((0, 1), size, strict=True))
    return 0.3 + 0.1 * torch.sin(2 * math.pi * y)[:, None] * torch.cos(2 * math.pi * x)


def tv(w: Tensor, scale: int, unit: float = 0.01) -> float:
    """The total variation of one band w [y, x] whose mean gradient is `unit`."""
    return float(total_variation(w[None], scale, gradients=w.new_tensor([unit]), delta=DELTA))


def integral(size: tuple[int, int], unit: float = 0.01) -> float:
    """The integral of Huber of the gradient of `bump`, by the midpoint rule with the derivative written out."""
    y, x = ((torch.arange(400, dtype=torch.float64) + 0.5) / 400 for _ in size)
    a = 0.1 * 2 * math.pi
    dy = a / size[0] * torch.cos(2 * math.pi * y)[:, None] * torch.cos(2 * math.pi * x)
    dx = -a / size[1] * torch.sin(2 * math.pi * y)[:, None] * torch.sin(2 * math.pi * x)
    g = torch.hypot(dy, dx) / unit
    return float(torch.where(g < DELTA, g**2 / (2 * DELTA), g - DELTA / 2).mean() * size[0] * size[1])


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("size", [(40, 40), (30, 56)])
def test_the_tv_of_a_smooth_function_is_its_integral_at_every_level(size, scale):
    """The last row and column have no difference: it is too small by 2.1 % at most at scale 2, by .5 % at 8."""
    value = tv(bump(Lattice(size, scale, 0), size), scale)
    assert value == pytest.approx(integral(size), rel=0.025)


def test_tv_is_proportional_to_the_area():
    one = bump(Lattice((16, 16), 4, 0), (16, 16))
    assert tv(one.repeat(3, 2), 4) == pytest.approx(6 * tv(one, 4), rel=0.015)


def test_a_bands_units_do_not_matter():
    """Nor do its neighbours matter: the bands add up."""
    bands, scale = normal(2, 9, 11), 2
    gradients = torch.tensor([0.4, 0.7], dtype=torch.float64)
    factor = torch.tensor([1.0, 10.0], dtype=torch.float64)
    before = total_variation(bands, scale, gradients=gradients, delta=DELTA)
    after = total_variation(bands * factor[:, None, None], scale, gradients=gradients * factor, delta=DELTA)
    torch.testing.assert_close(after, before, rtol=1e-13, atol=0)
    apart = sum(tv(w, scale, float(g)) for w, g in zip(bands, gradients, strict=True))
    assert float(before) == pytest.approx(apart, rel=1e-13)


def test_one_edge_costs_its_length_times_its_height():
    """A step of 0.2 along 6 LR pixels, where the mean gradient is 0.1, costs 12, up to delta / 2 over one splat."""
    for scale in (2, 4, 8):
        w = torch.zeros(6 * scale, 6 * scale, dtype=torch.float64)
        w[:, 3 * scale :] = 0.2
        assert tv(w, scale, 0.1) == pytest.approx(12 - 6 / scale * DELTA / 2, rel=1e-12)


def test_a_constant_costs_nothing():
    w = torch.full((1, 7, 9), 0.3, dtype=torch.float64, requires_grad=True)
    value = total_variation(w, 4, gradients=torch.tensor([0.01], dtype=torch.float64), delta=DELTA)
    value.backward()
    assert value == 0
    assert torch.equal(w.grad, torch.zeros_like(w))


@pytest.mark.parametrize("size", [0.01, 1.0], ids=["quadratic", "linear"])
@pytest.mark.parametrize("block", [1, 2**19], ids=["row by row", "at once"])
def test_gradcheck_of_the_variation(size, block, monkeypatch):
    monkeypatch.setattr(losses, "BLOCK", block)
    gradients = torch.tensor([0.4, 0.7], dtype=torch.float64)
    w = (size * normal(2, 5, 6)).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: 3 * total_variation(w, 2, gradients=gradients, delta=DELTA), (w,))


def test_the_mean_gradient_of_a_ramp_is_its_slope():
    y, x = torch.arange(8.0)[:, None], torch.arange(9.0)
    image = torch.stack([0.03 * y + 0.04 * x, 0 * y * x])
    torch.testing.assert_close(mean_gradient(image), torch.tensor([0.05, 1e-6]))
