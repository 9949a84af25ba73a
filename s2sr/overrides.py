"""Hydra's overrides as users write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

CONF = Path(__file__).resolve().parents[1] / "conf"
NUMBER = re.compile(r"[+-]?[\d.][\w.+-]*")


def quoted(arguments: Sequence[str]) -> list[str]:
    """`psf=0.5` names the file conf/psf/0.5.yaml, but Hydra reads a number: quote the choices of config groups."""

    def quote(argument: str) -> str:
        key, equals, value = argument.partition("=")
        if not equals or not (CONF / key.lstrip("+")).is_dir():
            return argument
        return f"{key}=" + ",".join(f"'{v}'" if NUMBER.fullmatch(v) else v for v in value.split(","))

    return [quote(argument) for argument in arguments]
