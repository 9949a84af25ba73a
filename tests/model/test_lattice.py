import pytest
import torch

from s2sr.model.footprint import gaussian, pixel_integral, tail
from s2sr.model.lattice import BLOCK, Lattice, margin_of


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_splats_are_centred_in_their_cells():
    lattice = Lattice((3, 5), 2, 4)
    assert lattice.shape == (22, 26)
    centres = lattice.centres(1)
    assert centres[[0, -1]].tolist() == [-3.75, 8.75]
    assert float(centres[8]) == 0.25, "the first splat of pixel 0"
    assert set(centres.diff().tolist()) == {0.5}


@pytest.mark.parametrize(
    ("pixels", "least", "margin"),
    [
        ((45, 53), 5, 5),  # 55 and 63 have no prime above 11
        ((512, 512), 5, 8),  # 522 is 18 times 29, 528 is 48 times 11
        ((1024, 1024), 4, 13),
        ((11, 13), 4, 4),  # 19 is a prime, and a margin of 5 is no better than 4
        ((64, 80), 5, 8),  # both lengths at once
    ],
)
def test_a_margin_makes_both_lengths_fast_where_there_is_room(pixels, least, margin):
    assert margin_of(pixels, least) == margin


def test_frequencies_are_cycles_per_lr_pixel():
    lattice = Lattice((6, 5), 4, 3)  # 12 and 11 LR pixels with its margins
    y, x = (lattice.centres(axis) for axis in (0, 1))
    rows, columns = lattice.frequencies()
    for down, across in ((5 / 12, 3 / 11), (-1.25, 1.0), (0.0, 20 / 11)):
        wave = torch.cos(2 * torch.pi * (down * y[:, None] + across * x))
        row, column = divmod(int(torch.fft.rfft2(wave).abs().argmax()), len(columns))
        assert (float(rows[row, 0]), float(columns[column])) == pytest.approx((down, across))


@pytest.mark.parametrize("axis", [0, 1])
def test_along_is_the_dense_sum_over_all_splats(axis):
    lattice = Lattice((5, 7), 3, 4)
    positions = torch.linspace(-1, lattice.pixels[axis] + 1, 2 * BLOCK + 5, dtype=torch.float64)
    w = normal(2, *lattice.shape)
    reach = 0.35 + tail(torch.float64) * lattice.sigma
    kernel = lambda u: pixel_integral(u, 0.7, lattice.sigma)  # noqa: E731
    dense = kernel(positions[:, None] - lattice.centres(axis))
    for normalise, taps in ((False, dense), (True, dense / dense.sum(-1, keepdim=True))):
        expected = taps @ w if axis == 0 else w @ taps.mT
        found = lattice.along(axis, w, positions, kernel, reach, normalise=normalise)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_a_lattice_of_ones_hardly_ripples():
    """Sampled at points: twice exp(-2 pi^2 0.6^2) = 1.6e-3, the worst that any pixel sees."""
    lattice = Lattice((4, 4), 2, 6)
    positions = torch.linspace(0, 4, 97, dtype=torch.float64)
    ones = torch.ones(1, lattice.shape[0], 1, dtype=torch.float64)
    field = lattice.along(0, ones, positions, lambda u: gaussian(u, lattice.sigma) / lattice.scale, 4.0)
    assert 1.6e-3 < float((field - 1).abs().max()) < 1.7e-3


@pytest.mark.parametrize(("coarse", "fine"), [(2, 4), (2, 8), (3, 6), (1, 2)])
def test_refinement_is_a_narrower_lattice_of_the_same_image(coarse, fine):
    """The field itself, point by point, for white weights: nothing is as hard. Of the weights' range, measured 8e-4
    (2 to 8) to 4.3e-3 (1 to 2); the observations, which are blurred, agree to 1e-6 (test_field.py)."""
    lattice = Lattice((6, 5), coarse, 5)
    weights = normal(2, *lattice.shape)
    finer, refined = lattice.refine(weights, fine)
    assert finer == Lattice((6, 5), fine, 5)
    assert refined.shape[1:] == finer.shape

    def image(lattice, w):
        for axis in (0, 1):
            x = torch.linspace(0, lattice.pixels[axis], 41, dtype=torch.float64)
            w = lattice.along(axis, w, x, lambda u: gaussian(u, lattice.sigma) / lattice.scale, 5.0)
        return w

    before, after = image(lattice, weights), image(finer, refined)
    worst = float((before - after).abs().max() / (weights.max() - weights.min()))
    assert worst < 5e-3, worst


def test_doubling_keeps_a_constant_up_to_the_border():
    """Measured 7e-10. At larger steps the coarse lattice's own ripple stays: 1.1e-3 of 0.3 from 2 to 8."""
    lattice = Lattice((3, 4), 2, 3)
    _, refined = lattice.refine(torch.full((1, *lattice.shape), 0.3, dtype=torch.float64), 4)
    assert float((refined - 0.3).abs().max()) < 2e-9


@pytest.mark.parametrize("scale", [2, 1, 5])
def test_refinement_to_what_is_not_a_larger_multiple_raises(scale):
    lattice = Lattice((3, 4), 2, 3)
    with pytest.raises(ValueError, match=f"{scale} is not a multiple of 2"):
        lattice.refine(torch.zeros(1, *lattice.shape), scale)
