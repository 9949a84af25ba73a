import pytest
import torch

from s2sr.model.radiometry import Radiometry


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("observations", [1, 2, 7])
def test_the_gauge_holds_for_any_raw_values(observations):
    radiometry = Radiometry(observations, 3, gain=True, offset=True).double()
    with torch.no_grad():
        radiometry.raw_gain.normal_(3, 2, generator=generator())
        radiometry.raw_offset.normal_(-1, 2, generator=generator())
    ones = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(radiometry.gain.mean(0), ones, rtol=0, atol=1e-14)
    torch.testing.assert_close(radiometry.offset.mean(0), 0 * ones, rtol=0, atol=1e-14)


def test_gain_and_offset_are_those_of_observation_and_band():
    radiometry = Radiometry(2, 2)
    with torch.no_grad():
        radiometry.raw_gain.copy_(torch.tensor([[1.1, 0.8], [0.9, 1.2]]))
        radiometry.raw_offset.copy_(torch.tensor([[0.1, -0.2], [-0.1, 0.2]]))
    frames = torch.full((2, 2, 1, 1), 0.5)
    expected = torch.tensor([[0.65, 0.2], [0.35, 0.8]])
    torch.testing.assert_close(radiometry(frames)[..., 0, 0], expected)


@pytest.mark.parametrize(("gain", "offset"), [(True, True), (True, False), (False, True), (False, False)])
def test_initialise_recovers_what_is_asked_for_despite_outliers(gain, offset):
    """A tenth of the valid samples is bright cloud, and masked ones are NaN. It was off by 4e-4 and 9e-5 at most."""
    g = generator()
    reference = 0.05 + 0.3 * torch.rand(2, 30, 33, generator=g)
    gains, offsets = 1 + 0.05 * torch.randn(5, 2, generator=g), 0.01 * torch.randn(5, 2, generator=g)
    gains = gains - gains.mean(0) + 1 if gain else torch.ones(5, 2)
    offsets = offsets - offsets.mean(0) if offset else torch.zeros(5, 2)
    frames = gains[..., None, None] * reference + offsets[..., None, None]
    frames = frames + 1e-3 * torch.randn(frames.shape, generator=g)
    frames[torch.rand(frames.shape, generator=g) < 0.1] = 0.9
    valid = torch.rand(frames.shape, generator=g) > 0.2
    radiometry = Radiometry(5, 2, gain=gain, offset=offset)
    radiometry.initialise(torch.where(valid, frames, torch.nan), valid, reference)
    torch.testing.assert_close(radiometry.gain, gains, rtol=0, atol=2e-3)
    torch.testing.assert_close(radiometry.offset, offsets, rtol=0, atol=1e-3)


@pytest.mark.parametrize("what", ["masked", "flat"])
def test_where_there_is_nothing_to_regress_on_it_stays_neutral(what):
    reference = torch.rand(1, 9, 9, generator=generator())
    frames, valid = reference.expand(3, 1, 9, 9).clone(), torch.ones(3, 1, 9, 9, dtype=torch.bool)
    if what == "masked":
        valid[1] = False
    else:
        reference = torch.full_like(reference, 0.2)
    radiometry = Radiometry(3, 1, gain=True, offset=True)
    radiometry.initialise(frames, valid, reference)
    torch.testing.assert_close(radiometry.gain, torch.ones(3, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(radiometry.offset, torch.zeros(3, 1), rtol=0, atol=1e-5)


def test_the_gain_pivots_about_the_scene_s_level():
    """Where only detail told the gain, as in `register`, offsets used not to follow, and levels came to be .1 off."""
    reference = 0.2 + 0.05 * torch.rand(1, 9, 9, generator=generator())
    frames, valid = reference.expand(3, 1, 9, 9).clone(), torch.ones(3, 1, 9, 9, dtype=torch.bool)
    radiometry = Radiometry(3, 1, gain=True, offset=True)
    radiometry.initialise(frames, valid, reference)
    with torch.no_grad():
        radiometry.raw_gain.copy_(torch.tensor([[0.4], [1.2], [1.4]]))
    predicted = radiometry(reference.expand(3, 1, 9, 9)).detach()
    torch.testing.assert_close(predicted.mean((2, 3)), frames.mean((2, 3)), rtol=0, atol=1e-6)
    assert float((predicted - frames).abs().max()) > 0.01
