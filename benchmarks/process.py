"""Where the time and the memory of a whole run go, from `python train.py` to its end, by what a user waits for.

python benchmarks/process.py [--scenes 256,512] [--threads 2] [OVERRIDE ...]

256: 256 x 256 LR pixels, 8 observations, 4 bands, up to 8x. 512: 512 x 512, 16 observations, 3 bands, 4x. Both are the
scenes of benchmarks/scale.py, strategy=bayes. demo: `python train.py` as it is. OVERRIDEs go to all.

A row is a phase without what other rows say of what happens within it: seconds, seconds of the processor (on a shared
machine the better measure), and the most memory that the process held meanwhile. What runs beside the main thread (the
forecast beside the dashboard's start, files beside pictures) is part of the phase that it runs beside. `end` is what
comes after the program, and the processor's seconds of wandb's service.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCENES: dict[str, tuple[int, int, int, str]] = {  # size, observations, bands, levels
    "256": (256, 8, 4, "c2f=2_4_8"),
    "512": (512, 16, 3, "c2f=2_4"),
}
PHASES = {  # what each spends is that of these functions, named where they are called
    "read": ["s2sr.experiment:observe"],
    "register": ["s2sr.reconstruction:register"],
    "prepare": ["s2sr.reconstruction:prepare"],
    "budget": ["s2sr.reconstruction:Budget.of"],
    "fit": ["s2sr.reconstruction:train"],
    "judge": ["s2sr.reconstruction:judge"],
    "checkpoints": ["s2sr.fit.checkpoint:LevelCheckpoint.on_train_epoch_end"],
    "dashboard": [
        "s2sr.report.loggers:wandb_logger",
        "s2sr.report.dashboard:Dashboard.__init__",
        "s2sr.report.dashboard:Dashboard.on_train_start",
        "s2sr.report.dashboard:Dashboard.on_train_batch_end",
        "s2sr.report.dashboard:Dashboard.on_train_epoch_end",
        "s2sr.experiment:summarise",
        "s2sr.cli:close_dashboard",
    ],
    "numbers": ["s2sr.experiment:measured"],
    "uncertainty": ["s2sr.experiment:product_of"],
    "products": ["s2sr.experiment:write_products"],  # pictures, too
    "report": ["s2sr.experiment:write_run_page"],
}


class Clock:
    """The seconds, processor's seconds and peak memory of each phase; a phase within another counts for itself only."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}
        self.running = ["start"]
        self.wall, self.busy = time.time(), 0.0

    def mark(self) -> None:
        """Count what was spent since the last mark for the phase that is running."""
        wall, busy = time.time(), time.process_time()
        row = self.spent.setdefault(self.running[-1], [0.0, 0.0, 0.0])
        row[:] = row[0] + wall - self.wall, row[1] + busy - self.busy, max(row[2], peak())
        self.wall, self.busy = wall, busy

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.mark()
            self.running.append(phase)
            try:
                return function(*args, **kwargs)
            finally:
                self.mark()
                self.running.pop()

        return call


def peak() -> float:
    """The most memory held since this was asked before (where the system cannot tell: since the start), MB."""
    try:
        status = Path("/proc/self/status").read_text()
        Path("/proc/self/clear_refs").write_text("5")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(started: float, table: Path, overrides: list[str]) -> None:
    """Run train.py in this process and time its phases; `started`: seconds since the epoch."""
    clock = Clock()
    clock.wall = started
    sys.path.insert(0, str(ROOT))
    from s2sr import cli

    experiment = cli.experiment

    def timed() -> Callable[..., Any]:
        found = experiment()  # loads all that is named, as a run does
        for phase, functions in PHASES.items():
            for function in functions:
                module, _, path = function.partition(":")
                *classes, name = path.split(".")
                owner: Any = functools.reduce(getattr, classes, importlib.import_module(module))
                own = vars(owner)[name]
                told = clock.timed(phase, getattr(own, "__func__", own))
                setattr(owner, name, classmethod(told) if isinstance(own, classmethod) else told)
        return found

    cli.experiment = timed  # type: ignore[assignment]
    sys.argv[1:] = overrides
    try:
        cli.main("train")
    finally:
        clock.mark()
        table.write_text(json.dumps(clock.spent))


def measured(overrides: list[str]) -> dict[str, list[float]]:
    """The phases of a run in a process of its own, and their sum with what follows the end of the program."""
    with tempfile.TemporaryDirectory() as place:
        table = Path(place) / "phases.json"
        start = time.time()
        command = [sys.executable, __file__, "--run", str(start), str(table), *overrides]
        child = os.posix_spawn(sys.executable, [*command, f"hydra.run.dir={place}/run"], os.environ)
        _, status, used = os.wait4(child, 0)
        wall = time.time() - start
        if status:
            raise SystemExit(f"{' '.join(command)} failed")
        phases = json.loads(table.read_text())
    busy, memory = used.ru_utime + used.ru_stime, max(row[2] for row in phases.values())
    phases["end"] = [wall - sum(row[0] for row in phases.values()), busy - sum(row[1] for row in phases.values()), 0.0]
    return {**phases, "all": [wall, busy, memory]}


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        return run(float(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", default="256,512")
    parser.add_argument("--threads", type=int, default=2)
    options, overrides = parser.parse_known_args()
    from scale import write  # torch, which a run is to load itself

    for name in options.scenes.split(","):
        with tempfile.TemporaryDirectory() as place:
            given = [f"threads={options.threads}"]
            if name in SCENES:
                size, observations, bands, levels = SCENES[name]
                write(Path(place), size, observations, bands)
                given += ["data=geotiff", f"data.root={place}", "strategy=bayes", levels]
            phases = measured([*given, *overrides])
        print(f"{' '.join([name, *overrides]):40}" + "".join(f"{c:>12}" for c in ("seconds", "cpu s", "memory MB")))
        for phase, (wall, busy, memory) in phases.items():
            print(f"{phase:40}{wall:12.2f}{busy:12.2f}{memory:12.0f}", flush=True)


if __name__ == "__main__":
    main()
