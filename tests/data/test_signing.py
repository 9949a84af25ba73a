"""Links of the Planetary Computer, signed with tokens from a server of the test's own."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from planetary_computer import sas
from planetary_computer.settings import Settings
from stac_servers import FileServer, file_server

from s2sr.data.signing import planetary_computer

LINK = "https://sentinel2.blob.core.windows.net/l2a/31/U/{}.tif"


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with file_server(tmp_path) as server:
        monkeypatch.setenv("PC_SDK_SAS_URL", server.mount())
        monkeypatch.setattr(sas, "TOKEN_CACHE", {})
        Settings.get.cache_clear()
        yield server
    Settings.get.cache_clear()


def offer(folder: Path, token: str) -> None:
    (folder / "sentinel2").mkdir(exist_ok=True)
    answer = {"msft:expiry": "2999-01-01T00:00:00Z", "token": f"sig={token}"}
    (folder / "sentinel2" / "l2a").write_text(json.dumps(answer))


def test_a_token_serves_all_until_it_is_refused(tokens, tmp_path):
    asked = []
    tokens.gate = lambda path, query: asked.append(path)
    offer(tmp_path, "one")
    links = [LINK.format(n) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(planetary_computer, links)) == [f"{link}?sig=one" for link in links]
    assert asked == ["sentinel2/l2a"]
    offer(tmp_path, "two")
    assert planetary_computer(links[0]) == f"{links[0]}?sig=one"
    assert planetary_computer(links[0], again=True) == f"{links[0]}?sig=two"


def test_without_tokens_it_is_soon_known(tokens):
    asked = []
    tokens.gate = lambda path, query: asked.append(path) or 503
    with pytest.raises(requests.RequestException):
        planetary_computer(LINK.format(0))
    assert len(asked) == 3  # the library's own ten retries take two minutes
