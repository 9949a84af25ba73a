"""The stack's detail with the reflectance of one date (`report.date`).

    f_t = g_t f + o_t + c,        c <- c + K (y_t - H_t f_t), three times

f is the field common to all dates, H_t the instrument at date t, and K a Gaussian average (Nadaraya-Watson) of the
clear residuals, of standard deviation 0.75 LR pixels, which fades to zero away from clear samples. So structures
coarser than about two LR pixels come from the date, as if it were alone, and finer ones from the stack. This is honest
only where date and stack show the same ground: where a field was mown in between, its colour is the date's, but the
lines within it and the sharpest part of its outline are the stack's. Under clouds only the date's gain and offset are
used.
"""

from __future__ import annotations

import copy
import datetime

import torch
from torch import Tensor

from s2sr.errors import InputError
from s2sr.model.field import SplatField
from s2sr.model.radiometry import Radiometry
from s2sr.model.scene import Scene

NEAREST = 10  # largest difference from the requested date, days
WIDTH = 0.75  # LR pixels, standard deviation of the average
PASSES = 3
TRUST = 0.05  # of the weight of a clear neighbourhood, below which corrections fade to zero


def observed_on(scene: Scene, date: str) -> int:
    """The index of the observation nearest to `date`, ISO 8601.

    Raises InputError if it is not a date, or if no observation is within 10 days.
    """
    days = [o.datetime[:10] for o in scene.observations]
    try:
        wanted = datetime.date.fromisoformat(str(date))
    except ValueError:
        raise InputError(f"report.date={date}: not a date such as 2024-06-01") from None
    try:
        away = [abs((datetime.date.fromisoformat(day) - wanted).days) for day in days]
    except ValueError:
        raise InputError(f"report.date={date}: {scene.observations[0].name} has no date itself") from None
    nearest = min(range(len(days)), key=lambda t: (away[t], -scene.observations[t].clear))
    if away[nearest] > NEAREST:
        raise InputError(
            f"report.date={date}: no observation within {NEAREST} days; there are {', '.join(sorted(set(days)))}"
        )
    return nearest


@torch.no_grad()
def dated(field: SplatField, scene: Scene, t: int) -> SplatField:
    """The field with the low frequencies of observation t and the detail of the stack."""
    gain, offset = (x[t, :, None, None] for x in (field.radiometry.gain, field.radiometry.offset))
    found = copy.deepcopy(field)
    found.radiometry = Radiometry(len(scene), len(scene.bands)).to(field.weights)
    found.changed.zero_()  # included in the average below, at the product's resolution
    found.weights.copy_(gain * field.weights + offset)
    lattice, shift = field.lattice, field.shifts[t].double()
    rows, columns = (
        # pixel i of the observation is centred at i + 1/2 - d of the field
        torch.exp(-((lattice.centres(axis)[:, None] - torch.arange(n) - 0.5 + shift[axis]) ** 2) / (2 * WIDTH**2))
        for axis, n in enumerate(scene.grid.shape)
    )
    clear = scene.valid[t].double()
    everything = 2 * torch.pi * WIDTH**2  # the weight of neighbours that are all clear

    def average(residual: Tensor) -> Tensor:
        return rows @ (residual * clear) @ columns.T / (rows @ clear @ columns.T + TRUST * everything)

    for _ in range(PASSES):
        found.weights.add_(average(scene.frames[t].double() - found()[t].double()).to(found.weights))
    return found
