from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch

from s2sr.errors import InputError
from s2sr.fit.budget import AROUND, BASE, Budget, evaluations
from s2sr.fit.losses import Huber
from s2sr.fit.module import Reconstruction
from s2sr.fit.schedules import Constant
from s2sr.fit.stages import Stage, plan
from s2sr.model.field import SplatField
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF
from s2sr.model.scene import Observation, Scene

LBFGS = Stage(
    optimizer=partial(torch.optim.LBFGS, max_iter=20, history_size=10), blocks=[["weights"]], steps=3, tv=Constant(0.5)
)
ADAM = Stage(optimizer=torch.optim.Adam, blocks=[["weights"]], steps=3, tv=Constant(0.5))


def module_of(
    side: int, stage: Stage, levels: list[int], bands: int = 1, then: Mapping[str, Stage] = {}
) -> Reconstruction:
    frames = torch.rand(2, bands, side, side, generator=torch.Generator().manual_seed(0))
    observations = tuple(Observation(str(t), "2023-01-01", 1.0) for t in range(2))
    scene = Scene(
        frames,
        torch.ones_like(frames, dtype=torch.bool),
        Grid(None, (1, 0, 0, 0, -1, 0), (side, side)),
        ("B02", "B03", "B04")[:bands],
        observations,
    )
    field = SplatField(scene.grid, scene.bands, scale=levels[0], psf=PSF(0.4), shifts=torch.zeros(2, 2))
    return Reconstruction(scene, field, stages={"only": stage, **then}, levels=levels, misfit=Huber(), tv_delta=0.1)


def budget(side: int, stage: Stage = LBFGS, levels: tuple[int, ...] = (2, 4), bands: int = 1, scale: int = 4) -> Budget:
    return Budget.of(module_of(side, stage, list(levels), bands), scale)


def test_evaluations_count_what_a_step_may_take():
    assert [evaluations(phase) for phase in plan({"a": LBFGS}, [2, 4])] == [60, 60]
    assert [evaluations(phase) for phase in plan({"a": ADAM}, [2])] == [3]
    in_turn = plan({"a": replace(LBFGS, blocks=[["weights"], ["shifts"]])}, [2])
    assert [evaluations(phase, of="weights") for phase in in_turn] == [60]


def test_solving_again_takes_its_time():
    module = module_of(64, LBFGS, [2])
    once, often = (Budget.of(module, 2, again=again).seconds for again in (0, 1000))
    assert often - AROUND > 50 * (once - AROUND)  # 1001 times; how long an evaluation takes is measured each time


def test_the_needs_grow_with_the_lattice_and_with_the_history():
    memory = [budget(40, levels=levels).memory - BASE for levels in ((2,), (2, 4), (2, 4, 8))]
    assert memory[1] > 2 * memory[0]
    assert memory[2] > 2 * memory[1]
    assert budget(40, ADAM).memory < budget(40, LBFGS).memory
    assert budget(40, bands=3).memory - BASE == pytest.approx(3 * (budget(40).memory - BASE))
    disk = [budget(40, scale=scale).disk for scale in (2, 4, 8)]
    assert disk[2] - disk[1] == pytest.approx(4 * (disk[1] - disk[0]))


def test_every_stage_and_level_leaves_a_checkpoint():
    again = {"again": replace(LBFGS, levels="finest")}
    one, two = (Budget.of(module_of(40, LBFGS, [2, 4], then=then), 4).disk for then in ({}, again))
    assert two - one > 4 * module_of(40, LBFGS, [4]).field.weights.numel()


def test_measuring_leaves_no_trace():
    module = module_of(16, LBFGS, [2, 4])
    Budget.of(module, 4)
    assert all(p.grad is None for p in module.parameters())
    assert module.evals == 0


def test_what_does_not_fit_is_refused_with_a_crop_that_does():
    whole = budget(160)
    available = BASE + 0.4 * (whole.memory - BASE)
    with pytest.raises(InputError, match=r"160 x 160 pixels needs about .* GB of memory") as error:
        whole.check_memory(available)
    crop = int(re.search(r"crop=(\d+)", str(error.value))[1])
    assert 40 < crop < 160
    budget(crop).check_memory(available)


def test_what_fits_passes():
    whole = budget(32)
    whole.check_memory(whole.memory)
    line = str(replace(whole, seconds=125.0, memory=2.34e9, disk=5.6e7))
    assert line == "needs at most about 2 min, 2.3 GB of memory and 56 MB of disk"
    assert str(replace(whole, seconds=25.4)).startswith("needs at most about 25 s, ")
