"""Signing of links, which expire: saved links are unsigned, and a link is signed each time it is read."""

from __future__ import annotations

from threading import Lock
from urllib.parse import urlsplit

_one_at_a_time = Lock()  # otherwise each thread would fetch a token


def planetary_computer(href: str, *, again: bool = False) -> str:
    """Sign an Azure link for the Planetary Computer; others pass through. again: the last token was refused.

    Tokens are kept by the library until a minute before they expire. Raises requests.RequestException.
    """
    from planetary_computer import sas, sign_url

    parts = urlsplit(href)
    if not parts.netloc.endswith(sas.BLOB_STORAGE_DOMAIN):
        return href
    with _one_at_a_time:
        if again:
            sas.TOKEN_CACHE.clear()
        # the library's default of ten retries takes two minutes without a network; sign_url then uses the cached token
        sas.get_token(parts.netloc.partition(".")[0], parts.path.split("/")[1], retry_total=2)
        return sign_url(href)
