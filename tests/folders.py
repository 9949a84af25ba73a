"""Folders of runs and sweeps as the programs leave them, in milliseconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from s2sr.model.grid import Grid
from s2sr.model.scene import Observation, Scene, Truth
from s2sr.report.products import shifts_csv, write_baseline, write_csv, write_geotiff, write_json, write_truth

BANDS = ("B02", "B03", "B04")


def write_job(
    folder: Path,
    overrides: Sequence[str],
    *,
    metrics: Mapping[str, Any] | None = None,
    scale: int = 4,
    shape: tuple[int, int] = (16, 20),
    bands: Sequence[str] = BANDS,
    crs: str | None = "EPSG:32633",
) -> Scene:
    """A job of a sweep; metrics=None: it has died without a word. The scene that it was made from."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, len(bands), *shape, generator=generator)
    grid = Grid(crs, (10.0, 0.0, 499980.0, 0.0, -10.0, 4200000.0), shape)
    observations = tuple(Observation(f"S2_{t}", f"2023-06-{t + 1:02d}", 1.0) for t in range(2))
    fine = frames.mean(0).repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    truth = Truth(fine, scale, torch.zeros(2, 2), torch.full((len(bands),), 0.4))
    scene = Scene(frames, torch.ones_like(frames, dtype=torch.bool), grid, bands, observations, truth=truth)
    if metrics is not None:
        write_json(folder / "metrics.json", metrics)
        if metrics["status"] == "ok":
            write_baseline(folder, scene)
            write_geotiff(folder / "sr.tif", fine, grid.scaled(scale), bands, tags={"s2sr_version": "1.2.3"})
    return scene


def write_run(folder: Path, metrics: Mapping[str, Any], *overrides: str, scale: int = 4) -> None:
    """The folder of a run with known truth, all that its page shows."""
    scene = write_job(folder, overrides, metrics=metrics, scale=scale)
    write_truth(folder, scene, scale, (0.0, 0.0))
    shifts = torch.tensor([[0.1, -0.2], [-0.1, 0.2]])
    one, none = torch.ones(()), torch.zeros(())
    cloudy = Observation("S2_2", "2023-06-03", 0.1, "10 % clear")
    scene = dataclasses.replace(scene, rejected=(cloudy,))
    shifts_csv(folder / "shifts.csv", scene, shifts=shifts, gains=one, offsets=none, noise=0.002 * one)
    history: list[dict[str, Any]] = [{"evals": n, "fit/loss": 1000 / n} for n in (10, 20, 30)]
    history += [
        {"evals": 30, "sharpness/edge_contrast": 0.9, "sharpness/edge_contrast_bicubic": 0.5, "level": "one 4x"}
    ]
    write_csv(folder / "metrics.csv", history)
    (folder / ".hydra" / "config.yaml").write_text("seed: 0 # & <b>\n")
    write_settings(folder / ".hydra" / "hydra.yaml", overrides)


def write_settings(path: Path, overrides: Sequence[str], mode: str = "RUN") -> None:
    """Hydra's own part of a configuration, as far as it is read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    task = {"task": list(overrides), "hydra": [f"hydra.mode={mode}", "hydra.run.dir=a b"]}
    path.write_text(yaml.safe_dump({"hydra": {"mode": mode, "overrides": task}}))
