"""The command line around Hydra: numeric group choices, resume, exit codes, one line per error."""

from __future__ import annotations

import atexit
import ctypes
import errno
import gc
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, TextIO

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, read_write
from omegaconf.errors import OmegaConfBaseException

from s2sr.claim import claimed, first_free
from s2sr.errors import InputError
from s2sr.interruption import ctrl_c, heed, interrupted, interruptible
from s2sr.overrides import CONF, quoted
from s2sr.resume import RUN, finished, resumed, settings_of

log = logging.getLogger(__name__)

HERE = Path.cwd()  # a resumed run changes to where it was first started
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


class Console(logging.StreamHandler[TextIO]):
    """Logs to the current sys.stdout, which a running progress bar replaces to keep lines and bar apart."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stdout


def main(config_name: str) -> None:
    """Compose conf/`config_name` with the command line's overrides, and run every job of it."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises errors instead of printing them
    logging.raiseExceptions = False  # a log that cannot be written, as on a full disk: what fails by it says so
    arguments = sys.argv[1:]
    resume = any(argument.startswith("resume=") for argument in arguments)
    try:
        sys.argv[1:] = quoted(resumed(arguments) if resume else arguments)
    except InputError as error:
        sys.exit(f"error: {error}")
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(partial(job, resume=resume))()
    except (HydraException, OmegaConfBaseException, OSError) as error:
        sys.exit(f"error: {in_a_line(error)}")


def in_a_line(error: Exception) -> str:
    """Hydra's message and its cause in one line, without the search path."""
    why = f" ({str(error.__cause__).splitlines()[0]})" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return " ".join(str(error).partition("Config search path")[0].split()) + why


def command(config_name: str, run: Callable[[DictConfig], None], *, help: str) -> None:
    """A command without a run folder: compose conf/`config_name` with the command line's overrides and `run` it.

    On failure, ends the program with one line on stderr.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help)
        return
    atexit.register(gc.freeze)  # for the same reason as in `experiment`
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Console()])
    with interruptible("the same command continues"):
        try:
            with initialize_config_dir(str(CONF), version_base="1.3"):
                cfg = compose(config_name, quoted(sys.argv[1:]))
            run(cfg)
        except (InputError, HydraException, OmegaConfBaseException) as error:
            sys.exit(f"error: {in_a_line(error)}")


def job(cfg: DictConfig, *, resume: bool = False) -> None:
    """One run. If it fails in a sweep, this is recorded and the others continue; a single run ends the program."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    sweep = settings.mode == RunMode.MULTIRUN
    place = Path(settings.sweep.dir).absolute() if sweep else folder
    again = carry_on("sweep.py" if sweep else "train.py", place)
    try:
        if resume and finished(folder):
            log.info("has finished already")
            return
        experiment()(cfg, folder, group=group_of(folder), resume=resume)
        if not sweep:  # a sweep names its own files
            say(shown(folder))
    except (KeyboardInterrupt, Exception) as error:
        if interrupted(error):
            raise KeyboardInterrupt(again) from error
        reason = str(error)
        if isinstance(error, MemoryError):
            reason = f"there is not enough memory ({reason}); choose a smaller scene or crop"
        elif isinstance(error, OSError):
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                reason += f"; {shutil.disk_usage(folder).free / 1e6:.0f} MB are free in {place}"
            if (folder / "checkpoints" / "last.ckpt").exists():
                reason += f"; once that is fixed, {again}"
        elif not isinstance(error, InputError):
            log.exception("the run failed")
        if not sweep:
            sys.exit(f"error: {reason}")
        from s2sr.report.products import write_json

        log.error("%s", reason)
        with suppress(OSError):  # what has failed may be the disk: then there is no metrics.json, which says it too
            write_json(folder / "metrics.json", {"status": "failed", "error": f"{type(error).__name__}: {reason}"})
    finally:
        close_dashboard()


@cache
def experiment() -> Callable[..., Any]:
    """`s2sr.experiment.run`, imported late: a typo in an override should not wait seconds for imports.

    They create a million permanent objects, which garbage collection would search for two more seconds.
    """
    keep_memory()
    # How often waiting threads poll before they sleep, for GCC's OpenMP. Its default of 300 000 blocks the cores for
    # other programs, and so for each other; threads that sleep at once wake up too late.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    atexit.register(gc.freeze)
    gc.disable()
    from s2sr.experiment import run

    gc.freeze()
    gc.enable()
    heed()
    return run


def keep_memory() -> None:
    """Use large memory pages and keep freed memory in the process, if the C library is GNU's.

    Large tensors come and go at every evaluation; fresh pages for them may take longer than the arithmetic.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it when it first allocates
    with suppress(AttributeError, OSError, TypeError):  # other systems have no mallopt, or no such access to it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def group_of(folder: Path) -> str | None:
    """The sweep that a run belongs to, even if it is resumed by itself."""
    if not (folder / RUN).is_file():  # hydra.output_subdir=null
        return None
    settings = settings_of(folder)
    return Path(settings["sweep"]["dir"]).name if settings["mode"] == RunMode.MULTIRUN.name else None


def close_dashboard() -> None:
    """Otherwise the next job of a sweep would continue in this wandb run."""
    if wandb := sys.modules.get("wandb"):
        wandb.finish()


class Start(Callback):
    """Hydra callback for `hydra.callbacks`: a run or a sweep has its folder to itself, and says how to carry on in it.

    Of programs that start in the same second all but one go to a folder beside it; a folder that was asked for and is
    in use ends the program.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        ctrl_c.then = carry_on("train.py", own_folder(config, "run"))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        ctrl_c.then = carry_on("sweep.py", own_folder(config, "sweep"))


def own_folder(config: DictConfig, kind: str) -> Path:
    """hydra.run.dir or hydra.sweep.dir, moved aside where that is in use. Ends the program if it was asked for."""
    node, given, folder = config.hydra[kind], config.hydra.overrides.hydra, Path(config.hydra[kind].dir)
    if any(override.startswith(f"hydra.{kind}.dir=") for override in given):
        if not claimed(folder):
            sys.exit(f"error: {folder}: another program is at work there; wait, or choose another hydra.{kind}.dir")
    elif (free := first_free(folder)) != folder:
        with read_write(config):
            node.dir = str(free)
            given.append(f"hydra.{kind}.dir={free}")  # of which the jobs of a sweep are composed
    return Path(node.dir).absolute()


def carry_on(script: str, folder: Path) -> str:
    return f"continue with: python {script} resume={shlex.quote(str(shown(folder)))}"


def shown(path: Path) -> Path:
    """The path relative to where the program was started, if it lies below."""
    return path.relative_to(HERE) if path.is_relative_to(HERE) else path


def say(folder: Path) -> None:
    """Print the files that were written."""
    for name in (
        *("sr.tif", "sr_std.tif", "sr_count.tif", "sr.png", "comparison.png", "uncertainty.png", "consistency.png"),
        *("frc.png", "report.html", "metrics.json", "shifts.csv"),
    ):
        if (folder / name).is_file():  # frc.png is made on request only
            print(folder / name)
