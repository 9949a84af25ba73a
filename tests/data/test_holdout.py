"""Withheld blocks: disjoint, of the asked size, drawn anew for every frame, never larger than the samples there are."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from s2sr.data.demo import Demo
from s2sr.data.holdout import Holdout
from s2sr.errors import InputError
from s2sr.model.scene import Scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Demo(size=42).load()


def test_the_three_sets_are_disjoint_and_make_the_scene(scene):
    split = Holdout().split(scene, validation=True)
    sets = torch.stack([split.valid, split.judged, split.validation])
    assert torch.equal(sets.sum(0), scene.valid.long())
    assert torch.equal(split.whole().valid, scene.valid)
    assert not split.whole().judged.any()


def test_fractions_are_those_asked_for_in_every_frame(scene):
    clear = dataclasses.replace(scene, valid=torch.ones_like(scene.valid))
    split = Holdout(judged=0.2, validation=0.1, side=6).split(clear, validation=True)
    for part, asked in ((split.judged, 0.2), (split.validation, 0.1)):
        found = part.float().mean((1, 2, 3))
        assert ((found - asked).abs() < 0.06).all()
        assert abs(float(found.mean()) - asked) < 0.03


def test_blocks_have_the_side_asked_for_in_all_bands(scene):
    clear = dataclasses.replace(scene, valid=torch.ones_like(scene.valid))
    judged = Holdout(judged=0.05, side=7).split(clear, validation=False).judged
    assert torch.equal(judged, judged[:, :1].expand_as(judged))
    frame = judged[0, 0, 7:-7, 7:-7]
    inner = frame[1:-1, 1:-1]
    alone = inner & ~(frame[:-2, 1:-1] | frame[2:, 1:-1]) | inner & ~(frame[1:-1, :-2] | frame[1:-1, 2:])
    assert not alone.any()


def test_no_two_frames_and_no_two_seeds_have_the_same_layout(scene):
    first, second = (Holdout(seed=seed).split(scene, validation=False).judged for seed in (0, 1))
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first, Holdout(seed=0).split(scene, validation=True).judged)


def test_crop_and_selection_carry_them(scene):
    split = Holdout().split(scene, validation=True)
    part = split.crop(20).select([1, 3], "test")
    for name in ("judged", "validation"):
        assert torch.equal(getattr(part, name), getattr(split, name)[[1, 3], :, 11:31, 11:31])


@pytest.mark.parametrize("options", [{"judged": 0}, {"judged": 1}, {"validation": 1.5}, {"side": 0}])
def test_bad_values_are_named(options):
    name, value = next(iter(options.items()))
    with pytest.raises(InputError, match=rf"holdout\.{name}={value}"):
        Holdout(**options)


def test_something_must_be_left_to_fit():
    with pytest.raises(InputError, match="leave nothing to fit"):
        Holdout(judged=0.6, validation=0.4)
