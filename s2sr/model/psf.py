"""The point-spread function: the Gaussian that remains of the system MTF without the detector's box.

The system MTF at Nyquist includes the detector's sinc, 2 / pi there, but the model integrates over the detector, so

    sigma = sqrt(-2 ln(MTF / (2 / pi))) / pi        pixels of the band's own grid.

MTF values: CNES sensorsio, `sentinel2.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s2sr.errors import InputError

# Width of a band's own detector pixel in LR pixels of 10 m, even if a file holds the band resampled to 10 m.
DETECTOR_WIDTH = {
    **dict.fromkeys(("B02", "B03", "B04", "B08"), 1),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 2),
    **dict.fromkeys(("B01", "B09", "B10"), 6),
}
MTF_AT_NYQUIST = {
    "B02": 0.304, "B03": 0.276, "B04": 0.233, "B08": 0.222, "B05": 0.343,
    "B06": 0.336, "B07": 0.338, "B8A": 0.325, "B11": 0.21, "B12": 0.19,
}  # fmt: skip
PASSED = 0.05  # of a sinusoid's amplitude; what is finer counts as not seen
WIDEST = 2  # pixels of the band's own grid: such a PSF passes under 1 % at a quarter of a cycle per pixel


def sigma_from_mtf(mtf: float) -> float:
    """Standard deviation (pixels of the band's own grid) of the Gaussian beside the detector's box."""
    return math.sqrt(-2 * math.log(mtf * math.pi / 2)) / math.pi


def transfer(frequency: Tensor, sigma: Tensor | float, width: Tensor | float = 1) -> Tensor:
    """The fraction of a sinusoid's amplitude that a footprint passes along an axis; cycles per LR pixel, LR pixels."""
    return torch.sinc(width * frequency) * torch.exp(-2 * (math.pi * sigma * frequency).square())


def detail_limit(sigma: float, width: float) -> float:
    """Half the period, LR pixels, of the finest sinusoid of which the footprint still passes the fraction `PASSED`."""
    low, high = torch.tensor([0, 1 / width], dtype=torch.float64)  # transfer falls from 1 to 0 between them
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if transfer(middle, sigma, width) > PASSED else (low, middle)
    return 1 / (2 * float(low))


def detector_widths(bands: Sequence[str]) -> Tensor:
    """[b] width of each band's detector pixel, LR pixels; 1 for a band that is not one of Sentinel-2's."""
    return torch.tensor([float(DETECTOR_WIDTH.get(band, 1)) for band in bands])


@dataclass(frozen=True)
class PSF:
    """The Gaussian part of the point-spread function, per band.

    sigma: one number for all bands or one per band name, in pixels of the band's own grid.
    learn: let stages with `psf` among their blocks fit it.

    Raises InputError for a sigma that is not positive or implausibly wide (such as one in metres), and if `learn` is
    neither true nor false.
    """

    sigma: float | Mapping[str, float]
    learn: bool = False

    def __post_init__(self) -> None:
        if type(self.learn) is not bool:
            raise InputError(f"psf.learn={self.learn}: it must be true or false")
        for band, sigma in (self.sigma if isinstance(self.sigma, Mapping) else {"": self.sigma}).items():
            if not (isinstance(sigma, int | float) and 0 < sigma <= WIDEST):
                allowed = f"a positive number up to {WIDEST} pixels of the band's own grid"
                raise InputError(f"psf.sigma must be {allowed}, not {sigma}" + (f" (band {band})" if band else ""))

    def of(self, bands: Sequence[str]) -> Tensor:
        """[b] sigma in pixels of the band's own grid.

        Raises InputError if a band has no value.
        """
        table = self.sigma if isinstance(self.sigma, Mapping) else dict.fromkeys(bands, self.sigma)
        missing = [band for band in bands if band not in table]
        if missing:
            raise InputError(f"psf.sigma has no value for {', '.join(missing)}; it has {', '.join(table)}")
        return torch.tensor([float(table[band]) for band in bands])
