"""The command line around Hydra: numeric group choices, resume, exit codes, one line per error."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from s2sr.errors import InputError

log = logging.getLogger(__name__)

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


def resumed(arguments: Sequence[str]) -> list[str]:
    """Turns resume=RUN_DIR into the arguments that run the folder's own configuration in the folder again.

    Raises InputError if the folder is not that of a run, has finished, or other settings than the trainer's and the
    logger's come with it.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments)
    folder = Path(given["resume"]).absolute()
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise InputError(f"resume={given['resume']}: not the folder of a run, it has no .hydra/config.yaml")
    if (folder / "sr.tif").exists() and (folder / "metrics.json").exists():
        raise InputError(f"resume={given['resume']}: the run has finished, see metrics.json there")
    others = [a for a in arguments if not a.startswith(("resume=", "trainer.", "logger."))]
    if others:
        raise InputError(f"a run resumes with its own configuration: leave out {' '.join(others)}")
    settings = yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text())
    os.chdir(settings["hydra"]["runtime"]["cwd"])  # relative paths in the configuration count from there
    return [
        f"--config-path={folder / '.hydra'}",
        "--config-name=config",
        f"hydra.run.dir='{folder}'",
        "hydra.output_subdir=null",
        *(a for a in arguments if not a.startswith("resume=")),
    ]


def main(config_name: str) -> None:
    """Compose conf/`config_name` with the command line's overrides, and run every job of it."""
    try:
        arguments = quoted(sys.argv[1:])
        if any(argument.startswith("resume=") for argument in arguments):
            arguments = resumed(arguments)
    except InputError as error:
        sys.exit(f"error: {error}")
    sys.argv[1:] = arguments
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()


def job(cfg: DictConfig) -> None:
    """One run. In a sweep a failed one is recorded and the others go on; alone it ends the program."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    sweep = settings.mode == RunMode.MULTIRUN
    try:
        from s2sr.experiment import run  # seconds of imports that a typo in an override should not wait for

        run(cfg, folder, group=Path(settings.sweep.dir).name if sweep else None)
        say(folder)
    except KeyboardInterrupt:
        print(f"\ninterrupted; carry on with: python train.py resume={relative(folder)}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not isinstance(error, InputError):
            log.exception("the run failed")
        if not sweep:
            sys.exit(f"error: {error}")
        from s2sr.report.products import write_json

        log.error("%s", error)
        write_json(folder / "metrics.json", {"status": "failed", "error": f"{type(error).__name__}: {error}"})
    finally:
        close_dashboard()


def close_dashboard() -> None:
    """Else the next job of a sweep would go on in this run."""
    if wandb := sys.modules.get("wandb"):
        wandb.finish()


def relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def say(folder: Path) -> None:
    """Names the files that were written."""
    for name in ("sr.tif", "sr.png", "comparison.png", "metrics.json", "shifts.csv"):
        print(relative(folder / name))
