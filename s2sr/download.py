"""Only download observations: python -m s2sr.download data.bbox=[WEST,SOUTH,EAST,NORTH] data.start=DATE data.end=DATE

Takes the keys of train.py, with `data=planetary_computer` as default. Downloads what is missing.
"""

from __future__ import annotations

from hydra.utils import instantiate
from omegaconf import DictConfig

from s2sr.cli import command
from s2sr.overrides import CONF


def main() -> None:
    """The command line; on failure ends the program with one line on stderr."""
    command("download", prepare, help=f"{__doc__}\n{(CONF / 'data' / 'planetary_computer.yaml').read_text()}")


def prepare(cfg: DictConfig) -> None:
    """Download the observations of the configured source. Raises InputError as it does."""
    source = instantiate(cfg.data, _convert_="all")
    source.prepare()
    print(getattr(source, "folder", "nothing to download: this source is not a catalogue"))


if __name__ == "__main__":
    main()
