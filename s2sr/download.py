"""Only fetch the observations: python -m s2sr.download data.bbox=[WEST,SOUTH,EAST,NORTH] data.start=DATE data.end=DATE

Takes the keys of train.py; `data=planetary_computer` unless another is chosen. Downloads what is missing.
"""

from __future__ import annotations

import logging
import sys

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from s2sr.cli import Console
from s2sr.errors import InputError
from s2sr.overrides import CONF, quoted


def main() -> None:
    """The command line; ends the program with a line on stderr where it fails."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__, (CONF / "data" / "planetary_computer.yaml").read_text(), sep="\n")
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Console()])
    try:
        prepare(configuration(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\ninterrupted; the same command carries on", file=sys.stderr)
        sys.exit(130)
    except InputError as error:
        sys.exit(f"error: {error}")


def configuration(arguments: list[str]) -> DictConfig:
    """conf/download.yaml with overrides as on the command line. Raises InputError where they do not fit it."""
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("download", quoted(arguments))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_first_line(error)) from error


def prepare(cfg: DictConfig) -> None:
    """Fetch what the configuration's source needs. Raises InputError as it does."""
    try:
        source = instantiate(cfg.data, _convert_="all")
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_first_line(error)) from error
    source.prepare()
    print(getattr(source, "folder", "nothing to download: this source is not a catalogue"))


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


if __name__ == "__main__":
    main()
