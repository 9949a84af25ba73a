"""What is made of a scene before it is fitted, whatever its source."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

import s2sr
from s2sr.errors import InputError
from s2sr.observations import configuration, register, usable

CORNERS = {"EPSG:4326": (4.5, 51.2), "EPSG:3857": (5e5, 6.6e6)}


def scene_of(shape=(5, 1, 16, 20), *, bands=("B02",), crs="EPSG:32631", step=10.0, seed=0):
    frames = np.random.default_rng(seed).uniform(0.1, 0.3, shape)
    left, top = CORNERS.get(crs, (600000, 5600000))
    days = [datetime.date(2024, 5, 1 + t) for t in range(shape[0])]
    return s2sr.Scene.of(frames, bands=bands, dates=days, crs=crs, transform=(step, 0, left, 0, -step, top))


@pytest.mark.parametrize(
    ("crs", "step", "bands", "size"),
    [
        ("EPSG:32631", 10.0, ("B02",), None),
        ("EPSG:32631", 20.0, ("B02",), "20 x 20 m"),
        ("EPSG:32631", 20.0, ("B05",), "20 x 20 m"),  # whose detector would be taken for one of 40 m
        ("EPSG:4326", 9e-5, ("B02",), "10 x 6.29 m"),
        ("EPSG:3857", 10.0, ("B02",), "6.31 x 6.32 m"),
        (None, 1.0, ("B02",), None),
        ("EPSG:32631", 30.0, ("red",), None),  # another sensor's: its PSF is the user's to give
    ],
)
def test_pixels_that_are_not_of_10_m_are_noticed(caplog, crs, step, bands, size):
    usable(scene_of(crs=crs, step=step, bands=bands), configuration())
    assert (f"pixels of {size} on the ground" in caplog.text) == bool(caplog.records) == (size is not None), caplog.text


def test_a_narrow_strip_is_too_small():
    with pytest.raises(InputError, match="a scene of 3 x 40 pixels is too small"):
        usable(scene_of((5, 1, 3, 40)), configuration())


def test_an_observation_of_another_place_is_named_with_what_there_is_against_it(caplog):
    scene = s2sr.Demo(size=32, cloudy=0).load()
    frames = scene.frames.clone()
    frames[3] = s2sr.Demo(size=32, cloudy=0, seed=7).load().frames[3]
    kept, shifts = register(s2sr.Scene.of(frames, bands=scene.bands, dates=[o.datetime for o in scene.observations]))
    assert len(kept) == len(shifts) == 11
    (said,) = caplog.messages
    assert said.startswith("2023-05-17T00:00:00Z: left out, as it does not match the others (correlation 0.")
    assert " pixels at a shift of " in said


def test_where_most_do_not_match_all_stay_and_one_line_says_why(caplog):
    scene = scene_of((6, 1, 8, 8))
    kept, shifts = register(scene)
    assert len(kept) == 6
    assert not shifts.any()
    (said,) = caplog.messages
    assert said.startswith("only 0 of 6 observations match the others: the scene is too small")
