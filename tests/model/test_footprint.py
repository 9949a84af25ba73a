import math

import pytest
import torch
from scipy.integrate import quad

from s2sr.model.footprint import gaussian, pixel_integral, pixel_integral_slopes, tail


@pytest.mark.parametrize("width", [0.125, 1.0, 2.0, 6.0])
@pytest.mark.parametrize("sigma", [0.075, 0.4, 1.3])
def test_the_pixel_integral_is_the_mean_of_the_gaussian_over_the_box(width, sigma):
    for u in (0.0, 0.31, -0.31, 1.0, width / 2, width / 2 + 2 * sigma):
        density = lambda v: math.exp(-0.5 * (v / sigma) ** 2) / (math.sqrt(2 * math.pi) * sigma)  # noqa: E731
        low, high = u - width / 2, u + width / 2
        kink = [0.0] if low < 0 < high else None
        expected = quad(density, low, high, points=kink, epsabs=1e-14, epsrel=1e-12)[0] / width
        got = float(pixel_integral(torch.tensor(u, dtype=torch.float64), width, sigma))
        assert got == pytest.approx(expected, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("width", [0.125, 1.0, 2.0, 6.0])
@pytest.mark.parametrize("sigma", [0.075, 0.4, 1.3])
def test_the_slopes_are_the_derivatives_of_the_pixel_integral(width, sigma):
    u = torch.linspace(-20, 20, 401, dtype=torch.float64).requires_grad_()
    widths = torch.full_like(u, sigma).requires_grad_()
    slopes = pixel_integral_slopes(u, width, widths)
    expected = torch.autograd.grad(pixel_integral(u, width, widths).sum(), (u, widths))
    for got, wanted in zip(slopes, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-13)


def test_no_slope_is_denormal():
    u = torch.linspace(-20, 20, 4001)
    for slope in pixel_integral_slopes(u, 1.0, 0.31):
        assert not ((slope != 0) & (slope.abs() < torch.finfo(torch.float32).tiny)).any()


@pytest.mark.parametrize("scale", [1, 2, 3, 8])
@pytest.mark.parametrize("width", [1, 2, 6])
def test_the_splats_of_a_lattice_sum_to_the_scale_wherever_the_pixel_lies(scale, width):
    """A detector is whole cells wide, so the sum does not ripple: a constant observes as itself."""
    centres = (torch.arange(-40 * scale, 40 * scale, dtype=torch.float64) + 0.5) / scale
    pixels = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64)
    sums = pixel_integral(pixels[:, None] - centres, width, math.hypot(0.6 / scale, 0.4 * width)).sum(-1)
    torch.testing.assert_close(sums, torch.full_like(sums, scale), rtol=1e-13, atol=0)


def test_the_gaussian_is_a_density():
    u = torch.linspace(-6, 6, 2001, dtype=torch.float64)
    assert float(torch.trapezoid(gaussian(u, 0.7), u)) == pytest.approx(1, abs=1e-12)
    assert float(torch.trapezoid(gaussian(u, 0.7) * u**2, u)) == pytest.approx(0.49, abs=1e-12)


@pytest.mark.parametrize(("dtype", "left"), [(torch.float32, 6e-7), (torch.float64, 1.2e-15)])
def test_what_the_tail_leaves_out(dtype, left):
    assert math.erfc(tail(dtype) / math.sqrt(2)) == pytest.approx(left, rel=0.05)
