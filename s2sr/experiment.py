"""One run, from a configuration to the run folder; and functions of the Python API (see the package)."""

from __future__ import annotations

import hashlib
import logging
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from s2sr.data.geotiff import SceneFolder
from s2sr.data.holdout import halves
from s2sr.fit.evidence.information import sigma_errors
from s2sr.fit.module import Reconstruction
from s2sr.fit.uncertainty import standard_deviation
from s2sr.fit.uncertainty.clear import clear_count
from s2sr.model.field import SplatField
from s2sr.model.psf import detail_limit
from s2sr.model.scene import Scene
from s2sr.observations import configuration, observe, usable
from s2sr.raster import metres
from s2sr.reconstruction import check_fit, reconstruct, solve_again
from s2sr.report import intervals
from s2sr.report.comparison import comparison
from s2sr.report.consistency import brightness, check_level, consistency, maps
from s2sr.report.dated import dated, observed_on
from s2sr.report.figures import Stretch, rgb, save, write_png
from s2sr.report.loggers import summarise
from s2sr.report.products import Product, shifts_csv, write_baseline, write_geotiff, write_json, write_truth
from s2sr.report.resolution import by_truth
from s2sr.report.resolution.figure import curves
from s2sr.report.resolution.halves import by_halves
from s2sr.report.run_page import write_run_page
from s2sr.report.scores import offset_to_truth, scores

log = logging.getLogger(__name__)


def load_scene(root: str | Path, **options: Any) -> Scene:
    """Load a folder of GeoTIFFs, one per observation; options as in conf/data/geotiff.yaml.

    Raises InputError if the folder or its files cannot be used.
    """
    return SceneFolder(root=root, **options).load()


def super_resolve(scene: Scene, *overrides: str) -> SplatField:
    """Fit a scene and return the field; overrides as on the command line, except those of `data`.

    Raises InputError as `check_fit`, `usable` and `reconstruct` do.
    """
    cfg = configuration(*overrides)
    check_fit(cfg)
    return reconstruct(usable(scene.crop(cfg.crop) if cfg.crop else scene, cfg), cfg).field


def run(cfg: DictConfig, folder: Path, *, group: str | None = None, resume: bool = False) -> dict[str, Any]:
    """Load, fit, write the run folder; returns the contents of metrics.json. group: the sweep that the run belongs to.

    resume: continue from the folder's last checkpoint; otherwise what an earlier run left there is ignored.
    Raises what `check_fit`, `observe` and `reconstruct` raise.
    """
    start = time.perf_counter()
    check_fit(cfg)
    scene = observe(cfg)
    log.info("%s", scene)
    module = reconstruct(scene, cfg, folder=folder, group=group, resume=resume).cpu()
    scale = cfg.report.scale or module.field.scale
    image = module.field.render(module.scene.grid.scaled(scale))
    metrics: dict[str, Any] = {"status": "ok", "strategy": cfg.name, **measured(module, image, scale)}
    check_level(module.scene, module.field.radiometry.gain, module.field.radiometry.offset)
    limit = metrics["detail_limit_px"]
    tags = {
        "datetimes": ", ".join(o.datetime for o in module.scene.observations),
        "s2sr_version": version("s2sr"),
        "configuration_sha256": configuration_hash(cfg),
        "detail_limit_px": f"{limit:.3f}",
        "attribution": module.scene.attribution,
    }
    product = product_of(module, image, scale)
    metrics |= intervals.numbers(module.scene, product, module.field.shifts.detach())
    metrics |= tell_resolution(module, cfg, folder)
    write_products(module, product, metrics, folder, tags)
    if cfg.report.date:
        write_dated(module, scale, cfg.report.date, folder, tags)
    metrics["runtime_s"] = time.perf_counter() - start
    unit = 1024**2 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kB
    metrics["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    log.info("the sensor passes less than 5 %% of detail finer than %.2f pixels: that is prior", limit)
    summarise(module.trainer.loggers, metrics)
    write_json(folder / "metrics.json", metrics)
    write_run_page(folder)
    return metrics


@torch.no_grad()
def measured(module: Reconstruction, image: Tensor, scale: int) -> dict[str, Any]:
    """The metrics of a fit and of its image [b, y * scale, x * scale], as in metrics.json."""
    scene, field = module.scene, module.field
    predicted = field() - field.changed  # by the product alone, without each date's change
    sigma = field.sigma_by_band()
    residual = (predicted - module.frames) * module.valid
    learnt = field.blocks()["psf"]
    # if nothing is withheld any more, the last level's scores are of this image and baseline
    told = scale == field.scale and "edge_contrast" in module.scores and not (scene.judged | scene.validation).any()
    errors = dict(zip(scene.bands, sigma_errors(module).tolist(), strict=True)) if learnt else {}
    return {
        **(module.scores if told else scores(scene, image, scale, field.shifts)),
        **module.judgement,
        **consistency(scene, predicted, module.noise),
        **brightness(scene, image, scale),
        "residual_rms": float((residual.square().sum() / module.valid.sum()).sqrt()),
        "psf_sigma": sum(sigma.values()) / len(sigma),
        **{f"psf_sigma_{band}": value for band, value in sigma.items()},
        **{f"psf_sigma_{band}_std": value for band, value in errors.items()},
        "detail_limit_px": max(
            detail_limit(float(s), float(w)) for s, w in zip(field.sigma_psf, field.widths, strict=True)
        ),
        **(module.forecast.metrics() if module.forecast else {}),
        "scale": scale,
        "n_obs": len(scene),
        "evals": module.evals,
    }


def product_of(module: Reconstruction, image: Tensor, scale: int) -> Product:
    """The image [b, y * scale, x * scale] of a fit with its standard deviation and count of clear observations."""
    deviation = standard_deviation(module, image, scale)
    count = clear_count(module.scene.valid, module.field.shifts.detach(), scale)
    return Product(image, deviation, count, scale=scale, splat=module.field.lattice.sigma)


def tell_resolution(module: Reconstruction, cfg: DictConfig, folder: Path) -> dict[str, float]:
    """The resolution measured against the truth, if known, and, if requested, by two halves of the dates (frc.png)."""
    scene, field = module.scene, module.field
    _, metre = metres(scene.grid) or (None, None)
    dy, dx = offset_to_truth(scene, field.shifts.detach()).tolist()
    truth = by_truth(scene, field, (dy, dx)) if scene.truth else None
    found = truth.metrics("truth", metre) if truth else {}
    if cfg.report.frc:
        log.info("measuring the resolution: solving for the weights again from each half of the dates")
        scenes = halves(scene)
        fields = [solve_again(module, half, cfg) for half in scenes]
        told = by_halves(field, fields, scenes, module.noise.detach())
        forecast = module.forecast.frequency if module.forecast else None
        save(curves(told, fields, truth=truth, forecast=forecast, metre=metre), folder / "frc.png")
        found |= told.metrics("frc", metre)
    return found


@torch.no_grad()
def write_products(
    module: Reconstruction, product: Product, metrics: dict[str, Any], folder: Path, tags: dict[str, str]
) -> None:
    """Write the files and, in parallel, the pictures: compressing keeps one core busy, drawing the other."""
    scene, field = module.scene, module.field
    shift = tuple(offset_to_truth(scene, field.shifts).tolist())

    def write_files() -> None:
        write_geotiff(folder / "sr.tif", product.image, scene.grid.scaled(product.scale), scene.bands, tags=tags)
        intervals.write(folder, scene, product, tags=tags)
        write_baseline(folder, scene)
        write_truth(folder, scene, product.scale, shift)
        radiometry = {"gains": field.radiometry.gain, "offsets": field.radiometry.offset}
        shifts_csv(folder / "shifts.csv", scene, shifts=field.shifts, **radiometry, noise=module.noise)

    with ThreadPoolExecutor(1) as beside:
        files = beside.submit(write_files)
        write_pictures(module, product, metrics, folder, shift)
    files.result()


def write_pictures(
    module: Reconstruction, product: Product, metrics: dict[str, Any], folder: Path, shift: tuple[float, float]
) -> None:
    """sr.png, comparison.png, uncertainty.png and consistency.png. shift: as in `metrics.fidelity`."""
    scene, image = module.scene, product.image
    stretch = Stretch.of(image, scene.bands)
    write_png(folder / "sr.png", rgb(image, scene.bands, stretch))
    beside = comparison(scene, image, product.scale, stretch=stretch, metrics=metrics, shift=shift)
    save(beside, folder / "comparison.png")
    save(intervals.picture(product, scene.bands, stretch=stretch, most=len(scene)), folder / "uncertainty.png")
    save(maps(scene, module.field(), module.noise), folder / "consistency.png")


def write_dated(module: Reconstruction, scale: int, date: str, folder: Path, tags: dict[str, str]) -> None:
    """sr_DATE.tif: the stack's detail with the reflectance of the observation nearest to a date."""
    scene, field = module.scene, module.field
    t = observed_on(scene, date)
    when = scene.observations[t].datetime
    seen = {"datetimes": when, "datetimes_of_detail": tags["datetimes"]}
    path, grid = folder / f"sr_{when[:10]}.tif", scene.grid.scaled(scale)
    write_geotiff(path, dated(field, scene, t).render(grid), grid, scene.bands, tags=tags | seen)
    log.info("wrote %s, with the reflectance of that date", path.name)


def configuration_hash(cfg: DictConfig) -> str:
    """SHA-256 of the settings that affect the product: not of where it was computed or logged."""
    decisive = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in ("trainer", "logger", "threads")])
    return hashlib.sha256(OmegaConf.to_yaml(decisive).encode()).hexdigest()
