"""Offline runs of the dashboard, read back by its own reader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from runs import environment

WANDB = Path(sys.executable).with_name("wandb")


def offline_runs(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


def inspect(folder: Path, *options: str) -> str:
    answer = subprocess.run(
        [WANDB, "leet", "inspect", *options, "--json", folder],
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in inspect(folder).splitlines() if line.startswith("{")]
