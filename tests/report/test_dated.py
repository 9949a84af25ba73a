from dataclasses import replace

import numpy as np
import pytest
import torch
from detailed_fields import field_of, observed

from s2sr.errors import InputError
from s2sr.report.dated import dated, observed_on
from s2sr.report.metrics import area_average

T = 3


def change_at(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return 0.03 * torch.sin(2 * torch.pi * y[:, None] / 20) + 0.02 * torch.cos(2 * torch.pi * x / 15)


@pytest.fixture(scope="module")
def changed():
    """A field, its observations, one of which shows another colour and a gradient, and the mask of that one."""
    shifts = torch.from_numpy(np.random.default_rng(3).normal(0, 1.5, (8, 2)))
    field = field_of(shifts - shifts.mean(0))
    scene = observed(field, noise=1e-4)
    change = change_at(torch.arange(40.0), torch.arange(44.0))
    frames, valid = scene.frames.clone(), scene.valid.clone()
    frames[T] += change
    valid[T, :, 25:] = False
    frames[T, :, 25:] = 0
    object.__setattr__(scene, "frames", frames)
    object.__setattr__(scene, "valid", valid)
    return field, scene, change


def test_the_date_observed_again_is_the_date(changed):
    field, scene, _ = changed
    seen = scene.valid[T]
    before = (field()[T] - scene.frames[T])[seen].std()
    after = (dated(field, scene, T)()[T] - scene.frames[T])[seen].std()
    assert before > 0.02
    assert after < 0.08 * before  # measured .03


def test_change_that_the_fit_has_found_does_not_count_twice(changed):
    field, scene, change = changed
    before = dated(field, scene, T).weights
    field.changed[T] = change
    after = dated(field, scene, T)
    field.changed.zero_()
    assert torch.equal(after.weights, before)
    assert not after.changed.any()


def test_the_detail_stays_the_stacks(changed):
    field, scene, _ = changed
    added = (dated(field, scene, T).weights - field.weights).detach().numpy()
    s, m = field.scale, field.lattice.margin
    inside = added[:, m * s : (m + 22) * s, m * s : -m * s]
    fine = inside - area_average(area_average(inside, s, 1), 1, s)
    assert np.square(fine).mean() < 0.02 * np.square(inside).mean()  # measured .01: the change within a pixel
    dy, dx = field.shifts[T].detach()
    moved = change_at(torch.arange(22) + dy, torch.arange(44) + dx)  # where the field shows what the date does
    found = inside[0].reshape(22, s, 44, s).mean((1, 3))
    assert found[4:-4, 4:-4] == pytest.approx(moved[4:-4, 4:-4].numpy(), abs=0.012)


def test_under_a_cloud_nothing_is_made_up(changed):
    field, scene, _ = changed
    with torch.no_grad():
        field.radiometry.raw_gain[T] += 0.08
        field.radiometry.raw_offset[T] += 0.008
    gain, offset = (float(x.detach()[T, 0]) for x in (field.radiometry.gain, field.radiometry.offset))
    assert gain == pytest.approx(1.07)
    product = dated(field, scene, T).render(field.grid)
    expected = gain * field.render(field.grid) + offset
    assert torch.allclose(product[:, 30:], expected[:, 30:], atol=1e-4)
    with torch.no_grad():
        field.radiometry.raw_gain[T] -= 0.08
        field.radiometry.raw_offset[T] -= 0.008


def test_the_nearest_date(changed):
    _, scene, _ = changed
    assert observed_on(scene, "2024-05-04") == 3
    assert observed_on(scene, "2024-05-17") == 7
    with pytest.raises(InputError, match="no observation within 10 days; there are 2024-05-01, 2024-05-02"):
        observed_on(scene, "2024-06-01")
    nameless = replace(scene, observations=tuple(replace(o, datetime="unknown") for o in scene.observations))
    with pytest.raises(InputError, match="2024-05-04: 0 has no date itself"):
        observed_on(nameless, "2024-05-04")
    with pytest.raises(InputError, match="june: not a date such as 2024-06-01"):
        observed_on(scene, "june")
