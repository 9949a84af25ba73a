"""Interpolation between a few positions against the kernels of the observations themselves."""

import pytest
import torch

from s2sr.model import kernels
from s2sr.model.field import SplatField
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF

GRID = Grid(None, (10, 0, 0, 0, -10, 0), (9, 21))


def field(sigma: float, *, scale: int, reach: float = 0.5, bands=("B02", "B11"), t: int = 12) -> SplatField:
    torch.manual_seed(0)
    made = SplatField(GRID, bands, scale=2, psf=PSF(sigma, learn=True), shifts=reach * (2 * torch.rand(t, 2) - 1))
    made.refine(scale)
    torch.nn.init.normal_(made.weights)
    return made


def results(field: SplatField, pull: torch.Tensor) -> dict[str, torch.Tensor]:
    field.zero_grad()
    frames = field()
    frames.backward(pull.to(frames))
    return {"frames": frames.detach()} | {
        name: getattr(field, name).grad.clone() for name in ("weights", "raw_shifts", "log_sigma")
    }


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("sigma", [0.3, 0.39, 0.45, 0.55, 0.8])
@pytest.mark.parametrize("reach", [0.2, 0.6, 1.6])
def test_interpolated_frames_and_gradients_are_those_of_the_kernels_in_float64(sigma, scale, reach, monkeypatch):
    monkeypatch.setattr(kernels, "PAYS", 100.0)
    one = field(sigma, scale=scale, reach=reach)
    assert one.footprints(one.shifts).interpolated() is not None
    pull = torch.randn(12, 2, *GRID.shape)
    found = results(one, pull)
    expected = results(one.double(), pull)
    for name, tolerance in {"frames": 2e-6, "weights": 2e-6, "raw_shifts": 1e-5, "log_sigma": 1e-4}.items():
        a, b = found[name], expected[name]
        error = float((a - b).abs().max() / b.abs().max())
        assert error < tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize(("t", "scale", "pays"), [(8, 8, False), (16, 8, True), (16, 4, False)])
def test_many_observations_are_interpolated_where_splats_are_many(t, scale, pays):
    one = field(0.45, scale=scale, t=t)
    assert (one.footprints(one.shifts).interpolated() is not None) == pays


def test_at_the_edge_of_the_lattice_the_kernels_themselves_are_taken():
    """Positions to interpolate between would lie beyond it."""
    one = field(0.45, scale=8, t=60)
    assert one.footprints(one.shifts).interpolated() is not None
    with torch.no_grad():
        one.raw_shifts.copy_(one.reach * torch.ones(60, 2).copysign(one.raw_shifts))
        one.raw_shifts[::2] = -one.raw_shifts[1::2]
    assert one.footprints(one.shifts).interpolated() is None
    found, expected = one().detach(), one.double()().detach()
    assert float((found - expected).abs().max() / expected.abs().max()) < 2e-6


def test_float64_takes_the_kernels_themselves():
    one = field(0.45, scale=8, t=60).double()
    assert one.footprints(one.shifts).interpolated() is None


def test_a_step_to_nan_gives_nan():
    """A line search may try one; it is then taken back."""
    one = field(0.45, scale=8, t=60)
    torch.nn.init.constant_(one.raw_shifts, torch.nan)
    assert one().isnan().all()
