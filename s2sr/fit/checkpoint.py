"""Checkpoints: `last.ckpt` at the end of every phase, and one per stage and level that is kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint


class StraightToDisk(TorchCheckpointIO):
    """Write without a copy in memory; `LevelCheckpoint` renames the file once it is complete."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        torch.save(checkpoint, path)


class LevelCheckpoint(Checkpoint):
    """A Checkpoint, because Lightning runs those after all other callbacks, when the epoch counts as done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        trainer.strategy.checkpoint_io = StraightToDisk()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        beside, last = self.folder / "last.ckpt.part", self.folder / "last.ckpt"
        trainer.save_checkpoint(beside)
        if module.phase.ends_level:
            level = self.folder / f"{module.phase.name}_x{module.phase.scale}.ckpt"
            part = level.with_suffix(".part")
            part.unlink(missing_ok=True)
            try:
                part.hardlink_to(beside)  # one file under two names
            except OSError:  # not every file system has links
                shutil.copyfile(beside, part)
            part.replace(level)
        beside.replace(last)
