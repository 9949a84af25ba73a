"""Fits that take a second: what the tests of the solver start from."""

from __future__ import annotations

from functools import partial

import lightning
import numpy as np
import torch
from torch import Tensor

from s2sr.data.holdout import Holdout
from s2sr.fit.losses import Huber
from s2sr.fit.module import Reconstruction
from s2sr.fit.schedules import Constant
from s2sr.fit.stages import Stage
from s2sr.model.field import SplatField
from s2sr.model.psf import PSF
from s2sr.model.scene import Scene
from s2sr.training import quiet

SHIFTS = np.array([(0.3, -0.2), (-0.2, 0.1), (0.1, 0.3), (-0.2, -0.2)])
OFF = SHIFTS + 0.04 * np.array([(1, 0), (-1, 1), (0, -1), (0, 0)])
LBFGS = partial(torch.optim.LBFGS, max_iter=5, history_size=5, line_search_fn="strong_wolfe")
ADAM = partial(torch.optim.Adam, lr=2e-3)
JOINT = [["weights", "shifts"]]


def stage(**options) -> Stage:
    defaults = {"optimizer": LBFGS, "blocks": [["weights"], ["shifts"]], "steps": 1, "tv": Constant(0.5)}
    return Stage(**{**defaults, **options})


def reconstruction(
    scene: Scene, *stages: Stage, levels: tuple[int, ...] = (1, 2), start: np.ndarray = OFF, **options
) -> Reconstruction:
    """The fit before it starts, from shifts that are off by some hundredths."""
    model = {name: options.pop(name) for name in ("gain", "offset", "samplings") if name in options}
    field = SplatField(
        scene.grid,
        scene.bands,
        scale=levels[0],
        psf=PSF(0.4, learn=options.pop("learn", False)),
        shifts=torch.as_tensor(start),
        **model,
    )
    named = {f"stage{k}": one for k, one in enumerate(stages)}
    return Reconstruction(scene, field, stages=named, levels=levels, **{"misfit": Huber(), "tv_delta": 0.1, **options})


def solve(module: Reconstruction) -> Reconstruction:
    with quiet():
        lightning.Trainer(
            max_epochs=len(module.phases),
            reload_dataloaders_every_n_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        ).fit(module)
    return module


def state(module: Reconstruction) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Both states are the same, bit for bit."""
    assert one.keys() == other.keys()
    differ = [name for name in one if not torch.equal(one[name], other[name])]
    assert not differ, [(name, float((one[name] - other[name]).abs().max())) for name in differ]


def withheld(scene: Scene) -> Scene:
    return Holdout(judged=0.1, validation=0.2, side=3).split(scene, validation=True)
