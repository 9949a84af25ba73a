"""Search a STAC catalogue for acquisitions of an area and a season.

Servers filter what they can, and everything is filtered again here, since some silently ignore `query`.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from s2sr.data.catalogue.area import Area
from s2sr.data.catalogue.product import Product
from s2sr.data.catalogue.season import Season
from s2sr.data.harmonise import Item
from s2sr.errors import InputError

if TYPE_CHECKING:
    from pystac_client import Client

PATIENCE = (5, 8)  # seconds to connect and to answer, tried twice: without a network users know within 30
SEARCHING = (5, 30)  # the same once the API has answered
RETRIED = (429, 500, 502, 503, 504)


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
        names = ", ".join(item.get("assets", {}))
        raise InputError(f"{item.get('id')}: no asset {asset} among {names}; see data.assets") from None
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
