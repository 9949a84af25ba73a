"""Consistency of the product with the observations, which the forward model must reproduce from it.

Residuals are predicted minus observed, so a positive bias means that the product is too bright. Per band, over the
valid samples

    consistency_bias = mean(r)                      reflectance
    consistency_rms  = sqrt(mean(r^2 / v))          noise standard deviations: 1 is noise alone

and, if there are B04 and B08, ndvi_bias and ndvi_rmse, of (B08 - B04) / (B08 + B04) of the predicted minus the observed
samples. The map is the mean over the dates of the normalised residuals in units of its own standard error,
sum_t(r / sigma) / sqrt(n). The product was fitted to these samples and absorbs part of their noise: noise alone stays
well below 1, and larger values show where the model is wrong (change between dates, an unmasked cloud, a wrong PSF
along edges). The numbers are those of the product; the map includes each date's change, if estimated, in the
prediction.
"""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from s2sr.model.scene import Scene
from s2sr.report.figures import MASKED, Panel, sheet, sized
from s2sr.report.metrics import area_average

log = logging.getLogger(__name__)

ACCURACY = 0.005, 0.05  # reflectance, and fraction of it, asked of surface reflectance (Doxani et al. 2018, ACIX)
DARK = 0.02  # B04 + B08 below which NDVI is mere noise
SHOWN = 3.0  # standard errors at full colour
PANEL = 400  # screen pixels


def consistency(scene: Scene, predicted: Tensor, noise: Tensor) -> dict[str, float]:
    """This module's scores of predicted frames [t, b, y, x]; noise: [t, b] standard deviation, reflectance."""
    valid = scene.valid
    residual = (predicted - scene.frames).double() * valid
    count = valid.sum((0, 2, 3))
    z = residual / noise[..., None, None]
    bias = residual.sum((0, 2, 3)) / count
    rms = (z.square().sum((0, 2, 3)) / count).sqrt()
    found = {f"consistency_bias_{band}": float(x) for band, x in zip(scene.bands, bias, strict=True)}
    found |= {f"consistency_rms_{band}": float(x) for band, x in zip(scene.bands, rms, strict=True)}
    if {"B04", "B08"} <= set(scene.bands):
        red, infrared = (scene.bands.index(band) for band in ("B04", "B08"))
        seen = valid[:, red] & valid[:, infrared]
        for frames in (predicted, scene.frames):
            seen = seen & (frames[:, red] + frames[:, infrared] > DARK)
        ours, theirs = (_ndvi(f[:, red][seen], f[:, infrared][seen]) for f in (predicted, scene.frames))
        found["ndvi_bias"] = float((ours - theirs).mean())
        found["ndvi_rmse"] = float((ours - theirs).square().mean().sqrt())
    return found


@torch.no_grad()
def check_level(scene: Scene, gain: Tensor, offset: Tensor) -> None:
    """Warn if single observations, such as a hazy one, set the product's brightness apart from that of most.

    gain, offset (reflectance): [t, b], over the observations 1 and 0 on average, however little an observation weighs.
    """
    level = scene.temporal_mean.nanmean((1, 2)).to(gain)
    apart = offset + (gain - 1) * level  # of an observation from the product
    most = apart.quantile(0.5, 0)
    excess = most.abs() / (ACCURACY[0] + ACCURACY[1] * level.abs())
    b = int(excess.argmax())
    if excess[b] > 1:
        t = int((apart[:, b] - most[b]).abs().argmax())
        log.warning(
            "%s: the product is %.3f %s than most observations, because gains average to 1 and offsets to 0 and %s is "
            "%.3f %s than most; exclude that date (data.exclude) or choose one for the reflectance (report.date)",
            scene.bands[b],
            abs(most[b]),
            "darker" if most[b] > 0 else "brighter",
            scene.observations[t].name,
            abs(apart[t, b] - most[b]),
            "brighter" if apart[t, b] > most[b] else "darker",
        )


def brightness(scene: Scene, product: Tensor, scale: int) -> dict[str, float]:
    """`mean_bias` per band, reflectance: the product [b, y * scale, x * scale] averaged over LR pixels, minus
    the temporal mean, over the pixels that are valid on any date.
    """
    seen = scene.valid.any(0).numpy()
    difference = area_average(product, scale, 1) - scene.temporal_mean.numpy()
    return {
        f"mean_bias_{band}": float(d[s].mean(dtype=np.float64))
        for band, d, s in zip(scene.bands, difference, seen, strict=True)
    }


def standardised(scene: Scene, predicted: Tensor, noise: Tensor) -> Tensor:
    """[b, y, x] this module's map; NaN where no date is valid."""
    z = (predicted - scene.frames) / noise[..., None, None] * scene.valid
    count = scene.valid.sum(0)
    return (z.sum(0) / count.sqrt()).where(count > 0, math.nan)


def maps(scene: Scene, predicted: Tensor, noise: Tensor) -> Figure:
    """The maps of `standardised`, band by band: red where the product is brighter than what was observed."""
    panels = []
    for band, z in zip(scene.bands, standardised(scene, predicted, noise).numpy(), strict=True):
        colours = colormaps["RdBu_r"]((z + SHOWN) / (2 * SHOWN))[..., :3]
        picture = np.where(np.isfinite(z)[..., None], 255 * colours + 0.5, MASKED).astype(np.uint8)
        finite = z[np.isfinite(z)]
        beyond = float((abs(finite) > SHOWN).mean())
        facts = f"rms {math.sqrt(float((finite**2).mean())):.2f}, {beyond:.1%} beyond {SHOWN:g}"
        panels.append(Panel(sized(picture, 1, 1, (0, 0, *z.shape), PANEL)[0], band, facts))
    header = (
        "Predicted - observed, mean over the dates, in its standard errors: "
        f"red +{SHOWN:g} (product too bright), blue -{SHOWN:g}"
    )
    columns = min(4, len(panels))
    return sheet([panels[k : k + columns] for k in range(0, len(panels), columns)], header)


def _ndvi(red: Tensor, infrared: Tensor) -> Tensor:
    return (infrared - red) / (infrared + red)
