"""A fit that was interrupted anywhere ends as if it had not been."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from small_fits import assert_same, state

from s2sr.errors import InputError
from s2sr.fit.checkpoint import LevelCheckpoint
from s2sr.observations import configuration
from s2sr.reconstruction import reconstruct

STRATEGIES = {
    "lbfgs": ["strategy=lbfgs", "strategy.coarse_to_fine.optimizer.max_iter=4"],
    "adam in parts, lbfgs": [
        "strategy=adam_lbfgs",
        "strategy.warm_up.steps=7",
        "+strategy.warm_up.part=3",
        "strategy.coarse_to_fine.optimizer.max_iter=4",
        "psf.learn=true",
    ],
    "lbfgs in parts, adam in parts": [
        "strategy=lbfgs_adam",
        "strategy.coarse_to_fine.optimizer.max_iter=4",
        "+strategy.coarse_to_fine.part=3",
        "strategy.coarse_to_fine.tolerance=0",
        "strategy.polish.steps=7",
        "+strategy.polish.part=4",
    ],
    "validated, in parts": [
        "strategy=lbfgs",
        "strategy.coarse_to_fine.optimizer.max_iter=4",
        "+strategy.coarse_to_fine.part=3",
        "strategy.coarse_to_fine.rounds=4",
        "+strategy.coarse_to_fine.stop_on=validation",
    ],
    "bayes, in parts": [
        "strategy=bayes",
        "psf=auto",
        "strategy.register.optimizer.max_iter=4",
        "+strategy.register.part=1",
        "+strategy.align.part=1",
        "strategy.sharpen.steps=3",
        "+strategy.sharpen.part=2",
        "strategy.sharpen.optimizer.max_iter=3",
    ],
}


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_resumed_after_any_phase_it_ends_as_if_it_had_not_been_interrupted(scene, strategy, tmp_path, monkeypatch):
    frames = scene.frames.clone()
    frames[0, :, 3:7, 4:8] += 0.3  # a cloud that no mask has seen
    scene = dataclasses.replace(scene, frames=frames)
    cfg = configuration("logger=csv", "c2f.levels=[1,2]", "trainer.accelerator=cpu", *strategy)
    cfg.threads = torch.get_num_threads()
    saved: list[Path] = []
    save = LevelCheckpoint.on_train_epoch_end

    def save_and_keep(self, trainer, module):
        save(self, trainer, module)
        saved.append(tmp_path / f"{trainer.current_epoch}.ckpt")
        shutil.copyfile(self.folder / "last.ckpt", saved[-1])

    monkeypatch.setattr(LevelCheckpoint, "on_train_epoch_end", save_and_keep)
    whole = reconstruct(scene, cfg, folder=tmp_path / "whole")
    monkeypatch.undo()
    assert len(saved) == len(whole.phases)
    kept = {f"{p.name}_x{p.scale}.ckpt" for p in whole.phases}
    assert {path.name for path in (tmp_path / "whole" / "checkpoints").iterdir()} == {"last.ckpt", *kept}
    for number, checkpoint in enumerate(saved):
        folder = tmp_path / f"from_{number}"
        (folder / "checkpoints").mkdir(parents=True)
        shutil.copyfile(checkpoint, folder / "checkpoints" / "last.ckpt")
        resumed = reconstruct(scene, cfg, folder=folder, resume=True)
        assert_same(state(resumed), state(whole))
        assert resumed.evals == whole.evals
        assert resumed.judgement == whole.judgement != {}
        assert torch.equal(resumed.valid, whole.valid), "what the refit revealed stays revealed"
        shutil.rmtree(folder)


def test_neither_of_other_observations_nor_of_another_version_nor_damaged(scene, tmp_path):
    cfg = configuration("logger=csv", "c2f.levels=[1]", "strategy=lbfgs", "strategy.coarse_to_fine.rounds=1")
    reconstruct(scene, cfg, folder=tmp_path)
    frames = scene.frames.clone()
    frames[1, 0, 0, 0] += 1e-4
    with pytest.raises(InputError, match="no longer those with which the run was started"):
        reconstruct(dataclasses.replace(scene, frames=frames), cfg, folder=tmp_path, resume=True)
    last = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=False)
    del checkpoint["state_dict"]["change_slope"]
    torch.save(checkpoint, last)
    with pytest.raises(InputError, match="another version of s2sr"):
        reconstruct(scene, cfg, folder=tmp_path, resume=True)
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(InputError, match="is damaged"):
        reconstruct(scene, cfg, folder=tmp_path, resume=True)


def test_what_a_killed_run_left_is_replaced(scene, tmp_path):
    """It was writing a level's checkpoint, under two names."""
    cfg = configuration("logger=csv", "c2f.levels=[1]", "strategy=lbfgs", "strategy.coarse_to_fine.rounds=1")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "last.ckpt.part").write_text("half")
    (folder / "coarse_to_fine_x1.part").hardlink_to(folder / "last.ckpt.part")
    whole = reconstruct(scene, cfg, folder=tmp_path, resume=True)
    assert {path.name for path in folder.iterdir()} == {"last.ckpt", "coarse_to_fine_x1.ckpt", "refit_x1.ckpt"}
    assert torch.load(folder / "coarse_to_fine_x1.ckpt", weights_only=False)["epoch"] == 0
    assert len(whole.phases) == 2


def test_without_a_folder_nothing_is_written(scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = configuration("logger=csv", "c2f.levels=[1]", "strategy=lbfgs", "strategy.coarse_to_fine.rounds=1")
    reconstruct(scene, cfg)
    assert list(tmp_path.iterdir()) == []
