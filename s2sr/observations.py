"""From a configuration to registered observations: the first steps of every command that reads a scene."""

from __future__ import annotations

import logging
import math
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from torch import Tensor

from s2sr.data.registration import estimate_shifts
from s2sr.data.repeats import first_of_each
from s2sr.errors import InputError
from s2sr.model.psf import DETECTOR_WIDTH
from s2sr.model.scene import Scene
from s2sr.overrides import CONF, quoted
from s2sr.raster import metres

log = logging.getLogger(__name__)

GROUPS = ("data", "psf", "c2f", "strategy", "misfit", "logger", "trainer", "radiometry", "report", "holdout")
SMALLEST = 4  # LR pixels along an axis: fewer cannot be registered


def build(node: Any) -> Any:
    """Instantiate a node with `_target_`; its arguments are plain Python, never DictConfig.

    Raises InputError if the target does not accept the node's values.
    """
    try:
        return instantiate(node, _convert_="all")
    except MissingMandatoryValue as error:
        raise InputError(str(error).splitlines()[0]) from error
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise InputError(" ".join(str(error).split())) from error


def configuration(*overrides: str) -> DictConfig:
    """Compose conf/train.yaml with overrides as on the command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", quoted(overrides))


def check(cfg: DictConfig) -> None:
    """Raises InputError for a number out of range or a group that is not a mapping; Hydra checks the names."""
    for key in GROUPS:
        if not OmegaConf.is_dict(cfg[key]) and not (cfg[key] is None and key == "holdout"):
            raise InputError(f"{key}={cfg[key]}: it is a group of keys; set one as {key}.KEY=VALUE")
    whole = {"threads": 1, "n_obs": 2, "crop": SMALLEST, "report.scale": 1, "seed": 0}
    for key, least in whole.items():
        value = OmegaConf.select(cfg, key)
        if not (type(value) is int and value >= least) and not (value is None and key != "seed"):
            raise InputError(f"{key}={value}: it must be a whole number from {least}")
    if cfg.seed >= 2**32:
        raise InputError(f"seed={cfg.seed}: it must be less than {2**32}")
    for key in ("noise", "tv_delta"):
        value = OmegaConf.select(cfg, key)
        if not (isinstance(value, int | float) and 0 < value < math.inf) and not (value is None and key == "noise"):
            raise InputError(f"{key}={value}: it must be a positive number")
    for key in ("report.frc", "radiometry.gain", "radiometry.offset"):
        if type(OmegaConf.select(cfg, key)) is not bool:
            raise InputError(f"{key}={OmegaConf.select(cfg, key)}: it must be true or false")


def observe(cfg: DictConfig, *, fetch: bool = True) -> Scene:
    """Load the scene of a configuration: cropped, the clearest `n_obs` observations.

    fetch: let the source download what is missing. Raises InputError as the source and `usable` do.
    """
    source = build(cfg.data)
    if fetch:
        source.prepare()
    return usable(source.load(crop=cfg.crop), cfg)


def usable(scene: Scene, cfg: DictConfig) -> Scene:
    """The usable part of a scene: the `n_obs` clearest observations that are neither fully masked nor duplicates.

    Raises InputError if fewer than two are left, frames are too small to register, or a band is empty or constant.
    """
    size = metres(scene.grid)
    if size and DETECTOR_WIDTH.keys() & scene.bands and not all(0.9 < side / 10 < 1.1 for side in size):
        log.warning(
            "pixels of %.3g x %.3g m on the ground are treated as 10 m pixels of Sentinel-2's own grid: the PSF and "
            "all lengths will be wrong; bring all files onto the 10 m grid of their UTM zone",
            *size,
        )
    if min(scene.grid.shape) < SMALLEST:
        rows, columns = scene.grid.shape
        raise InputError(f"a scene of {rows} x {columns} pixels is too small; it needs at least {SMALLEST} a side")
    seen = [t for t, observation in enumerate(scene.observations) if observation.clear > 0]
    if len(seen) < len(scene):
        scene = scene.select(seen, "all of its pixels are masked")
    own = first_of_each(scene)
    if len(own) < len(scene):
        scene = scene.select(own, "it duplicates another observation")
    if cfg.n_obs is not None:
        scene = scene.clearest(cfg.n_obs)
    for b, band in enumerate(scene.bands):
        samples = scene.frames[:, b][scene.valid[:, b]]
        if not len(samples) or samples.min() == samples.max():
            what = f"is {samples[0]:g} everywhere" if len(samples) else "has no valid sample in any observation"
            raise InputError(f"band {band} {what}: leave it out by data.bands=[...]")
    if len(scene) < 2:
        raise InputError(f"{len(scene)} usable observations; a reconstruction needs at least 2, better 8")
    return scene


def register(scene: Scene) -> tuple[Scene, Tensor]:
    """The scene without observations that do not match the others, and initial shifts [t, 2], LR pixels.

    If most do not match, the scene is too small or changes too much to tell: all are kept, the unmatched unshifted.
    """
    found = estimate_shifts(scene)
    kept = found.trusted.nonzero()[:, 0].tolist()
    if len(kept) < max(2, len(scene) / 2):
        log.warning(
            "only %d of %d observations match the others: the scene is too small, or changes too much, to register. "
            "All are used; those that do not match start without a shift",
            len(kept),
            len(scene),
        )
        return scene, found.shifts
    for t in sorted(set(range(len(scene))) - set(kept)):
        log.warning("%s: left out, as it does not match the others (%s)", scene.observations[t].name, found.evidence(t))
    return (scene.select(kept, "it does not match the others") if len(kept) < len(scene) else scene), found.shifts[kept]
