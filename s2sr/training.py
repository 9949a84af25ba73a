"""Lightning's part of a run: one fit on one device, from a checkpoint if there is one."""

from __future__ import annotations

import logging
import signal
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import psutil
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from s2sr.errors import InputError
from s2sr.fit.module import Reconstruction
from s2sr.interruption import heed
from s2sr.observations import build


def train(
    module: Reconstruction, cfg: DictConfig, *, folder: Path | None = None, loggers: Any = False, callbacks: Any = None
) -> None:
    """Run all phases of a module, from the last checkpoint in `folder` if there is one.

    Raises InputError for invalid trainer settings, a checkpoint that is damaged, of other observations or of another
    version, or too little memory, and KeyboardInterrupt after Ctrl-C.
    """
    last = folder and folder / "checkpoints" / "last.ckpt"
    if last and last.exists() and not zipfile.is_zipfile(last):
        raise InputError(f"{last} is damaged: copy another checkpoint of its folder over it, or start the run anew")
    trainer = trainer_of(
        cfg,
        max_epochs=len(module.phases),
        logger=loggers,
        callbacks=callbacks,
        default_root_dir=folder,
        enable_checkpointing=folder is not None,
    )
    heed()  # Ctrl-C may have been lost while the loggers were imported
    with quiet(), enough_memory():
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(module, ckpt_path=str(last) if last and last.exists() else None)
        except SystemExit as exit:  # Lightning's translation of Ctrl-C; it ignores further ones
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from exit


def trainer_of(cfg: DictConfig, **options: Any) -> lightning.Trainer:
    """The configured trainer; `auto` is CUDA if available, else the CPU.

    Raises InputError for invalid settings, a device without double precision, or several devices.
    """
    settings = build(cfg.trainer)
    if settings.get("accelerator") == "auto":  # Lightning would take Apple's GPU, too, which has no double precision
        settings["accelerator"] = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with quiet():
            trainer = lightning.Trainer(
                **settings,
                **options,
                reload_dataloaders_every_n_epochs=1,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
        torch.zeros((), dtype=torch.float64, device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            raise ValueError(f"devices={settings['devices']}: a fit runs on one")
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise InputError(f"trainer: {error}") from error
    return trainer


def free_memory(device: torch.device) -> float:
    """Free memory of a device, bytes."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


@contextmanager
def enough_memory() -> Iterator[None]:
    """Raises InputError if a device runs out of memory despite the estimate."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            f"the device has not enough memory ({str(error).partition('. ')[0]}): choose a smaller crop, "
            "c2f.levels=[2,4], fewer bands, or trainer.accelerator=cpu"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Lightning's remarks on hardware, loaders and other products, but not its errors."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)
