"""A scene of arrays, as a user of numpy, xarray or pandas has them."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
import torch
from rasterio.transform import from_origin

from s2sr.errors import InputError
from s2sr.model.scene import Scene

FRAMES = np.linspace(0.1, 0.3, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
GIVEN = {"bands": ["B02", "B03", "B04"], "dates": ["2024-05-01", "2024-05-06"]}


@pytest.mark.parametrize(
    "dates",
    [
        ["2024-05-01", "2024-05-06"],
        [datetime.date(2024, 5, 1), datetime.date(2024, 5, 6)],
        [datetime.datetime(2024, 5, 1), datetime.datetime(2024, 5, 6)],
        np.array(["2024-05-01", "2024-05-06"], "datetime64[D]"),
        np.array(["2024-05-01", "2024-05-06"], "datetime64[ns]"),
        ["2024-05-01T02:00:00+02:00", "2024-05-06T00:00:00Z"],
    ],
)
def test_dates_as_they_come(dates):
    scene = Scene.of(FRAMES, bands=GIVEN["bands"], dates=dates)
    assert [o.datetime for o in scene.observations] == ["2024-05-01T00:00:00Z", "2024-05-06T00:00:00Z"]


@pytest.mark.parametrize("frames", [FRAMES, FRAMES.astype(np.float32), torch.from_numpy(FRAMES)])
def test_frames_as_they_come_are_copied(frames):
    scene = Scene.of(frames, **GIVEN, crs="EPSG:32631", transform=from_origin(640000, 5680000, 10, 10))
    scene.frames.zero_()
    assert frames.max() > 0.29
    assert scene.frames.dtype == torch.float32
    assert scene.grid.transform == (10.0, 0.0, 640000.0, 0.0, -10.0, 5680000.0)
    assert scene.grid.shape == (4, 5)
    assert scene.bands == ("B02", "B03", "B04")
    assert scene.valid.all()


def test_a_scene_that_nobody_placed_has_pixels_of_10_m_with_north_up():
    grid = Scene.of(FRAMES, **GIVEN).grid
    assert (grid.crs, grid.transform) == (None, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0))


def test_what_is_not_finite_or_not_valid_does_not_enter():
    frames, clear = FRAMES.copy(), np.ones((2, 1, 4, 5), bool)
    frames[0, 1, 2, 3], frames[1, 2, 0, 0], clear[1, 0, 3] = np.nan, -np.inf, False
    scene = Scene.of(frames, **GIVEN, valid=clear)
    expected = np.isfinite(frames) & clear
    assert (scene.valid.numpy() == expected).all()
    assert not scene.frames[~scene.valid].any()
    assert [o.clear for o in scene.observations] == pytest.approx(expected.mean((1, 2, 3)))


@pytest.mark.parametrize(
    ("frames", "changed", "said"),
    [
        (FRAMES[0], {}, "frames (3, 4, 5) are not [date, band, row, column] of 2 dates and 3 bands"),
        (FRAMES, {"bands": ["B02"]}, "of 2 dates and 1 bands"),
        (FRAMES * 1e4, {}, "give reflectance, such as 1e-4 * DN - 0.1"),
        (FRAMES, {"dates": ["May", "2024-05-06"]}, "write them as 2024-06-01"),
    ],
)
def test_what_does_not_go_together(frames, changed, said):
    with pytest.raises(InputError) as caught:
        Scene.of(frames, **GIVEN | changed)
    assert said in str(caught.value)
