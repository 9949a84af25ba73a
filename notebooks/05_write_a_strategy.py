# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Write a strategy
#
# A strategy is a list of stages, and a stage is data: which parameters, which optimizer, how many steps, at which
# levels, with which total variation. No code depends on a strategy's name. So a new one is ten lines of YAML, and a new
# optimizer is any `torch.optim.Optimizer` whose `step` takes a closure.

# %%
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import matplotlib.pyplot as plt
import torch
from omegaconf import OmegaConf

import s2sr
from s2sr.reconstruction import reconstruct
from s2sr.report.figures import Stretch, rgb
from s2sr.report.scores import scores

scene = s2sr.Demo(size=32, cloudy=0).load()


def fit(strategy=None, *overrides):
    """The fitted module, and what it scores."""
    cfg = s2sr.configuration("c2f=2_4", "strategy=lbfgs", *overrides)
    if strategy:
        cfg.strategy = OmegaConf.create(strategy)
    module = reconstruct(scene, cfg)
    field = module.field
    return module, scores(scene, field.render(), field.scale, field.shifts.detach())


# %% [markdown]
# ## Ten lines of YAML
#
# Weights and shifts in turn at the coarsest level, where shifts are cheap; then the weights alone at the finest.

# %%
LBFGS = "{_target_: torch.optim.LBFGS, _partial_: true, max_iter: 20, history_size: 10, line_search_fn: strong_wolfe}"
mine = f"""
find_shifts:
  _target_: s2sr.fit.stages.Stage
  levels: coarsest
  blocks: [[weights], [shifts, radiometry]]
  rounds: 3
  steps: 1
  tv: {{_target_: s2sr.fit.schedules.Constant, value: 0.5}}
  optimizer: {LBFGS}
refine:
  _target_: s2sr.fit.stages.Stage
  levels: finest
  blocks: [[weights]]
  steps: 2
  tv: {{_target_: s2sr.fit.schedules.Constant, value: 0.5}}
  optimizer: {LBFGS}
"""
found = {"lbfgs": fit(), "mine": fit(mine)}

# %% [markdown]
# For the command line it becomes a file, with a name and with the stages below `strategy:`. It may lie in
# `conf/strategy/`, or in a folder `strategy` of your own, whose parent `--config-dir` names:

# %%
file = Path("outputs/my_conf/strategy/mine.yaml")
file.parent.mkdir(parents=True, exist_ok=True)
file.write_text("# @package _global_\nname: mine\nstrategy:\n" + indent(mine, "  "))
train = [sys.executable, str(Path(s2sr.__file__).parents[1] / "train.py")]
options = ["--config-dir=outputs/my_conf", "strategy=mine", "data.size=24", "c2f=2_4", "logger=csv"]
print(subprocess.run([*train, *options], check=True, capture_output=True, text=True).stdout)


# %% [markdown]
# ## An optimizer in twenty lines
#
# Gradient descent with the step length of Barzilai and Borwein (1988): no line search, one evaluation per step, and far
# faster than plain descent. s2sr uses it like LBFGS. In a project it would live in a module of yours; here Hydra finds
# it in `__main__`.


# %%
class BarzilaiBorwein(torch.optim.Optimizer):
    def __init__(self, params, first=1e-7):
        super().__init__(params, {"length": first})

    @torch.no_grad()
    def step(self, closure):
        loss = torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                length = group["length"]
                if state:
                    moved, turned = p - state["p"], p.grad - state["grad"]
                    curved = float((moved * turned).sum())
                    length = float((moved * moved).sum()) / curved if curved > 0 else length
                state["p"], state["grad"] = p.clone(), p.grad.clone()
                p.sub_(p.grad, alpha=length)
        return loss


bb = mine.replace(LBFGS, "{_target_: torch.optim.Adam, _partial_: true, lr: 0.005}", 1).replace(
    LBFGS, "{_target_: __main__.BarzilaiBorwein, _partial_: true}"
)
bb = bb.replace("steps: 2", "steps: 40").replace("steps: 1", "steps: 40")
found["Adam, then Barzilai-Borwein"] = fit(bb)

# %% [markdown]
# ## Compare
#
# Work is best measured in evaluations of the model and its gradient.

# %%
truth, scale = scene.truth.reflectance, scene.truth.scale
stretch = Stretch.of(truth, scene.bands)
fig, axes = plt.subplots(1, len(found) + 1, figsize=(4 * (len(found) + 1), 4.4))
for ax, (name, (module, score)) in zip(axes, found.items(), strict=False):
    with torch.no_grad():
        ax.imshow(rgb(module.field.render(), scene.bands, stretch))
    ax.set(title=f"{name}\n{score['psnr']:.2f} dB, {module.evals} evaluations", xticks=[], yticks=[])
axes[-1].imshow(rgb(truth, scene.bands, stretch))
axes[-1].set(title="truth", xticks=[], yticks=[])
fig.tight_layout()

# %% [markdown]
# On the command line every number of a stage is a key: `strategy.refine.steps=4`, `strategy.refine.tv.value=1,2` in a
# sweep, `~strategy.refine` to remove the stage, `+strategy.refine.stop_on=validation` to stop where validation samples
# are predicted best. The keys are in [docs/configuration.md](../docs/configuration.md).
