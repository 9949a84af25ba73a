"""Links that open for a while only. What is saved is never signed; a link is signed each time it is read."""

from __future__ import annotations

from threading import Lock

_one_at_a_time = Lock()  # else each thread fetches its own token


def planetary_computer(href: str, *, again: bool = False) -> str:
    """An Azure link with a token of the Planetary Computer, any other as it is; `again`: the last token was refused.

    Tokens are kept by the library until a minute before they expire. Raises requests.RequestException.
    """
    from urllib.parse import urlsplit

    from planetary_computer import sas, sign_url

    parts = urlsplit(href)
    if not parts.netloc.endswith(sas.BLOB_STORAGE_DOMAIN):
        return href
    with _one_at_a_time:
        if again:
            sas.TOKEN_CACHE.clear()
        # the library's own ten tries last two minutes without a network; it then finds the token in its cache
        sas.get_token(parts.netloc.partition(".")[0], parts.path.split("/")[1], retry_total=2)
        return sign_url(href)
