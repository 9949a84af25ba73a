"""The command line around Hydra: numeric group choices, resume, exit codes, one line per error."""

from __future__ import annotations

import atexit
import ctypes
import gc
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import hydra
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from s2sr.errors import InputError
from s2sr.interruption import interrupted, interruptible
from s2sr.overrides import CONF, quoted

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


class Console(logging.StreamHandler[TextIO]):
    """To sys.stdout as it is at the moment: while a progress bar runs, that is one that keeps lines and bar apart."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stdout


def resumed(arguments: Sequence[str]) -> list[str]:
    """Turns resume=RUN_DIR into the arguments that run the folder's own configuration in the folder again.

    Changes to the folder in which the run was started: relative paths in its configuration count from there.
    Raises InputError if the folder is not that of a run, has finished, or other settings than the trainer's and the
    logger's come with it.
    """
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")][-1]
    folder = Path(given).expanduser().absolute()
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise InputError(f"resume={given}: not the folder of a run, it has no .hydra/config.yaml")
    if all((folder / name).exists() for name in ("sr.tif", "metrics.json", "report.html")):  # the page comes last
        raise InputError(f"resume={given}: the run has finished, see metrics.json there")
    allowed = [a for a in arguments if a.lstrip("+").startswith(("trainer.", "logger."))]
    others = [a for a in arguments if a not in allowed and not a.startswith("resume=")]
    if others:
        raise InputError(
            f"a run resumes with its own configuration: leave out {' '.join(others)} "
            "(only trainer.KEY=VALUE and logger.KEY=VALUE may come with resume)"
        )
    start = Path(settings_of(folder)["runtime"]["cwd"])
    if not start.is_dir():
        raise InputError(f"resume={given}: the run was started in {start}, which is no longer there")
    os.chdir(start)
    quoted_folder = str(folder).replace("'", "\\'")
    return [
        f"--config-dir={folder / '.hydra'}",
        "--config-name=config",
        "hydra/job_logging=plain",
        "hydra.job.name=train",
        f"hydra.run.dir='{quoted_folder}'",
        "hydra.output_subdir=null",
        *allowed,
    ]


def settings_of(folder: Path) -> dict[str, Any]:
    """Hydra's own part of the configuration that a run was started with."""
    return yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text())["hydra"]


def main(config_name: str) -> None:
    """Compose conf/`config_name` with the command line's overrides, and run every job of it."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what it would print, here and there with a traceback
    try:
        arguments = sys.argv[1:]
        if any(argument.startswith("resume=") for argument in arguments):
            arguments = resumed(arguments)
    except InputError as error:
        sys.exit(f"error: {error}")
    sys.argv[1:] = quoted(arguments)
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
    except (HydraException, OmegaConfBaseException, OSError) as error:
        sys.exit(f"error: {in_a_line(error)}")


def in_a_line(error: Exception) -> str:
    """What Hydra says, and why, without the places in which it has looked."""
    why = f" ({str(error.__cause__).splitlines()[0]})" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return " ".join(str(error).partition("Config search path")[0].split()) + why


def command(config_name: str, run: Callable[[DictConfig], None], *, help: str) -> None:
    """A command without a run folder: compose conf/`config_name` with the command line's overrides, and `run` that.

    Ends the program with a line on stderr where it fails.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help)
        return
    atexit.register(gc.freeze)  # for the same reason as in `experiment`
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Console()])
    with interruptible("the same command carries on"):
        try:
            with initialize_config_dir(str(CONF), version_base="1.3"):
                cfg = compose(config_name, quoted(sys.argv[1:]))
            run(cfg)
        except (InputError, HydraException, OmegaConfBaseException) as error:
            sys.exit(f"error: {in_a_line(error)}")


def job(cfg: DictConfig) -> None:
    """One run. In a sweep a failed one is recorded and the others go on; alone it ends the program."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    place = folder if settings.output_subdir is None else shown(folder)  # a resumed run has changed its directory
    sweep = settings.mode == RunMode.MULTIRUN
    try:
        experiment()(cfg, folder, group=group_of(folder), resume=settings.output_subdir is None)
        if not sweep:  # which names its own files
            say(place)
    except (KeyboardInterrupt, Exception) as error:
        if interrupted(error):
            raise KeyboardInterrupt(f"carry on with: python train.py resume={shlex.quote(str(place))}") from error
        reason = str(error)
        if isinstance(error, MemoryError):
            reason = f"there is not enough memory ({reason}); choose a smaller scene or crop"
        elif isinstance(error, OSError) and (folder / "checkpoints" / "last.ckpt").exists():
            reason += f"; once that is mended, carry on with: python train.py resume={shlex.quote(str(place))}"
        elif not isinstance(error, InputError | OSError):
            log.exception("the run failed")
        if not sweep:
            sys.exit(f"error: {reason}")
        from s2sr.report.products import write_json

        log.error("%s", reason)
        write_json(folder / "metrics.json", {"status": "failed", "error": f"{type(error).__name__}: {reason}"})
    finally:
        close_dashboard()


@cache
def experiment() -> Callable[..., Any]:
    """`s2sr.experiment.run`: seconds of imports that a typo in an override should not wait for.

    A million objects that last as long as the program: to look through them for garbage would take two seconds more.
    """
    keep_memory()
    # How often threads that wait for each other look before they sleep, where OpenMP is GCC's. Its own 300 000 keep the
    # cores from other programs, and so from each other; asleep at once, they wake up too late.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    atexit.register(gc.freeze)
    gc.disable()
    from s2sr.experiment import run

    gc.freeze()
    gc.enable()
    return run


def keep_memory() -> None:
    """Large tensors come and go at every evaluation, and new pages for them may take longer than the arithmetic.

    So pages are large, and what is freed stays with the process, where the C library is GNU's.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it when it first allocates
    with suppress(AttributeError, OSError, TypeError):  # other systems know no mallopt, or not by this way
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def group_of(folder: Path) -> str | None:
    """The sweep that a run belongs to, also when it is resumed by itself."""
    if not (folder / ".hydra" / "hydra.yaml").is_file():  # hydra.output_subdir=null
        return None
    settings = settings_of(folder)
    return Path(settings["sweep"]["dir"]).name if settings["mode"] == RunMode.MULTIRUN.name else None


def close_dashboard() -> None:
    """Else the next job of a sweep would go on in this run."""
    if wandb := sys.modules.get("wandb"):
        wandb.finish()


def shown(path: Path) -> Path:
    """As short as it can be named from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def say(folder: Path) -> None:
    """Names the files that were written."""
    for name in (
        *("sr.tif", "sr_std.tif", "sr_count.tif", "sr.png", "comparison.png", "uncertainty.png", "consistency.png"),
        *("frc.png", "report.html", "metrics.json", "shifts.csv"),
    ):
        if (folder / name).is_file():  # frc.png is made where it is asked for
            print(folder / name)
