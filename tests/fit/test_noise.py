import math

import pytest
import torch
from torch import Tensor

from s2sr.fit import noise
from s2sr.fit.noise import FLOOR, excess, frame_to_frame_std, levels, robust_std, usual, usual_level
from s2sr.model.field import SplatField
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF

NOISE = torch.tensor([[0.002, 0.004], [0.003, 0.002], [0.008, 0.003], [0.002, 0.006]])
SHIFTS = torch.tensor([(0.4, -0.3), (-0.3, 0.2), (0.1, 0.4), (-0.2, -0.3)])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_robust_std_is_the_noise_despite_outliers():
    residual = NOISE[..., None, None] * torch.randn(4, 2, 60, 60, generator=generator())
    valid = torch.ones_like(residual, dtype=torch.bool)
    torch.testing.assert_close(robust_std(residual, valid), NOISE, rtol=0.05, atol=0)
    residual[..., :6, :] = 0.5
    torch.testing.assert_close(robust_std(residual, valid), NOISE, rtol=0.2, atol=0)


def test_masked_samples_do_not_enter():
    residual = NOISE[..., None, None] * torch.randn(4, 2, 40, 40, generator=generator())
    valid = torch.rand(residual.shape, generator=generator(1)) > 0.6
    rest = robust_std(residual, valid)
    assert torch.equal(robust_std(torch.where(valid, residual, 0.7), valid), rest)
    assert torch.equal(robust_std(torch.where(valid, residual, torch.nan), valid), rest)


def test_no_residual_and_no_sample_give_finite_weights():
    residual, valid = torch.zeros(1, 2, 5, 5), torch.ones(1, 2, 5, 5, dtype=torch.bool)
    valid[:, 1] = False
    assert robust_std(residual, valid).tolist() == [[pytest.approx(FLOOR), 1.0]]


def smooth_frames() -> tuple[SplatField, Tensor]:
    """The field of a smooth scene and its frames [t, b, y, x], without noise."""
    grid = Grid(None, (1, 0, 0, 0, -1, 0), (48, 40))
    field = SplatField(grid, ("B02", "B11"), scale=2, psf=PSF(0.4), shifts=SHIFTS)
    y, x = (field.lattice.centres(axis).float() for axis in (0, 1))
    with torch.no_grad():
        field.weights[0] = 0.2 + 0.1 * torch.sin(y / 4)[:, None] * torch.cos(x / 5)
        field.weights[1] = 0.3 + 0.1 * torch.cos(y / 6)[:, None] * torch.sin(x / 4)
        return field, field()


def test_noise_is_found_on_shifted_frames_before_any_fit():
    """Sinusoids with a period of 25 LR pixels move by up to .01; the noise was found to within 8 %."""
    field, frames = smooth_frames()
    gain = 1 + 0.05 * torch.randn(4, 2, generator=generator(2))
    offset = 0.01 * torch.randn(4, 2, generator=generator(3))
    noisy = gain[..., None, None] * frames + offset[..., None, None]
    noisy = noisy + NOISE[..., None, None] * torch.randn(frames.shape, generator=generator(4))
    valid = torch.rand(frames.shape, generator=generator(5)) > 0.2
    mean, shifts = frames.mean(0), field.shifts.detach()
    noisy[~valid] = 0.9
    std = frame_to_frame_std(noisy, valid, mean, shifts=shifts, gain=gain, offset=offset)
    torch.testing.assert_close(std, NOISE, rtol=0.1, atol=0)
    backwards = frame_to_frame_std(noisy, valid, mean, shifts=-shifts, gain=gain, offset=offset)
    assert (backwards > 1.3 * std).all(), "the sign of the shifts matters"


def test_what_differs_from_the_median_of_the_dates_is_not_usual():
    torch.manual_seed(0)
    frames = (
        torch.rand(1, 1, 20, 20) + 0.01 * torch.randn(6, 1, 20, 20) + torch.linspace(0, 0.1, 6)[:, None, None, None]
    )
    frames[2, :, 5:12, 5:12] += 0.2
    valid = torch.ones(frames.shape, dtype=torch.bool)
    valid[4, :, :3] = False
    found = usual(frames, valid)
    assert not found[2, :, 5:12, 5:12].any()
    assert not found[4, :, :3].any()
    assert found.float().mean() > 0.95
    assert torch.equal(usual(frames[:4], valid[:4]), valid[:4])


def test_noise_alone_has_no_excess():
    z = torch.randn(6, 3, 80, 80, generator=generator())
    valid = torch.rand(z.shape, generator=generator(1)) > 0.2
    found = excess(z, valid)
    assert (found > 1).float().mean() < 0.02
    assert found.mean() < 1.002


def test_excess_is_where_a_patch_changed_and_in_that_frame_alone():
    z = torch.randn(4, 2, 60, 60, generator=generator())
    z[1, 0, 20:40, 20:40] *= 5
    z[2, 1] += 10  # as a whole
    valid = torch.ones(z.shape, dtype=torch.bool)
    valid[1, 0, 28:32, 28:32] = False  # to be revealed later
    found = excess(torch.where(valid, z, torch.nan), valid)
    patch = found[1, 0, 24:36, 24:36]
    assert patch.mean() == pytest.approx(24, rel=0.2)
    assert patch.min() > 8
    found[1, 0, 10:50, 10:50] = 1
    assert (found > 1).float().mean() < 0.02


def test_the_usual_level_is_that_of_the_median_date():
    states = torch.tensor([0.0, 0.5, 0.01, 0.02])[:, None, None, None]
    residual = states + 0.002 * torch.randn(4, 2, 40, 30, generator=generator())
    valid = torch.rand(residual.shape, generator=generator(1)) > 0.3
    residual[~valid] = torch.nan
    found = usual_level(residual, valid)
    torch.testing.assert_close(found, torch.full_like(found, 0.015), atol=0.004, rtol=0)
    found = usual_level(residual[:3], valid[:3])
    torch.testing.assert_close(found, torch.full_like(found, 0.01), atol=0.004, rtol=0)


def test_a_date_has_a_level_where_it_is_nearly_as_clear_as_the_others():
    residual, valid = torch.zeros(3, 1, 40, 60), torch.ones(3, 1, 40, 60, dtype=torch.bool)
    residual[:2] += torch.tensor([1.0, 3.0])[:, None, None, None]
    valid[1, :, :, 30:] = False
    valid[:, :, :, 50:] = False
    valid[..., 1::2] = False  # as of a band of coarser samples
    found = levels(residual, valid)
    assert found[1, :, :, :31].sub(3).abs().max() < 1e-5, "half of its samples"
    assert found[1, :, :, 33:].isnan().all()
    assert found[0, :, :, :58].sub(1).abs().max() < 1e-5, "it is as clear as any"
    usual = usual_level(residual, valid)
    assert usual[:, :, :30].sub(1).abs().max() < 1e-5, "of 0, 1 and 3"
    assert usual[:, :, 33:58].sub(0.5).abs().max() < 1e-5, "of 0 and 1"
    assert not usual_level(residual, torch.zeros_like(valid)).any()


def test_levels_do_not_average_noise_over_more_than_their_reach():
    residual = torch.zeros(1, 1, 61, 61)
    residual[..., 30, 30] = 1
    found = levels(residual, torch.ones_like(residual, dtype=torch.bool))[0, 0]
    assert float(found[30, 30]) == pytest.approx(1 / (2 * math.pi * noise.REACH**2), rel=0.01)
    assert float(found[30, 35] / found[30, 30]) == pytest.approx(math.exp(-2), rel=0.01)


@pytest.mark.parametrize("about_mean", [True, False])
def test_a_few_places_at_a_time(monkeypatch, about_mean):
    torch.manual_seed(0)
    z, valid = 3 * torch.randn(2, 1, 50, 41, dtype=torch.float64), torch.rand(2, 1, 50, 41) > 0.2
    monkeypatch.setattr(noise, "BLOCK", 64)
    whole = noise.excess(z, valid, about_mean=about_mean)
    monkeypatch.setattr(noise, "BLOCK", 7)
    torch.testing.assert_close(noise.excess(z, valid, about_mean=about_mean), whole)
