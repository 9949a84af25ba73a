"""Fixtures of the download's tests; loaded by conftest.py. What is heavy is imported when a test asks for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The simulated archive on disk."""
    from stac_catalogue import World

    return World(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def file_server_of_all(world) -> Iterator[Any]:
    from stac_servers import file_server

    with file_server(world.folder) as server:
        yield server


@pytest.fixture
def files(file_server_of_all):
    """The archive over HTTP, under a URL of this test's own (`base`): nothing is cached, logged or broken yet."""
    file_server_of_all.base = file_server_of_all.mount()
    return file_server_of_all


@pytest.fixture
def saved(tmp_path):
    """Write items as a local catalogue, and return its path."""

    def saved(items, name="items.json") -> str:
        path = tmp_path / name
        path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        return str(path)

    return saved


@pytest.fixture(scope="session", params=["rustac", "pgstac"])
def api(request, world, file_server_of_all, tmp_path_factory) -> Iterator[str]:
    """The URL of a real STAC API that has both catalogues' items of the simulated archive."""
    import stac_servers
    from stac_catalogue import COLLECTION, collection

    base = f"{file_server_of_all.url}/{request.param}"
    items = [item for flavour in COLLECTION for item in world.items(flavour, base)]
    yield from _served(
        getattr(stac_servers, request.param), tmp_path_factory, map(collection, COLLECTION.values()), items
    )


@pytest.fixture(scope="session", params=["rustac", "pgstac"])
def real_api(request, world, file_server_of_all, shared_data, tmp_path_factory) -> Iterator[str]:
    """The same with real items and COGs."""
    import stac_servers
    from stac_catalogue import COLLECTION, collection, real_items

    folder = world.folder / "real"
    if not folder.exists():
        shutil.copytree(shared_data / "stac_local_cogs", folder)
    items = real_items(shared_data, f"{file_server_of_all.url}/{request.param}/real")
    yield from _served(
        getattr(stac_servers, request.param), tmp_path_factory, map(collection, COLLECTION.values()), items
    )


def _served(server, tmp_path_factory, collections, items) -> Iterator[str]:
    from stac_servers import Unavailable

    with ExitStack() as stack:
        try:
            url = stack.enter_context(server(tmp_path_factory.mktemp(server.__name__), list(collections), items))
        except Unavailable as why:
            pytest.skip(str(why))
        yield url
