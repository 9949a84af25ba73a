"""Forecast what can be recovered, before any fit: python -m s2sr.forecast data.root=FOLDER

Or without observations: python -m s2sr.forecast n_obs=12 jitter=0.15 noise=0.003 contrast=0.05 slope=2.5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from s2sr.cli import command
from s2sr.errors import InputError
from s2sr.fit.forecast import EXACT, Conditions, half_period
from s2sr.fit.sample import conditions_of
from s2sr.model.psf import detector_widths
from s2sr.model.spectrum import Spectrum
from s2sr.observations import build, check, observe, register
from s2sr.overrides import CONF

TYPICAL = {"jitter": 0.12, "noise": 0.004, "contrast": 0.04, "slope": 2.2}  # units as in conf/forecast.yaml
BANDS, DATES, SIDE = ("B02", "B03", "B04", "B08"), 12, 100  # LR pixels
CENTRE = 128  # LR pixels: side of the part of a large scene in which shifts are estimated
DRAWS = 3  # random shifts per number of dates, over which the forecast is averaged


def main() -> None:
    """The command line; on failure ends the program with one line on stderr."""
    command("forecast", report, help=f"{__doc__}\n{(CONF / 'forecast.yaml').read_text()}")


def report(cfg: DictConfig) -> None:
    """Print the forecast. Raises InputError as `conditions` does."""
    seen = conditions(cfg)
    found = seen.forecast()
    y, x = spread = seen.jitter()
    print(f"{len(seen.shifts)} dates whose shifts spread by {y:.2f} px along y, {x:.2f} px along x; per band:")
    print("\n        noise  contrast  slope    detail   along y   along x   half a period")
    noise, contrast = seen.noise.log().mean(0).exp(), seen.spectrum.variance().sqrt()
    for b, (band, (every, along_y, along_x)) in enumerate(found.bands.items()):
        known = f"{band:5} {noise[b]:7.4f}  {contrast[b]:8.3f}  {seen.spectrum.slope[b]:5.1f}"
        print(f"{known}  {every:8.2f}  {along_y:8.2f}  {along_x:8.2f}  {half_period(every):12.1f} m")
    print(f"\n{found}")
    print("\ndates   shifts to   detail to   half a period")
    for dates in cfg.dates:
        draws = [seen.expected(dates, jitter=spread, seed=seed) for seed in range(DRAWS)]
        detail = sum(draw.frequency for draw in draws) / DRAWS
        print(f"{dates:5}  {draws[0].shift_error():7.4f} px  {detail:10.2f}  {half_period(detail):12.1f} m")
    print(
        "\ndetail: the frequency, in cycles per pixel of 10 m, up to which the error stays below half of the signal;\n"
        "half its period is the pixel size that just resolves it. Change between dates counts as noise."
    )


def conditions(cfg: DictConfig) -> Conditions:
    """The conditions of the configured scene, or typical ones; values in the configuration take precedence.

    Raises InputError for numbers out of range, and as the scene's source does.
    """
    check(cfg)
    _check(cfg)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    found = _typical(cfg) if OmegaConf.select(cfg, "data.root", default="") is None else _of_scene(cfg)
    if cfg.jitter is not None:
        found = replace(found, shifts=found.expected(len(found.shifts), jitter=_both(cfg.jitter)).shifts)
    if cfg.contrast is not None or cfg.slope is not None:
        variance = found.spectrum.variance() if cfg.contrast is None else torch.tensor(cfg.contrast**2)
        slope = found.spectrum.slope.detach() if cfg.slope is None else cfg.slope
        each = torch.ones(len(found.bands))
        found = replace(found, spectrum=Spectrum(variance.detach() * each, slope=slope))
    return found


def _of_scene(cfg: DictConfig) -> Conditions:
    scene = observe(cfg, fetch=False)
    print(scene)
    shape = scene.grid.shape
    centre, shifts = register(scene.crop(min(CENTRE, *shape)) if max(shape) > CENTRE else scene)
    return replace(conditions_of(centre, shifts=shifts, psf=build(cfg.psf), noise=cfg.noise), shape=shape)


def _typical(cfg: DictConfig) -> Conditions:
    if isinstance(cfg.data.bands, str):
        raise InputError(f"data.bands={cfg.data.bands} is not a list; write data.bands=[{cfg.data.bands}]")
    bands = tuple(cfg.data.bands or BANDS)
    widths = detector_widths(bands).double()
    each = torch.ones(len(bands))
    side, dates = cfg.crop or SIDE, cfg.n_obs or DATES
    found = Conditions(
        bands=bands,
        shape=(side, side),
        shifts=torch.zeros(dates, 2, dtype=torch.float64),
        noise=max(cfg.noise or TYPICAL["noise"], EXACT) * torch.ones(dates, len(bands), dtype=torch.float64),
        sigma=build(cfg.psf).of(bands).double() * widths,
        widths=widths,
        spectrum=Spectrum(TYPICAL["contrast"] ** 2 * each, slope=TYPICAL["slope"]),
    )
    return found.expected(dates, jitter=_both(TYPICAL["jitter"]))


def _check(cfg: DictConfig) -> None:
    def positive(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10

    if cfg.jitter is not None and not (len(_both(cfg.jitter)) == 2 and all(map(positive, _both(cfg.jitter)))):
        raise InputError(f"jitter={cfg.jitter}: it must be a number of LR pixels between 0 and 10, or two: [y, x]")
    for key in ("contrast", "slope"):
        if cfg[key] is not None and not positive(cfg[key]):
            raise InputError(f"{key}={cfg[key]}: it must be a number between 0 and 10")
    dates = cfg.dates if OmegaConf.is_list(cfg.dates) else ()
    if not dates or not all(type(d) is int and 2 <= d <= 200 for d in dates):
        raise InputError(f"dates={cfg.dates}: it must be a list of whole numbers from 2 to 200, such as [4,8,16]")


def _both(jitter: Any) -> Sequence[float]:
    """(dy, dx) of a jitter given as one number or as a pair."""
    return tuple(jitter) if OmegaConf.is_list(jitter) else (jitter, jitter)


if __name__ == "__main__":
    main()
