"""How the end-to-end tests start the programs: in the way of a user, but tiny and without an account."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

SCENE = ("data.size=24", "data.n_dates=5", "c2f.levels=[1,2]")
LBFGS = tuple(f"strategy.coarse_to_fine.{key}" for key in ("optimizer.max_iter=3", "rounds=1", "steps=1"))
TINY = (*SCENE, "strategy=lbfgs", *LBFGS)
PRODUCTS = (
    *("sr.tif", "sr_std.tif", "sr_count.tif", "sr.png", "comparison.png", "uncertainty.png", "consistency.png"),
    *("report.html", "metrics.json", "shifts.csv"),
)


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HOME": str(home), "NETRC": str(home / "netrc")}
    return kept | own | more


def command(*arguments: str, script: str = "train.py") -> list[str]:
    """`script`: a file of the project, or a module such as s2sr.download."""
    own = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
    return [sys.executable, *own, *arguments]


def run(*arguments: str, cwd: Path, script: str = "train.py", **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end, in `cwd`; `more` are environment variables."""
    return subprocess.run(
        command(*arguments, script=script),
        cwd=cwd,
        env=environment(cwd, **more),
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


def start(*arguments: str, cwd: Path, script: str = "train.py", **how: Any) -> subprocess.Popen[str]:
    """Start the program in `cwd` and leave it running; `how`: further arguments of Popen."""
    return subprocess.Popen(
        command(*arguments, script=script),
        cwd=cwd,
        env=environment(cwd),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
        **how,
    )


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 300) -> None:
    """Wait until the process has made the file."""
    until = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, f"{path} has not appeared"
        time.sleep(0.002)


def nothing_written(folder: Path) -> bool:
    """There is no product, whole or in part."""
    left = {path.name for path in folder.rglob("*") if path.is_file() and ".hydra" not in path.parts}
    return left <= {"train.log"}
