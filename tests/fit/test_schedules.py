import pytest

from s2sr.fit.schedules import Anneal, Constant, Ladder

PROGRESS = [k / 40 for k in range(41)]


def test_a_constant_stays():
    assert {Constant(0.5)(p) for p in PROGRESS} == {0.5}


@pytest.mark.parametrize("until", [0.25, 0.8, 1.0])
@pytest.mark.parametrize(("start", "stop"), [(0.5, 0.0), (1e-2, 1e-4), (0.1, 0.3)])
def test_annealing_goes_from_start_to_stop_and_stays(start, stop, until):
    schedule = Anneal(start, stop, until)
    values = [schedule(p) for p in PROGRESS]
    assert values[0] == start
    assert all(v == stop for v, p in zip(values, PROGRESS, strict=True) if p >= until)
    assert values == sorted(values, reverse=start > stop)
    assert schedule(until / 2) == pytest.approx((start + stop) / 2)


def test_annealing_ends_at_zero_with_the_stage():
    assert (Anneal(0.5)(0.99) > 0, Anneal(0.5)(1.0)) == (True, 0)


def test_a_ladder_gives_every_value_an_equal_share():
    ladder = Ladder([4.0, 2.0, 1.0])
    assert [ladder(k / 8) for k in range(9)] == [4, 4, 4, 2, 2, 2, 1, 1, 1]
