"""On another device than the CPU: the same numbers, and a host that rarely waits."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from runs import SCENE

from s2sr.data.simulate import simulate_scene
from s2sr.errors import InputError
from s2sr.experiment import run
from s2sr.fit.module import Reconstruction
from s2sr.model.field import SplatField
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF
from s2sr.model.sampling import Sampling
from s2sr.model.scene import Scene
from s2sr.observations import configuration, observe
from s2sr.reconstruction import prepare, reconstruct
from s2sr.training import trainer_of

second = pytest.importorskip("second_device", reason="this torch cannot have devices of Python", exc_type=ImportError)


@pytest.fixture(autouse=True)
def _nothing_waited_for():
    second.waits.clear()


# --- the device itself


def test_it_refuses_what_cuda_refuses():
    here, there = torch.ones(3), torch.ones(3, device=second.DEVICE)
    for refused in (
        lambda: here + there,
        lambda: here.add_(there[0]),
        lambda: there @ here,
        lambda: torch.cat([here, there]),
        lambda: torch.add(there, there, out=here),
        lambda: here[there.long()],
        lambda: there.numpy(),
        lambda: torch.fft.irfft(1j * there),
    ):
        with pytest.raises((RuntimeError, TypeError)):
            refused()
    for allowed in (there + torch.tensor(1.0), there[torch.tensor([0, 2])], there.copy_(here), there.cpu() + here):
        assert allowed.numel() in (2, 3)


def test_it_counts_waits_and_nothing_else():
    there = torch.arange(6.0, device=second.DEVICE).view(2, 3)
    there[0] = there[1] * 2 + torch.full((), 2.0, device=there.device)
    assert not second.waits
    for wait in (
        lambda: float(there.sum()),
        lambda: bool((there > 1).all()),
        lambda: there[there > 1],
        lambda: there[:, [0, 1]],
        lambda: torch.tensor(1.0, device=there.device),
        lambda: torch.ones(2).to(there),
        lambda: there.cpu(),
        lambda: there.tolist(),
    ):
        second.waits.clear()
        wait()
        assert second.waits, wait


def test_views_are_of_the_same_memory():
    there = torch.zeros(4, 4, device=second.DEVICE)
    windows = there.as_strided((2, 2, 4), (4, 4, 1), 4)
    windows[0].add_(1)
    torch.bmm(windows.mT, windows, out=torch.empty(2, 4, 4, device=there.device))
    there.unflatten(0, (2, 2))[1, 1].copy_(torch.arange(4.0))
    assert there.cpu().tolist() == [[0] * 4, [1] * 4, [1] * 4, [0, 1, 2, 3]]


# --- the operator and the objective


def field(t: int, samplings: tuple[Sampling, ...]) -> SplatField:
    torch.manual_seed(0)
    shifts = 0.2 * torch.randn(t, 2)
    grid = Grid(None, (10, 0, 0, 0, -10, 0), (24, 30))
    options = {"gain": True, "offset": True, "samplings": samplings}
    made = SplatField(grid, ("B02", "B11"), scale=4, psf=PSF(0.4, learn=True), shifts=shifts, **options)
    made.weights.data.normal_()
    return made


@pytest.mark.parametrize(
    ("t", "second_band", "waits"),
    [(3, Sampling(), 1), (3, Sampling(2, 1, 0), 1), (40, Sampling(), 5)],
    ids=["direct", "repeated samples", "interpolated"],
)
def test_the_operator_and_its_gradients(t, second_band, waits):
    """It waits for where the footprints lie; interpolation waits for one pseudo-inverse per band and axis, too."""
    here = field(t, (Sampling(), second_band))
    there = copy.deepcopy(here).to(second.DEVICE)
    aim = torch.randn(t, 2, 24, 30)
    aims = aim.to(second.DEVICE)
    second.waits.clear()
    frames = there()
    (frames * aims).sum().backward()
    assert (here.footprints(here.shifts).interpolated() is not None) == (waits > 1)
    assert second.waits.total() == waits, second.waits
    (here() * aim).sum().backward()
    assert torch.equal(frames.cpu(), here())
    for (name, p), q in zip(here.named_parameters(), there.parameters(), strict=True):
        assert torch.equal(q.grad.cpu(), p.grad), name
    assert torch.equal(there.render().cpu(), here.render())


def test_an_evaluation_of_misfit_and_tv_waits_once():
    cfg = configuration(*SCENE, "strategy=adam")
    there = prepare(observe(cfg), cfg).to(second.DEVICE)
    there.tv = 0.5
    second.waits.clear()
    there.objective().backward()
    assert second.waits.total() == 1, second.waits


# --- fits


def both(scene: Scene, *overrides: str) -> tuple[Reconstruction, Reconstruction]:
    """Compute here and there; fails where the results differ in a bit."""
    here = reconstruct(scene, configuration(*overrides, "trainer.accelerator=cpu"))
    second.waits.clear()
    there = reconstruct(scene, configuration(*overrides, *second.TRAINER))
    assert here.evals == there.evals
    assert here.judgement == there.judgement != {}
    found = there.state_dict()
    assert {name: torch.equal(x, found[name]) for name, x in here.state_dict().items()} == dict.fromkeys(found, True)
    return here, there


@pytest.fixture(scope="module")
def clouded() -> Scene:
    """24 x 20 LR pixels in bands of 10 m and of 20 m, which repeats its samples, with a cloud that no mask has seen."""
    rng = np.random.default_rng(0)
    sharp = np.full((2, 42 * 8, 38 * 8), 0.15)
    for y, x, h, w in rng.integers((0, 0, 8, 8), (340, 300, 64, 64), (60, 4)):
        sharp[:, y : y + h, x : x + w] = rng.uniform(0.05, 0.4, (2, 1, 1))
    shifts = np.array([(0.3, -0.2), (-0.2, 0.1), (0.1, 0.3), (-0.1, -0.1), (-0.1, -0.1)])
    scene = simulate_scene(sharp, 8, bands=("B02", "B11"), shifts=shifts, sigma_psf=0.4, noise=0.002, margin=9)
    frames, valid = scene.frames.clone(), scene.valid.clone()
    frames[:, 1] = Sampling(2).repeat(frames[:, 1])
    frames[0, :, 3:7, 4:8] += 0.3
    valid[1, :, :4, :5] = False
    return dataclasses.replace(scene, frames=frames * valid, valid=valid)


def test_every_stage_of_bayes(clouded):
    """11.5 waits per evaluation were measured, including whatever is done before and after them."""
    _, there = both(clouded, "strategy=bayes", "psf=auto", "c2f.levels=[2,4]", "threads=1")
    assert {sampling.pitch for sampling in there.field.samplings} == {1, 2}
    assert second.waits.total() < 14 * there.evals, second.waits


def test_every_stage_of_the_method(clouded):
    """12.3 waits per evaluation of warm-up, coarse to fine and polish, as torch's L-BFGS reads every inner product."""
    fine = [f"strategy.coarse_to_fine.{key}" for key in ("rounds=1", "steps=1", "optimizer.max_iter=5")]
    _, there = both(clouded, "strategy=lbfgs_adam", "strategy.polish.steps=9", "c2f.levels=[1,2]", "threads=1", *fine)
    assert second.waits.total() < 15 * there.evals, second.waits
    both(clouded, "strategy=adam_lbfgs", "strategy.warm_up.steps=9", "c2f.levels=[1,2]", "threads=1", *fine)


def test_a_step_of_adam_waits_twice(clouded):
    """It waits to know where the footprints lie, and whether the step was finite."""
    found = []
    for steps in (10, 30):
        second.waits.clear()
        settings = (f"strategy.joint.steps={steps}", "c2f.levels=[2]", "holdout.refit=false", *second.TRAINER)
        reconstruct(clouded, configuration("strategy=adam", *settings))
        found.append(second.waits.total())
    assert found[1] - found[0] == 2 * 20, found


def test_a_run_and_one_that_was_interrupted(tmp_path):
    """Its numbers, and its product when it goes on from the checkpoint of a level."""
    settings = (*SCENE, "strategy=bayes", "logger=csv", "threads=1", "strategy.register.optimizer.max_iter=4")
    here, there, resumed = (tmp_path / name for name in ("here", "there", "resumed"))
    run(configuration(*settings, "trainer.accelerator=cpu"), here)
    run(configuration(*settings, *second.TRAINER), there)
    (resumed / "checkpoints").mkdir(parents=True)
    shutil.copy(there / "checkpoints" / "solve_x2.ckpt", resumed / "checkpoints" / "last.ckpt")
    run(configuration(*settings, *second.TRAINER), resumed, resume=True)
    first, *others = (json.loads((each / "metrics.json").read_text()) for each in (here, there, resumed))
    timed = {"runtime_s": 0, "peak_memory_mb": 0}
    assert [other | timed for other in others] == [first | timed] * 2


# --- what a user is told


def test_too_little_memory(clouded, monkeypatch):
    monkeypatch.setattr(second, "largest", 200_000)
    cfg = configuration("strategy=adam", "strategy.joint.steps=3", "c2f.levels=[1,8]", *second.TRAINER)
    cfg.strategy.joint.levels = "all"
    with pytest.raises(InputError, match=r"the device has not enough memory .*choose a smaller crop.*accelerator=cpu"):
        reconstruct(clouded, cfg)


def test_a_device_without_double_precision(monkeypatch):
    monkeypatch.setattr(second, "unknown", {torch.float64})
    with pytest.raises(InputError, match=r"trainer: second does not support torch.float64"):
        trainer_of(configuration(*second.TRAINER))


def test_products_are_exact_whatever_an_environment_asks_for(clouded):
    torch.set_float32_matmul_precision("medium")
    reconstruct(clouded, configuration("strategy=adam", "strategy.joint.steps=1", "c2f.levels=[1]", "holdout=null"))
    assert torch.get_float32_matmul_precision() == "highest"
