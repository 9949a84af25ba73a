"""Overrides as users type them, quoted for Hydra."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

CONF = Path(__file__).resolve().parents[1] / "conf"
NO_TEXT = re.compile(r"[+-]?[\d.][\w.+-]*|null|true|false", re.IGNORECASE)


def quoted(arguments: Sequence[str]) -> list[str]:
    """Put values in quotes that Hydra would misread.

    `psf=0.5` names the file conf/psf/0.5.yaml, not a number; and Hydra's grammar does not accept a folder such as
    ~/data/Äcker, in which the shell has not expanded the ~ either.
    """

    def quote(argument: str) -> str:
        key, equals, value = argument.partition("=")
        if not equals or key.startswith("-"):
            return argument
        if (CONF / key.lstrip("+")).is_dir():
            return f"{key}=" + ",".join(f"'{v}'" if NO_TEXT.fullmatch(v) else v for v in value.split(","))
        if set("[]{}'\",") & set(value) or _reads(argument):
            return argument
        return f"{key}='{Path(value).expanduser() if value.startswith('~/') else value}'"

    return [quote(argument) for argument in arguments]


def _reads(argument: str) -> bool:
    """Whether Hydra's grammar accepts it."""
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True
