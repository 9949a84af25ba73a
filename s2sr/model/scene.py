"""What was observed: repeat acquisitions of one place on one low-resolution grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2sr.errors import InputError
from s2sr.model.grid import Grid
from s2sr.model.sampling import Sampling, samplings


def iso(when: datetime) -> str:
    """ISO 8601 in UTC, so that texts sort like times; a time without a zone is taken as UTC."""
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Observation:
    """One acquisition: facts for the tables, not the pixels."""

    name: str  # file or product name
    datetime: str  # ISO 8601
    clear: float  # fraction of its samples that are valid, 0 to 1
    rejected: str = ""  # why it is not used; empty: it is used


@dataclass(frozen=True)
class Truth:
    """What a simulated scene was made from: the sharp image and the parameters of the simulation."""

    reflectance: Tensor  # [b, y * scale, x * scale] over the footprint of the scene's grid
    scale: int  # truth pixels per LR pixel and axis
    shifts: Tensor  # [t, 2] (dy, dx), LR pixels
    sigma_psf: Tensor  # [b], pixels of the band's own grid


@dataclass(frozen=True)
class Scene:
    """Frames, their validity and their grid. Invalid samples never enter a fit; masked ones are 0 in `frames`."""

    frames: Tensor  # [t, b, y, x] float32 reflectance
    valid: Tensor  # [t, b, y, x] bool: what a fit sees
    grid: Grid  # of the LR pixels
    bands: tuple[str, ...]
    observations: tuple[Observation, ...]  # the used ones, aligned with t
    rejected: tuple[Observation, ...] = ()
    truth: Truth | None = field(default=None, repr=False)
    attribution: str = ""
    basemap: Path | None = None  # an aerial picture of the place, for the eye only
    judged: Tensor = field(default=None, repr=False)  # type: ignore[assignment]  # as valid: withheld, to judge a fit
    validation: Tensor = field(default=None, repr=False)  # type: ignore[assignment]  # withheld, to choose within a fit

    def __post_init__(self) -> None:
        shape = (len(self.observations), len(self.bands), *self.grid.shape)
        if tuple(self.frames.shape) != shape or self.valid.shape != self.frames.shape:
            raise ValueError(f"frames {tuple(self.frames.shape)} and valid {tuple(self.valid.shape)} are not {shape}")
        for name in ("judged", "validation"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, torch.zeros_like(self.valid))

    @classmethod
    def of(
        cls,
        frames: np.ndarray | Tensor,  # [t, b, y, x] reflectance, NaN where there is none
        *,
        bands: Sequence[str],
        dates: Sequence[Any],  # [t] ISO 8601, as text or dates of datetime, numpy or pandas
        crs: str | None = None,
        transform: Sequence[float] = (10.0, 0.0, 0.0, 0.0, -10.0, 0.0),  # of the 10 m pixels, as in Grid; or an Affine
        valid: np.ndarray | Tensor | None = None,  # bool, broadcasts to frames; default: what is finite
    ) -> Scene:
        """A scene from arrays. Raises InputError if their shapes do not match or the values cannot be reflectance."""
        values = torch.tensor(np.asarray(frames), dtype=torch.float32)
        if values.ndim != 4 or tuple(values.shape[:2]) != (len(dates), len(bands)):
            raise InputError(
                f"frames {tuple(values.shape)} are not [date, band, row, column] of {len(dates)} dates and "
                f"{len(bands)} bands"
            )
        seen = values.isfinite()
        if valid is not None:
            seen = seen & torch.tensor(np.asarray(valid), dtype=torch.bool)
        if seen.any() and (typical := float(values[seen].median())) > 2:
            raise InputError(f"frames have a median of {typical:.4g}: give reflectance, such as 1e-4 * DN - 0.1")
        try:
            times = [iso(datetime.fromisoformat(str(when))) for when in dates]
        except ValueError as error:
            raise InputError(f"dates: {error}; write them as 2024-06-01 or 2024-06-01T10:50:00Z") from None
        clear = seen.float().mean((1, 2, 3)).tolist()
        return cls(
            frames=values.where(seen, 0),
            valid=seen,
            grid=Grid(crs, tuple(transform)[:6], tuple(values.shape[2:])),  # type: ignore[arg-type]
            bands=tuple(bands),
            observations=tuple(map(Observation, times, times, clear)),
        )

    @cached_property
    def samplings(self) -> tuple[Sampling, ...]:
        """[b] which LR pixels of each band are measurements."""
        return samplings(self.frames, self.valid | self.judged | self.validation, self.bands)

    @property
    def measured(self) -> Tensor:
        """[b, y, x] bool: the samples that are measurements, not repetitions of one."""
        return torch.stack([s.measured(self.grid.shape) for s in self.samplings]).to(self.valid.device)

    def __len__(self) -> int:
        return len(self.observations)

    def __str__(self) -> str:
        days = sorted(o.datetime[:10] for o in self.observations)
        rows, columns = self.grid.shape
        clear = sum(o.clear for o in self.observations) / len(self)
        return (
            f"{len(self)} observations from {days[0]} to {days[-1]}, {rows} x {columns} pixels, "
            f"{' '.join(self.bands)}, {clear:.0%} clear; {len(self.rejected)} not used"
        )

    def select(self, keep: list[int], why: str) -> Scene:
        """The scene of the observations `keep`; the others are listed as rejected because of `why`."""
        dropped = [replace(o, rejected=why) for i, o in enumerate(self.observations) if i not in keep]
        truth = self.truth and replace(self.truth, shifts=self.truth.shifts[keep])
        return replace(
            self,
            **self._samples(lambda samples: samples[keep]),
            observations=tuple(self.observations[i] for i in keep),
            rejected=(*self.rejected, *dropped),
            truth=truth,
        )

    def clearest(self, n: int) -> Scene:
        """The scene of the `n` observations with the largest clear fraction, in their order; all if fewer."""
        ranked = sorted(range(len(self)), key=lambda t: -self.observations[t].clear)
        return self.select(sorted(ranked[:n]), f"not among the {n} clearest")

    def crop(self, side: int) -> Scene:
        """The central `side` x `side` LR pixels, taken at the floor of the centre.

        Raises InputError if the scene is smaller.
        """
        rows, columns = self.grid.centre(side)
        row, column, window = rows.start, columns.start, (..., rows, columns)
        truth = self.truth
        if truth is not None:
            s = truth.scale
            fine = truth.reflectance[..., s * row : s * (row + side), s * column : s * (column + side)]
            truth = replace(truth, reflectance=fine)
        clear = self.valid[window].float().mean((1, 2, 3)).tolist()
        return replace(
            self,
            **self._samples(lambda samples: samples[window]),
            observations=tuple(replace(o, clear=c) for o, c in zip(self.observations, clear, strict=True)),
            grid=self.grid.crop(row, column, (side, side)),
            truth=truth,
        )

    @cached_property
    def temporal_mean(self) -> Tensor:
        """[b, y, x] mean over the dates of the valid samples; where there is none, the band's overall median."""
        count = self.valid.sum(0)
        mean = (self.frames * self.valid).sum(0) / count.clamp(min=1)
        for b in range(len(self.bands)):
            if (count[b] == 0).any():
                mean[b][count[b] == 0] = self.frames[:, b][self.valid[:, b]].median()
        return mean

    def to(self, device: torch.device | str) -> Scene:
        """The scene with its samples on a device; the truth is not moved."""
        return replace(self, **self._samples(lambda samples: samples.to(device)))

    def _samples(self, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """All fields of shape [t, b, y, x], after applying `change` to each."""
        return {name: change(getattr(self, name)) for name in ("frames", "valid", "judged", "validation")}

    def whole(self) -> Scene:
        """The scene with nothing withheld."""
        none = torch.zeros_like(self.valid)
        return replace(self, valid=self.valid | self.judged | self.validation, judged=none, validation=none)
