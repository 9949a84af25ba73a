import dataclasses

import pytest
import torch

from s2sr.errors import InputError
from s2sr.model.grid import Grid
from s2sr.model.scene import Observation, Scene, Truth

GRID = Grid("EPSG:32631", (10, 0, 500_000, 0, -10, 5_600_000), (8, 11))


@pytest.fixture
def scene() -> Scene:
    """A scene in which every sample and every truth pixel differs from all others."""
    shape = (3, 2, 8, 11)
    valid = torch.ones(shape, dtype=torch.bool)
    valid[1, :, :4] = False
    observations = (
        Observation("late", "2023-08-02T10:00:00Z", 1.0),
        Observation("cloudy", "2023-07-01T10:00:00Z", 0.5),
        Observation("early", "2023-06-03T10:00:00Z", 1.0),
    )
    truth = Truth(
        reflectance=torch.arange(2 * 24 * 33.0).view(2, 24, 33),
        scale=3,
        shifts=torch.arange(6.0).view(3, 2),
        sigma_psf=torch.tensor([0.4, 0.4]),
    )
    frames = torch.arange(3 * 2 * 8 * 11.0).view(shape) * valid
    return Scene(frames, valid, GRID, ("B02", "B11"), observations, truth=truth)


@pytest.mark.parametrize(("side", "row", "column"), [(8, 0, 1), (5, 1, 3), (4, 2, 3), (1, 3, 5)])
def test_the_crop_is_taken_at_the_floor_of_the_centre(scene, side, row, column):
    part = scene.crop(side)
    window = (..., slice(row, row + side), slice(column, column + side))
    assert part.grid == GRID.crop(row, column, (side, side))
    assert torch.equal(part.frames, scene.frames[window])
    assert torch.equal(part.valid, scene.valid[window])
    fine = (..., slice(3 * row, 3 * (row + side)), slice(3 * column, 3 * (column + side)))
    assert torch.equal(part.truth.reflectance, scene.truth.reflectance[fine])
    assert [o.clear for o in part.observations] == part.valid.float().mean((1, 2, 3)).tolist()


@pytest.mark.parametrize("side", [9, 0, -3])
def test_a_crop_that_does_not_fit_raises(scene, side):
    with pytest.raises(InputError, match=f"crop={side} does not fit the scene of 8 x 11 pixels"):
        scene.crop(side)


def test_select_keeps_everything_aligned_and_says_why_not(scene):
    part = scene.select([2, 0], "too cloudy")
    assert [o.name for o in part.observations] == ["early", "late"]
    assert torch.equal(part.frames, scene.frames[[2, 0]])
    assert torch.equal(part.truth.shifts, scene.truth.shifts[[2, 0]])
    assert [(o.name, o.rejected) for o in part.rejected] == [("cloudy", "too cloudy")]
    assert len(part.select([0], "late").rejected) == 2


def test_the_clearest_keep_their_order(scene):
    part = scene.clearest(2)
    assert [o.name for o in part.observations] == ["late", "early"]
    assert torch.equal(part.frames, scene.frames[[0, 2]])
    assert [(o.name, o.rejected) for o in part.rejected] == [("cloudy", "not among the 2 clearest")]
    assert scene.clearest(9).observations == scene.observations


def test_the_temporal_mean_is_over_the_valid_samples(scene):
    mean = scene.temporal_mean
    assert torch.equal(mean[:, :4], scene.frames[[0, 2], :, :4].mean(0))
    assert torch.equal(mean[:, 4:], scene.frames[:, :, 4:].mean(0))


def test_where_nothing_is_valid_the_mean_is_the_bands_median(scene):
    valid = scene.valid.clone()
    valid[:, 1, 6, 7] = False
    mean = dataclasses.replace(scene, valid=valid).temporal_mean
    assert mean[1, 6, 7] == scene.frames[:, 1][valid[:, 1]].median()
    assert torch.equal(mean[0], scene.temporal_mean[0])


def test_frames_that_do_not_match_the_grid_raise(scene):
    with pytest.raises(ValueError, match=r"frames \(3, 2, 8, 11\)"):
        dataclasses.replace(scene, grid=GRID.crop(0, 0, (8, 10)))
    with pytest.raises(ValueError, match="valid"):
        dataclasses.replace(scene, valid=scene.valid[:, :1])


def test_a_scene_introduces_itself(scene):
    assert str(scene) == ("3 observations from 2023-06-03 to 2023-08-02, 8 x 11 pixels, B02 B11, 83% clear; 0 not used")
