from __future__ import annotations

import pytest
from torch.optim import Adam

from s2sr.errors import InputError
from s2sr.fit.schedules import Constant
from s2sr.fit.stages import Stage, check_levels, plan


def stage(**options) -> Stage:
    defaults = {"optimizer": Adam, "blocks": [["weights"], ["shifts"]], "steps": 2, "tv": Constant(0.5)}
    return Stage(**{**defaults, **options})


# --- one stage


def test_blocks_take_turns_in_rounds():
    assert stage(rounds=2, steps=3).visits == [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]
    assert stage(blocks=[["weights", "shifts"]], steps=4).visits == [0, 0, 0, 0]


FREE = {"weights": ["w"], "shifts": ["d"], "radiometry": [], "psf": []}


def test_blocks_with_nothing_to_fit_are_passed_over():
    given = stage(blocks=[["weights"], ["psf"], ["radiometry", "psf"], ["shifts", "psf"]])
    assert given.without_fixed(FREE).blocks == [["weights"], ["shifts", "psf"]]
    assert len(given.blocks) == 4, "the stage itself stays as it is"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": [["weights"], ["shift", "gain"]]}, "blocks name gain, shift; choose from weights, shifts"),
        ({"levels": "last"}, "levels are 'last'; choose from all, coarsest, seen, finer, finest"),
        ({"optimizer": None}, "a stage needs an optimizer, or a start that does it all"),
        ({"steps": 0}, "at least 1, not 0, 1, 250"),
        ({"rounds": -1}, "at least 1, not 2, -1, 250"),
        ({"part": 0}, "at least 1, not 2, 1, 0"),
        ({"stop_on": "test"}, "stop_on is 'test'; choose validation, or null"),
    ],
)
def test_a_stage_that_makes_no_sense_raises(options, message):
    with pytest.raises(InputError, match=message):
        stage(**options)


# --- the ladder


@pytest.mark.parametrize(
    ("levels", "ladder", "expected"),
    [
        ("all", [2, 4], [2, 4]),
        ("coarsest", [1, 2, 4], [1]),
        ("seen", [1, 2, 4], [2]),
        ("seen", [4, 8], [4]),
        ("seen", [1], [1]),
        ("finer", [2, 4, 8], [4, 8]),
        ("finer", [4], [4]),
        ("finest", [2, 4], [4]),
    ],
)
def test_a_stage_takes_its_levels_of_the_ladder(levels, ladder, expected):
    assert [phase.scale for phase in plan({"one": stage(levels=levels)}, ladder)] == expected


@pytest.mark.parametrize("levels", [[1], [4], [2, 4, 8], [1, 3, 12]])
def test_good_ladders_pass(levels):
    assert check_levels(levels) == levels


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (4, "levels are positive integers"),
        ("2,4", "levels are positive integers"),
        (None, "levels are positive integers"),
        ([], "levels are positive integers"),
        ([0, 2], "levels are positive integers"),
        ([-2, 4], "levels are positive integers"),
        ([True, 2], "levels are positive integers"),
        ([2, 4.0], "levels are positive integers"),
        (["2", "4"], "levels are positive integers"),
        ([3, 4], "3 does not divide 4"),
        ([2, 4, 6], "4 does not divide 6"),
        ([4, 2], "4 does not divide 2"),
        ([2, 2], "2 does not divide 2"),
    ],
)
def test_bad_ladders_raise_and_are_quoted(levels, message):
    with pytest.raises(InputError, match=message) as error:
        check_levels(levels)
    assert f"c2f.levels={levels}" in str(error.value)


# --- the plan


def test_stages_run_in_order_each_from_coarse_to_fine():
    stages = {"warm_up": stage(levels="coarsest"), "climb": stage(levels="all"), "polish": stage(levels="finest")}
    phases = plan(stages, [2, 4, 8])
    assert [(p.name, p.scale) for p in phases] == [
        ("warm_up", 2),
        ("climb", 2),
        ("climb", 4),
        ("climb", 8),
        ("polish", 8),
    ]
    assert all(p.starts_level and p.ends_level for p in phases)


@pytest.mark.parametrize(("part", "ends"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7]), (7, [7]), (100, [7])])
def test_a_long_level_is_cut_into_parts_that_cover_it(part, ends):
    long = stage(blocks=[["weights"]], steps=7, part=part)
    phases = plan({"long": long}, [4])
    assert [p.last for p in phases] == ends
    assert [v for p in phases for v in p.visits] == long.visits
    assert [p.starts_level for p in phases] == [p is phases[0] for p in phases]
    assert [p.ends_level for p in phases] == [p is phases[-1] for p in phases]
    progress = [p.progress(k) for p in phases for k in range(len(p.visits))]
    assert progress == pytest.approx([k / 6 for k in range(7)]), "as if it had not been cut"


def test_the_only_step_is_the_beginning():
    (phase,) = plan({"short": stage(blocks=[["weights"]], steps=1)}, [4])
    assert phase.progress(0) == 0


def test_on_a_one_step_ladder_every_stage_runs_there():
    stages = {"warm_up": stage(levels="coarsest"), "climb": stage(), "polish": stage(levels="finest")}
    assert {p.scale for p in plan(stages, [4])} == {4}


@pytest.mark.parametrize("levels", ["all", "coarsest"])
def test_going_back_to_a_coarser_level_raises(levels):
    with pytest.raises(InputError, match="stage again goes back from level 8 to 2; use levels: finest"):
        plan({"first": stage(), "again": stage(levels=levels)}, [2, 4, 8])


def test_a_strategy_without_stages_raises():
    with pytest.raises(InputError, match="the strategy has no stages"):
        plan({}, [2, 4])


def test_a_strategy_in_which_everything_is_fixed_raises():
    """Its stages have no blocks left, so nothing would be done, and nobody would be told."""
    with pytest.raises(InputError, match="the strategy has no stages that fit"):
        plan({"tone": stage(blocks=[["radiometry"]]).without_fixed(FREE)}, [2, 4])
