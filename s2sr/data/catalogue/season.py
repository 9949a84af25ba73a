"""The days that are searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from s2sr.errors import InputError


@dataclass(frozen=True)
class Season:
    """A range of days, inclusive, optionally restricted to a part of each year."""

    start: date
    end: date
    months: tuple[str, str] | None = None  # MM-DD; may span the new year

    @classmethod
    def of(cls, start: Any, end: Any, season: Sequence[Any] | None) -> Season:
        """Raises InputError for an invalid date, or an end before the start."""
        if start is None or end is None:
            raise InputError("name the season: data.start=2025-04-01 data.end=2025-10-31, both included")
        days = []
        for name, value in (("start", start), ("end", end)):
            try:
                days.append(date.fromisoformat(str(value)))
            except ValueError:
                raise InputError(f"data.{name}={value}: not a date such as 2025-04-01") from None
        if days[1] < days[0]:
            raise InputError(f"data.end={end} is before data.start={start}")
        if season is None:
            return cls(days[0], days[1])
        try:
            first, last = (str(day) for day in season)
            for day in (first, last):
                date.fromisoformat(f"2024-{day}")
        except ValueError:
            raise InputError(f"data.season={season}: two days of the year, [MM-DD,MM-DD]") from None
        return cls(days[0], days[1], (first, last))

    def __contains__(self, day: date) -> bool:
        if not self.start <= day <= self.end:
            return False
        if self.months is None:
            return True
        first, last = self.months
        of_year = day.isoformat()[5:]
        return first <= of_year <= last if first <= last else of_year >= first or of_year <= last
