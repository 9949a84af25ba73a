"""One item of a catalogue, which stays raw JSON: what is saved is what the catalogue returned."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from s2sr.data.harmonise import Item, baseline
from s2sr.errors import InputError


@dataclass(frozen=True, eq=False)
class Product:
    """One item of the catalogue, with uniform access to properties that catalogues name differently."""

    item: Item

    @property
    def id(self) -> str:
        return str(self.item["id"])

    @property
    def properties(self) -> dict[str, Any]:
        return self.item["properties"]

    @cached_property
    def datetime(self) -> datetime:
        when = datetime.fromisoformat(self.properties.get("datetime") or self.properties["start_datetime"])
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)

    @cached_property
    def local_day(self) -> date:
        """Local solar day: passes over the Pacific cross midnight UTC."""
        return (self.datetime + timedelta(hours=self.outline.centroid.x / 15)).date()

    @cached_property
    def outline(self) -> BaseGeometry:
        outline = shape(self.item["geometry"]) if self.item.get("geometry") else box(*self.item["bbox"])
        return outline if outline.is_valid else outline.buffer(0)

    @property
    def cloud_cover(self) -> float | None:
        """Per cent of the tile."""
        return self.properties.get("eo:cloud_cover")

    @property
    def baseline(self) -> float:
        """Processing baseline; 0 if unknown, so that any known one is newer."""
        try:
            return baseline(self.item)
        except InputError:
            return 0.0

    @property
    def made(self) -> str:
        """Processing time: of one baseline the latest counts."""
        return str(self.properties.get("s2:generation_time") or self.properties.get("created") or "")

    @property
    def platform(self) -> str:
        """S2A, S2B, ...; S2 if unknown."""
        match = re.fullmatch(r"(?i)sentinel-?2([a-z])", str(self.properties.get("platform", "")))
        return f"S2{match[1].upper()}" if match else "S2"

    @property
    def orbit(self) -> int | None:
        """Relative orbit."""
        if isinstance(orbit := self.properties.get("sat:relative_orbit"), int):
            return orbit
        match = re.search(r"_R(\d{3})_", f"{self.properties.get('s2:product_uri', '')} {self.id}")
        return int(match[1]) if match else None

    @property
    def tile(self) -> str:
        """Military grid tile such as 31UFS; the item's id if unknown."""
        named = f"{self.properties.get('grid:code', '')} {self.properties.get('s2:mgrs_tile', '')} {self.id}"
        match = re.search(r"(?<![0-9A-Z])(?:MGRS-|T)?(\d\d[C-X][A-Z]{2})(?![0-9A-Z])", named)
        return match[1] if match else self.id

    @property
    def epsg(self) -> int | None:
        match = re.search(r"\d+$", str(self.properties.get("proj:epsg") or self.properties.get("proj:code") or ""))
        return int(match[0]) if match else None
