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
    for frame in judged[:, 0]:
        for image in (frame, frame.T):
            edges = (image[1:] != image[:-1]).any(1).nonzero().flatten().tolist()
            assert len({row % 7 for row in edges}) == 1, "every edge lies on one grid of 7 LR pixels"


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


def test_a_frame_that_is_almost_masked_keeps_what_it_has(scene):
    valid = torch.ones_like(scene.valid)
    clear = Holdout().split(dataclasses.replace(scene, valid=valid), validation=False).judged
    valid[2] &= clear[2]  # all that it shows would judge
    split = Holdout().split(dataclasses.replace(scene, valid=valid), validation=False)
    assert torch.equal(split.valid[2], valid[2])
    assert not split.judged[2].any()
    others = [t for t in range(len(scene)) if t != 2]
    assert torch.equal(split.judged[others], clear[others])


# --- whole dates


def test_dates_are_spread_over_time_and_halved(scene):
    fitted, dates = Holdout(dates=3, side=6).without_dates(scene)
    assert (len(fitted), len(dates)) == (len(scene) - 3, 3)
    names = [o.name for o in scene.observations]
    third = len(scene) / 3
    assert [int(names.index(o.name) // third) for o in dates.observations] == [0, 1, 2]
    held = [o for o in fitted.rejected if o.rejected == "withheld to judge the fit (holdout.dates)"]
    assert [o.name for o in held] == [o.name for o in dates.observations]
    own = [names.index(o.name) for o in dates.observations]
    assert torch.equal(dates.valid ^ dates.judged, scene.valid[own])
    assert not (dates.valid & dates.judged).any()
    assert dates.valid[0, 0, :6, :6].sum() == scene.valid[own[0], 0, :6, :6].sum(), "a block is in one half"
    assert not dates.valid[0, 0, :6, 6:12].any()
    assert dates.valid[0, 0, 6:12, 6:12].sum() == scene.valid[own[0], 0, 6:12, 6:12].sum(), "as on a chessboard"


def test_cloudy_dates_do_not_judge(scene):
    cloudy = [dataclasses.replace(o, clear=0.4 if t % 2 else 0.9) for t, o in enumerate(scene.observations)]
    _, dates = Holdout(dates=4).without_dates(dataclasses.replace(scene, observations=tuple(cloudy)))
    assert {o.clear for o in dates.observations} == {0.9}


def test_no_dates_is_the_scene_itself(scene):
    assert Holdout().without_dates(scene) == (scene, None)


@pytest.mark.parametrize(
    ("dates", "said"),
    [
        (11, r"holdout\.dates=11 leaves 1 of 12 observations to fit, at least 2 are needed"),
        (99, r"holdout\.dates=99 leaves 0 of 12 observations"),
        (5, r"holdout\.dates=5: only 4 observations are clear by half or more"),
    ],
)
def test_too_few_dates_are_one_clear_line(scene, dates, said):
    few = [dataclasses.replace(o, clear=0.9 if t < 4 else 0.4) for t, o in enumerate(scene.observations)]
    with pytest.raises(InputError, match=said):
        Holdout(dates=dates).without_dates(dataclasses.replace(scene, observations=tuple(few)))


@pytest.mark.parametrize(
    "options",
    [{"judged": 0}, {"judged": 1}, {"validation": 1.5}, {"side": 0}, {"dates": -1}, {"dates": 0.5}],
)
def test_bad_values_are_named(options):
    name, value = next(iter(options.items()))
    with pytest.raises(InputError, match=rf"holdout\.{name}={value}"):
        Holdout(**options)


def test_something_must_be_left_to_fit():
    with pytest.raises(InputError, match="leave nothing to fit"):
        Holdout(judged=0.6, validation=0.4)


def test_refit_is_a_stage():
    with pytest.raises(InputError, match=r"holdout\.refit=true: it is a stage, and there by default"):
        Holdout(refit=True)
