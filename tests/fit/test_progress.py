"""What a user sees of a fit while it runs."""

from __future__ import annotations

import re

import pytest

from s2sr.fit.progress import LevelLog, ProgressBar, work
from s2sr.observations import configuration
from s2sr.reconstruction import prepare
from s2sr.training import train


def test_the_bar_moves_to_the_end_and_the_log_counts_every_evaluation(scene, caplog):
    caplog.set_level("INFO")
    how = ("strategy.joint.steps=8", "+strategy.joint.part=3", "c2f.levels=[1]", "trainer.accelerator=cpu")
    cfg = configuration("strategy=adam", *how)
    module = prepare(scene, cfg)
    bar = ProgressBar()
    bar.bar.disable = False  # as on a terminal
    train(module, cfg, callbacks=[LevelLog(), bar])
    assert len(module.phases) == 4, "three parts and the refit"
    (task,) = bar.bar.tasks
    assert task.completed == pytest.approx(task.total - work(module.phases[-1]))  # a refit is no step
    assert not bar.bar.live.is_started
    told = re.findall(r"(\w+) x1: .*; (\d+) evaluations, ([\d.]+) s", caplog.text)
    assert [name for name, _, _ in told] == ["joint", "refit"]
    assert sum(int(count) for _, count, _ in told) == module.evals
    assert all(float(seconds) < 60 for _, _, seconds in told)
    assert 4 < int(told[1][1]) < 10, "four iterations of the refit"
