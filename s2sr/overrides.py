"""Hydra's overrides as users write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

CONF = Path(__file__).resolve().parents[1] / "conf"
NO_TEXT = re.compile(r"[+-]?[\d.][\w.+-]*|null|true|false", re.IGNORECASE)


def quoted(arguments: Sequence[str]) -> list[str]:
    """`psf=0.5` names the file conf/psf/0.5.yaml, but Hydra reads a number (or null): quote the choices of groups."""

    def quote(argument: str) -> str:
        key, equals, value = argument.partition("=")
        if not equals or not (CONF / key.lstrip("+")).is_dir():
            return argument
        return f"{key}=" + ",".join(f"'{v}'" if NO_TEXT.fullmatch(v) else v for v in value.split(","))

    return [quote(argument) for argument in arguments]
