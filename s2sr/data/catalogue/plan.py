"""`scene.json` of a scene folder: the query to a catalogue, the selection, and the items, unsigned."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from s2sr.data.catalogue.product import Product
from s2sr.data.catalogue.selection import Pass
from s2sr.errors import InputError
from s2sr.files import atomic
from s2sr.model.grid import Grid

log = logging.getLogger(__name__)

NAME = "scene.json"


def planned(folder: Path, grid: Grid, query: Mapping[str, Any]) -> list[Pass] | None:
    """The selection saved in the folder for this query; None if it is for another query, or damaged.

    Raises InputError if the folder is for another grid.
    """
    path = folder / NAME
    try:
        plan = json.loads(path.read_text())
        saved, asked, items = plan["grid"], plan["query"], {item["id"]: item for item in plan["items"]["features"]}
        if saved != _as_json(vars(grid)):
            raise InputError(
                f"data.root={folder}: holds another area ({saved['shape'][0]} x {saved['shape'][1]} pixels, "
                f"{saved['crs']}); choose another data.root"
            )
        if asked != _as_json(query):
            return None
        return [
            Pass(tuple(Product(items[id]) for id in one["items"]), one["cloud"], one["coverage"])
            for one in plan["observations"]
        ]
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s: cannot be read (%r); searching again", path, error)
        return None


def save(folder: Path, grid: Grid, query: Mapping[str, Any], chosen: Sequence[Pass]) -> None:
    """Save the selection, whole or not at all. Raises InputError if the folder cannot be written."""
    items = {product.id: product.item for one in chosen for product in one.products}
    plan = {
        "version": version("s2sr"),
        "query": _as_json(query),
        "grid": _as_json(vars(grid)),
        "observations": [
            {
                "file": f"{one.name}.tif",
                "datetime": one.datetime.isoformat(),
                "cloud": one.cloud,
                "coverage": one.coverage,
                "items": [product.id for product in one.products],
            }
            for one in chosen
        ],
        "items": {"type": "FeatureCollection", "features": list(items.values())},
    }
    try:
        with atomic(folder / NAME) as path:
            path.write_text(json.dumps(plan, indent=1))
    except OSError as error:
        raise InputError(f"data.root={folder}: cannot be written ({error.strerror or error})") from error


def _as_json(values: Any) -> Any:
    """The values as JSON returns them: tuples become lists, and dates text."""
    return json.loads(json.dumps(values, default=str))
