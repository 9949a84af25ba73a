"""An acquisition that comes twice counts once; two that are alike count as two."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from s2sr.data.demo import Demo
from s2sr.data.repeats import first_of_each
from s2sr.observations import configuration, observe


@pytest.fixture(scope="module")
def scene():
    return Demo(size=(24, 31), n_dates=4, cloudy=0).load()


def again(scene, frame, t=2):
    """The scene with observation t showing `frame` [b, y, x]."""
    frames = scene.frames.clone()
    frames[t] = frame
    return dataclasses.replace(scene, frames=frames)


@pytest.mark.parametrize("noise", [0, 2e-4])
def test_processed_twice_it_counts_once(scene, noise):
    first = scene.frames[0]
    brighter = first + 0.004 + noise * torch.randn(first.shape, generator=torch.Generator().manual_seed(1))
    assert first_of_each(again(scene, brighter)) == [0, 1, 3]


def test_two_of_the_same_ground_at_the_same_shift_are_two(scene):
    first = scene.frames[0]
    other = first + 0.0013 * torch.randn(first.shape, generator=torch.Generator().manual_seed(1))
    assert first_of_each(again(scene, other)) == [0, 1, 2, 3]


@pytest.mark.parametrize("first_column", [0, 20, 31])
def test_two_tiles_that_share_a_strip_or_nothing_are_two(scene, first_column):
    """The first shows columns up to 20, the other those from `first_column` on."""
    twice = again(scene, scene.frames[0])
    valid = twice.valid.clone()
    valid[0, ..., 20:] = False
    valid[2, ..., :first_column] = False
    assert first_of_each(dataclasses.replace(twice, valid=valid)) == [0, 1, 2, 3]


def test_it_is_named(tmp_path):
    folder = Demo(size=16, n_dates=4, cloudy=0).write(tmp_path / "scene")
    first = sorted(folder.glob("*.tif"))[0]
    (folder / "again_2023-05-02.tif").write_bytes(first.read_bytes())
    found = observe(configuration("data=geotiff", f"data.root={folder}"))
    assert len(found) == 4
    assert [o.rejected for o in found.rejected] == ["it duplicates another observation"]
