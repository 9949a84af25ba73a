import datetime

import pytest

from s2sr.data.catalogue.season import Season
from s2sr.errors import InputError


@pytest.mark.parametrize(
    ("season", "inside", "outside"),
    [
        (["04-01", "10-31"], ["2021-04-01", "2022-10-31"], ["2021-03-31", "2022-11-01"]),
        (["11-15", "02-10"], ["2021-11-15", "2022-02-10", "2022-12-31"], ["2021-11-14", "2022-02-11"]),
    ],
)
def test_a_season_of_each_year(season, inside, outside):
    days = Season.of("2021-01-01", "2022-12-31", season)
    assert all(datetime.date.fromisoformat(day) in days for day in inside)
    assert not any(datetime.date.fromisoformat(day) in days for day in [*outside, "2020-12-01", "2023-01-01"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("2023-05-31", "2023-05-01", None), "is before"),
        (("May", "2023-05-01", None), "data.start=May: not a date"),
        ((None, "2023-05-01", None), "name the season"),
        (("2023-05-01", "2023-05-31", ["13-01", "02-01"]), "two days of the year"),
        (("2023-05-01", "2023-05-31", ["04-01"]), "two days of the year"),
    ],
)
def test_impossible_dates(given, said):
    with pytest.raises(InputError, match=said):
        Season.of(*given)
