"""resume=FOLDER: continue an interrupted run or sweep in its own folder, with its own configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from s2sr.errors import InputError

RUN, SWEEP = ".hydra/hydra.yaml", "multirun.yaml"  # where Hydra keeps its own part of what was started


def resumed(arguments: Sequence[str]) -> list[str]:
    """Turn resume=FOLDER into the arguments that continue a run or a sweep in its folder.

    Changes to the directory in which it was started, to which relative paths in its configuration refer.
    Raises InputError if the folder is neither's, if a run has finished, or if other overrides would change the result.
    """
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")][-1]
    folder = Path(given).expanduser().absolute()
    others = [argument for argument in arguments if not argument.startswith("resume=")]
    found = _sweep(folder, given, others) if (folder / SWEEP).is_file() else _run(folder, given, others)
    start = Path(settings_of(folder)["runtime"]["cwd"])
    if not start.is_dir():
        raise InputError(f"resume={given}: it was started in {start}, which is no longer there")
    os.chdir(start)
    return found


def settings_of(folder: Path) -> dict[str, Any]:
    """Hydra's own part of the configuration of a run or a sweep.

    Raises InputError if it is missing or incomplete.
    """
    path = folder / (SWEEP if (folder / SWEEP).is_file() else RUN)
    try:
        settings = yaml.safe_load(path.read_text())["hydra"]
        _ = settings["runtime"]["cwd"]  # which stands near the end
    except (OSError, TypeError, KeyError, yaml.YAMLError) as error:
        raise InputError(f"{path} is missing or not whole: start it anew") from error
    return settings


def finished(folder: Path) -> bool:
    """Whether the run in a folder has succeeded, up to its page, which is written last."""
    try:
        status = json.loads((folder / "metrics.json").read_text())["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return status == "ok" and all((folder / name).is_file() for name in ("sr.tif", "report.html"))


def _run(folder: Path, given: str, others: Sequence[str]) -> list[str]:
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise InputError(f"resume={given}: not the folder of a run, it has no .hydra/config.yaml")
    if finished(folder):
        raise InputError(f"resume={given}: the run has finished, see metrics.json there")
    allowed = [argument for argument in others if argument.lstrip("+").startswith(("trainer.", "logger."))]
    if len(allowed) < len(others):
        raise InputError(
            f"a run resumes with its own configuration: leave out {' '.join(o for o in others if o not in allowed)} "
            "(only trainer.KEY=VALUE and logger.KEY=VALUE may come with resume)"
        )
    return [
        f"--config-dir={folder / '.hydra'}",
        "--config-name=config",
        "hydra/job_logging=plain",
        "+hydra.callbacks.start._target_=s2sr.cli.Start",
        "hydra.job.name=train",
        f"hydra.run.dir={_quoted(folder)}",
        "hydra.output_subdir=null",
        *allowed,
    ]


def _sweep(folder: Path, given: str, others: Sequence[str]) -> list[str]:
    """The same command in the same folder: its jobs have the same numbers, by which each finds what it has."""
    settings = settings_of(folder)
    task, own = settings["overrides"]["task"], settings["overrides"]["hydra"]
    if not settings["sweeper"]["_target_"].endswith(".BasicSweeper") or any("shuffle" in o for o in task):
        raise InputError(f"resume={given}: its jobs would be others; only a sweep over listed values can be carried on")
    if left := [o for o in others if not o.startswith(("-m", "--multirun", "hydra/launcher=", "hydra.launcher."))]:
        raise InputError(
            f"a sweep resumes with its own configuration: leave out {' '.join(left)} (only hydra/launcher=NAME and "
            "hydra.launcher.KEY=VALUE may come with resume)"
        )
    launcher = [o for o in others if o.startswith("hydra")]
    kept = ("hydra.mode=", "hydra.sweep.dir=", *(["hydra/launcher", "hydra.launcher"] if launcher else []))
    sources = settings["runtime"]["config_sources"]
    return [
        *(f"--config-dir={source['path']}" for source in sources if source["provider"] == "command-line"),
        f"--config-name={settings['job']['config_name']}",
        "--multirun",
        *task,
        *(o for o in own if not o.startswith(kept)),
        f"hydra.sweep.dir={_quoted(folder)}",
        *launcher,
    ]


def _quoted(folder: Path) -> str:
    return "'" + str(folder).replace("'", "\\'") + "'"
