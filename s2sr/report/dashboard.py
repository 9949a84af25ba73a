"""The run as it is watched.

The x-axis is `evals`, evaluations of the objective: an LBFGS step takes about twenty, an Adam step one. Names are
section/panel: fit, the groups of `glossary`, pictures; `heldout/error_and_sharpness` is one chart of the two that part
company where a fit starts to invent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.nn.functional import avg_pool2d

from s2sr.model.scene import Scene
from s2sr.report.charts import MARKED
from s2sr.report.diagnostics import residual_map, shift_plot
from s2sr.report.figures import Stretch, pixels, png, rgb
from s2sr.report.glossary import METRICS, parse
from s2sr.report.jobs import Job, lines, read_jobs, swept, table
from s2sr.report.loggers import link_runs, log_point, wandb_runs, wandb_table
from s2sr.report.metrics import FIDELITY_SCALE, area_average, bicubic, shift_rmse
from s2sr.report.products import clearest_frame, observation_rows
from s2sr.report.scores import baseline_fidelity, baseline_sharpness, scores

SYNCHRONISED = False  # every row holds its x; wandb 0.31, asked to add it where it lacks, at times writes 0 over it


class Dashboard(Callback):
    """Objective and shifts while the fit runs; scores, pictures and the table of observations after each level."""

    SIDE = 1024  # screen pixels, about: a picture of a large scene is reduced
    EVERY = 10  # evaluations between two points of a curve: a point costs more than an Adam step of a small scene

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.stretch = Stretch.of(scene.temporal_mean, scene.bands)
        self._logged = -self.EVERY
        self._levels: list[dict[str, float]] = []  # the scores at the end of each
        self._compared: set[int] = set()  # scales at which the others' pictures were shown
        self._placed: Tensor | None = None  # the shifts that were shown last
        self._sharpness = cache(partial(baseline_sharpness, scene))  # by scale, of the bicubic
        self._fidelity = cache(partial(baseline_fidelity, scene))

    def on_train_start(self, trainer: Any, module: Any) -> None:
        for run in wandb_runs(trainer.loggers):
            run.define_metric("evals", hidden=True)
            run.define_metric("*", step_metric="evals", step_sync=SYNCHRONISED)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, step: int) -> None:
        if module.evals - self._logged < self.EVERY:
            return
        self._logged = module.evals
        point = {f"fit/{name}": float(value) for name, value in module.parts.items()}
        point |= {"fit/loss": sum(point.values()), "fit/tv_weight": module.tv, "fit/scale": module.field.scale}
        point |= {"shifts/spread_px": float(module.field.shifts.detach().std(0).mean())}
        log_point(trainer.loggers, module.evals, point)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        phase, field = module.phase, module.field
        if not phase.ends_level:
            return
        level, runs = f"{phase.name} {field.scale}x", wandb_runs(trainer.loggers)
        shifts = field.shifts.detach().cpu()
        image = field.render().cpu() if phase.stage.fits("weights") else None  # else it is what it was
        with torch.no_grad():
            residual = field() - module.frames
        with ThreadPoolExecutor(1) as aside:  # scores keep both cores busy, drawing keeps one
            scored = aside.submit(self._scores, module, image, shifts)
            media = self._media(module, residual, image, shifts, level) if runs else {}
            module.scores = scored.result()
        found = module.scores | self._heldout(module, residual)
        sections = {key: METRICS[parts[0]].group for key in found if (parts := parse(key))}
        point = {f"{section}/{key}": found[key] for key, section in sections.items()}
        point |= {f"psf/sigma_{band}": sigma for band, sigma in field.sigma_by_band().items()}
        self._levels.append({"evals": module.evals, **point})
        log_point(trainer.loggers, module.evals, {**point, "level": level})
        for run in runs:
            run.log({**media, **_error_and_sharpness(self._levels), "evals": module.evals})

    def _scores(self, module: Any, image: Tensor | None, shifts: Tensor) -> dict[str, float]:
        """The scores of the image [b, y, x] with which a level ends; without one, the last image's and the shifts'."""
        if image is not None:
            scale, finest = module.field.scale, module.phases[-1].scale
            if self.scene.truth and scale < (alike := min(FIDELITY_SCALE, finest)):
                # a level's own pixels are easier to meet the coarser they are: its PSNR would be another score
                image, scale = module.field.render(module.field.grid.scaled(alike)).detach().cpu(), alike
            # sharpness is that of one resolution at every scale: the finest bicubic's stands beside all
            baseline = self._sharpness(finest) | self._fidelity(scale)
            return scores(self.scene, image, scale, shifts, baseline=baseline)
        truth = self.scene.truth
        return module.scores | ({"shift_rmse_px": shift_rmse(shifts, truth.shifts)} if truth else {})

    @torch.no_grad()
    def _heldout(self, module: Any, residual: Tensor) -> dict[str, float]:
        """`holdout_rmse` of the residual [t, b, y, x] and of the temporal mean, given each frame's gain and offset.

        Empty once a refit has seen the samples that judge.
        """
        judged = module.scene.judged.to(module.valid.device) & ~module.valid
        if not judged.any():
            return {}
        gain, offset = (x[..., None, None] for x in (module.field.radiometry.gain, module.field.radiometry.offset))
        mean = gain * module.scene.temporal_mean.to(gain) + offset
        scene_alone = residual - module.field.changed
        errors = {"": scene_alone * judged, "_temporal_mean": (mean - module.frames) * judged}
        return {f"holdout_rmse{name}": float((e.square().sum() / judged.sum()).sqrt()) for name, e in errors.items()}

    def _media(self, module: Any, residual: Tensor, image: Tensor | None, shifts: Tensor, level: str) -> dict[str, Any]:
        import wandb

        pictures = self._figures(module, residual, shifts, level)
        if image is not None:
            pictures |= self._pictures(image, module.field.scale)
        radiometry = module.field.radiometry
        rows = observation_rows(
            self.scene, shifts=shifts, gains=radiometry.gain, offsets=radiometry.offset, noise=module.noise
        )
        media: dict[str, Any] = {name: wandb.Image(png(picture), caption=level) for name, picture in pictures.items()}
        return {**media, "shifts/observations": wandb_table(rows)}

    @torch.no_grad()
    def _figures(self, module: Any, residual: Tensor, shifts: Tensor, level: str) -> dict[str, np.ndarray]:
        """The mean residual, and the shifts where they have changed."""
        seen = module.valid.sum(0)
        mean = (module.valid * -residual / module.noise[..., None, None]).sum(0) / seen
        normalised = mean.where(seen > 0, torch.nan).cpu()
        truth = self.scene.truth.shifts if self.scene.truth else None
        dates = [o.datetime[:10] for o in self.scene.observations]
        figures = {"pictures/residual": pixels(residual_map(normalised, f"Mean residual / noise, {level}"))}
        if self._placed is None or not torch.equal(self._placed, shifts):
            self._placed = shifts
            figures["shifts/plot"] = pixels(shift_plot(shifts, dates, truth))
        return figures

    def _pictures(self, image: Tensor, scale: int) -> dict[str, np.ndarray]:
        """uint8 pictures under the temporal mean's stretch; those that depend on the scale alone come once for each."""
        scene, images = self.scene, {"3_reconstruction": image}
        if scale not in self._compared:
            self._compared.add(scale)
            images |= {"1_observation": clearest_frame(scene)[1], "2_bicubic": bicubic(scene.temporal_mean, scale)}
            if truth := scene.truth:
                fine, moved = min(scale, truth.scale), tuple(truth.shifts.mean(0).tolist())
                images["4_truth"] = torch.from_numpy(area_average(truth.reflectance, truth.scale, fine, moved))
        return {
            f"pictures/{name}": rgb(avg_pool2d(shown, max(1, max(shown.shape) // self.SIDE)), scene.bands, self.stretch)
            for name, shown in images.items()
        }


def log_sweep(logger: Callable[..., list[Logger]], folder: Path) -> None:
    """More runs in the sweep's group, of type `collate`: the scores against the swept value, a run for each line.

    The runs share their panels, so that a dashboard lays the lines over one another; the swept value is their x-axis:
    they open on the scores. Each has the sweep's figures and table as well. `logger`: as the jobs' own. No dashboard,
    no run.
    """
    jobs = read_jobs(folder)
    keys, done = swept(jobs), [job for job in jobs if not job.error]
    axis, numeric, by_line = lines(done, keys)
    known = [key for key in MARKED if any(job.number(key) is not None for job in done)]
    pictures = [name for name in ("sweep.png", "comparison.png") if (folder / name).is_file()]
    for label, members in by_line.items() or [("", [])]:
        for run in wandb_runs(logger(folder=folder, group=folder.name, job_type="collate", config={"swept": keys})):
            import wandb

            run.name = f"{folder.name} {label}".strip()
            run.config.update({key: members[0].overrides.get(key, "") for key in keys if members and key != axis})
            (_log_curves if numeric else _log_bars)(run, axis, members, known)
            run.log({f"pictures/{Path(name).stem}": wandb.Image(str(folder / name)) for name in pictures})
            run.log({"sweep/runs": wandb_table(table(jobs, keys))})
            run.finish()
    link_runs(folder, [job.folder for job in jobs])


def _log_curves(run: Any, axis: str, members: Sequence[Job], known: Sequence[str]) -> None:
    """The scores of a line against the number that is swept."""
    run.define_metric(axis, hidden=True)
    for key in known:
        run.define_metric(f"scores/{key}", step_metric=axis, step_sync=SYNCHRONISED)
    for job in sorted(members, key=lambda job: job.value(axis) or 0):
        found = {f"scores/{key}": y for key in known if (y := job.number(key)) is not None}
        run.log({axis: job.value(axis), **found})


def _log_bars(run: Any, axis: str, members: Sequence[Job], known: Sequence[str]) -> None:
    """The same where names are swept."""
    import wandb

    for key in known:
        bars = wandb.Table(columns=["run", key], data=[[job.label([axis]), job.number(key)] for job in members])
        run.log({f"scores/{key}": wandb.plot.bar(bars, "run", key, title=METRICS[key].label)})


def _error_and_sharpness(levels: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Both in one chart, each over that of its baseline: below 1 the error, and above 1 the contrast, is better."""
    judged = [level for level in levels if {"heldout/holdout_rmse", "sharpness/edge_contrast"} <= level.keys()]
    if not judged:
        return {}
    import wandb

    ratios = {
        "held-out error / temporal mean's": ("heldout/holdout_rmse", "heldout/holdout_rmse_temporal_mean"),
        "edge contrast / bicubic's": ("sharpness/edge_contrast", "sharpness/edge_contrast_bicubic"),
    }
    chart = wandb.plot.line_series(
        xs=[level["evals"] for level in judged],
        ys=[[level[over] / level[under] for level in judged] for over, under in ratios.values()],
        keys=list(ratios),
        title="Held-out error and edge contrast at the end of each level",
        xname="evals",
    )
    return {"heldout/error_and_sharpness": chart}
