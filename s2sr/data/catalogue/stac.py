"""Search a STAC catalogue for acquisitions of an area and a season.

Servers filter what they can, and everything is filtered again here, since some silently ignore `query`. Items remain
raw JSON, so that what is saved is what the catalogue returned.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from s2sr.data.catalogue.area import Area
from s2sr.data.harmonise import Item, baseline
from s2sr.errors import InputError

if TYPE_CHECKING:
    from pystac_client import Client

PATIENCE = (5, 8)  # seconds to connect and to answer, tried twice: without a network users know within 30
SEARCHING = (5, 30)  # the same once the API has answered
RETRIED = (429, 500, 502, 503, 504)


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


def search(
    catalog: str,
    collection: str,
    *,
    area: Area,
    season: Season,
    max_cloud_cover: float,  # of the tile, per cent
    orbits: Sequence[int] | None,
) -> tuple[list[Product], int]:
    """(the products of the area and season by time, the number of further ones that are too cloudy).

    `catalog`: the URL of a STAC API, or a file that holds an ItemCollection.
    Raises InputError if there is no network, no STAC API, no such collection or nothing usable in its answer.
    """
    items = _of_file(catalog) if is_local(catalog) else _of_api(catalog, collection, area, season, max_cloud_cover)
    found, cloudy = {}, 0
    for item in items:
        product = Product(item)
        try:
            wanted = (
                item.get("collection", collection) == collection
                and product.datetime.date() in season
                and product.outline.intersects(area.polygon)
                and (not orbits or product.orbit in orbits)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{catalog}: item {item.get('id')} is not a STAC item ({error!r})") from error
        if wanted and (product.cloud_cover or 0) > max_cloud_cover:
            cloudy += 1
        elif wanted:
            found[product.id] = product
    return sorted(found.values(), key=lambda product: (product.datetime, product.id)), cloudy


def is_local(catalog: str) -> bool:
    """Whether the catalogue is a file; else it is the URL of an API."""
    return urlsplit(catalog).scheme not in ("http", "https")


def link(catalog: str, item: Item, asset: str) -> str:
    """Where an asset is read from.

    Raises InputError if the item does not have it, or links to anything but http(s) or, in a local catalogue, a file.
    """
    try:
        href = str(item["assets"][asset]["href"])
    except (KeyError, TypeError):
        there = ", ".join(item.get("assets", {}))
        raise InputError(f"{item.get('id')}: no asset {asset} among {there}; see data.assets") from None
    if urlsplit(href).scheme in ("http", "https"):
        return href
    if is_local(catalog):
        base = Path(catalog.removeprefix("file://")).expanduser().absolute().as_uri()
        parts = urlsplit(urljoin(base, href))
        if parts.scheme == "file" and not parts.netloc and not parts.path.startswith("/vsi"):
            return parts.path
    raise InputError(f"{item.get('id')}: its asset {asset} is at {href[:80]}, which is not an http or https link")


def _of_file(catalog: str) -> Iterator[Item]:
    path = Path(catalog.removeprefix("file://")).expanduser()
    try:
        yield from json.loads(path.read_text())["features"]
    except OSError as error:
        raise InputError(f"data.catalog={catalog}: neither a URL (https://...) nor a file that can be read") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"data.catalog={catalog}: not an ItemCollection in JSON ({error!r})") from error


def _of_api(catalog: str, collection: str, area: Area, season: Season, max_cloud_cover: float) -> Iterator[Item]:
    import warnings

    from pystac_client.exceptions import APIError
    from pystac_client.warnings import PystacClientWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PystacClientWarning)
        client = _opened(catalog)
        query = {"eo:cloud_cover": {"lte": max_cloud_cover}} if client.conforms_to("QUERY") else None
        days = (datetime.combine(season.start, time.min, UTC), datetime.combine(season.end, time.max, UTC))
        found = client.search(
            collections=[collection],
            intersects=area.polygon.__geo_interface__,
            datetime=days,
            query=query,
            limit=100,
        )
        try:
            yield from found.items_as_dicts()
        except APIError as error:
            raise InputError(_refused(catalog, error)) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"data.catalog={catalog}: its answer to a search is not GeoJSON ({error!r})") from error


def _opened(catalog: str) -> Client:
    """A STAC API that can search. Raises InputError where there is none."""
    from pystac_client import Client
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO
    from urllib3.util.retry import Retry

    logging.getLogger("urllib3").setLevel(logging.ERROR)  # retries are not worth a message
    # a single retry if there is no connection or answer: users without a network should not wait
    retry = Retry(
        total=5,
        connect=1,
        read=1,
        backoff_factor=0.5,
        status_forcelist=RETRIED,
        allowed_methods=None,
        backoff_max=8,
        raise_on_status=False,
    )
    try:
        talk = StacApiIO(max_retries=retry)
        client = Client.open(catalog, stac_io=talk, timeout=PATIENCE)  # overrides a timeout given to StacApiIO
        talk.timeout = SEARCHING
    except APIError as error:
        raise InputError(_refused(catalog, error)) from error
    except Exception as error:  # whatever pystac raises for other pages
        raise InputError(f"data.catalog={catalog}: not a STAC API") from error
    if not client.conforms_to("ITEM_SEARCH"):
        raise InputError(f"data.catalog={catalog}: not a STAC API with item search, but a plain catalogue")
    return client


def _refused(catalog: str, error: Exception) -> str:
    status = getattr(error, "status_code", None)
    if status is None:
        reason = re.sub(r"\s+", " ", str(error))
        reason = re.sub(r"<.*?>:? ?|^.*Caused by \w+\(|[\"')]+$", "", reason)[:160]
        return f"data.catalog={catalog}: cannot be reached; is there a network? ({reason})"
    if status == 404:
        return f"data.catalog={catalog}: not a STAC API (HTTP 404)"
    return f"data.catalog={catalog}: HTTP {status}: {re.sub(chr(10), ' ', str(error))[:160]}"
