"""`data=demo`: a season over the procedural landscape, with its truth.

Frame t shows R_t = L + p_t * C: the landscape L, the change C of some fields (half of them turn green, the others are
harvested) and a smooth progress p_t from early to late, with mean 0 over the dates. To this are added clouds and their
shadows, the gain and haze that atmospheric correction left on that date, and noise. Over the dates, shifts and hazes
have mean 0 and gains mean 1. So the truth, L, has the mean geolocation, radiometry and season of the dates.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import rasterio
import torch
from scipy.ndimage import gaussian_filter

from s2sr.data.landscape import BANDS, LR_PIXEL, Landscape, Material, landscape
from s2sr.data.simulate import jitter, margin_for, observe, record, truth_of
from s2sr.errors import InputError
from s2sr.files import atomic
from s2sr.model.grid import Grid
from s2sr.model.psf import MTF_AT_NYQUIST, detector_widths, sigma_from_mtf
from s2sr.model.scene import Observation, Scene, Truth
from s2sr.raster import name_bands, placed

VEGETATION, NOT_VEGETATED, WATER = 4, 5, 6  # Sen2Cor's scene classes
SHADOW, CLOUD, THICK_CLOUD = 3, 8, 9
HAZE = {"B02": 1.0, "B03": 0.6, "B04": 0.4, "B08": 0.15}  # of the haze in B02: it scatters short waves
CLOUD_REFLECTANCE = 0.55
DN = 1e-4  # reflectance of one digital number


@dataclass(frozen=True)
class Demo:
    """A simulated season with known truth. Equal fields give equal scenes, up to rounding by numpy's threads."""

    size: int | Sequence[int] = 64  # LR pixels: a side, or rows and columns
    n_dates: int = 12
    start: str = "2023-05-02"  # first date
    every: int = 5  # days between dates
    bands: Sequence[str] = BANDS
    seed: int = 0
    pixels_per_lr: int = 16  # truth pixels per LR pixel and axis
    jitter: float = 0.15  # LR pixels, std per axis
    sigma_psf: float | Mapping[str, float] | None = None  # pixels of the band's own grid; None: as published
    noise: float = 0.002  # reflectance, std
    gain_std: float = 0.02  # per date and band
    haze_std: float = 0.004  # reflectance in B02, per date
    changing: float = 0.2  # fraction of the fields that change over the season
    change: float = 0.4  # fraction of a field's ground that turns green or bare
    cloudy: float = 0.25  # fraction of the dates
    cloud_cover: float = 0.15  # fraction of the ground under cloud on those dates
    scl_misses: float = 0.0  # opacity (0 to 1) up to which SCL misses a cloud or shadow; 0: a perfect mask

    def prepare(self) -> None:
        """Nothing to fetch."""

    def load(self, *, crop: int | None = None) -> Scene:
        """The scene; samples under a cloud or shadow in the SCL are invalid.

        crop: side of the central square to keep, LR pixels. Raises InputError if it does not fit, or if a field has an
        impossible value.
        """
        frames, scl, truth = self._acquire()
        clear = ~np.isin(scl, (SHADOW, CLOUD, THICK_CLOUD))
        valid = np.broadcast_to(clear[:, None], frames.shape)
        observations = tuple(
            Observation(_name(date), date.isoformat(), float(fraction))
            for date, fraction in zip(self._dates(), clear.mean((1, 2)), strict=True)
        )
        scene = Scene(
            frames=torch.from_numpy(np.where(valid, frames, 0).astype(np.float32)),
            valid=torch.from_numpy(valid.copy()),
            grid=self._grid(),
            bands=tuple(self.bands),
            observations=observations,
            truth=truth,
            attribution="simulated by s2sr",
        )
        return scene if crop is None else scene.crop(crop)

    def write(self, folder: str | Path) -> Path:
        """Write the scene as a scene folder, one GeoTIFF per date, including the clouds; returns the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        frames, scl, _ = self._acquire()
        grid = self._grid()
        n = len(self.bands)
        numbers = np.clip(np.rint(frames / DN), 1, 65535).astype(np.uint16)  # 0 is nodata
        for date, bands, classes in zip(self._dates(), numbers, scl, strict=True):
            profile = {"driver": "GTiff", "dtype": "uint16", "count": n + 1, **placed(grid), "nodata": 0}
            with (
                atomic(folder / f"{_name(date)}.tif") as path,
                rasterio.open(path, "w", **profile, compress="deflate") as out,
            ):
                out.write(np.concatenate([bands, classes[None].astype(np.uint16)]))
                name_bands(out, (*self.bands, "SCL"))
                out.scales = (*[DN] * n, 1.0)
                out.offsets = (0.0,) * (n + 1)
                out.update_tags(datetime=date.isoformat())
        return folder

    def _acquire(self) -> tuple[np.ndarray, np.ndarray, Truth]:
        """Frames [t, b, y, x] with clouds, SCL [t, y, x], truth."""
        self._check()
        # separate streams: switching the clouds on does not change the shifts
        streams = np.random.default_rng(self.seed).spawn(5)
        shifts = jitter(self.n_dates, self.jitter, streams[0])
        sigma_psf, widths = self._sigma(), detector_widths(self.bands).numpy()
        sigma = sigma_psf * widths
        # at least 4: the place depends on its extent, and should be the same for all usual jitters and widths
        margin = max(4, margin_for(shifts=shifts, sigma=sigma, widths=widths))
        scale, (height, width) = self.pixels_per_lr, self._shape()
        land = landscape(
            ((height + 2 * margin) * scale, (width + 2 * margin) * scale), pixels_per_lr=scale, seed=self.seed
        )
        chosen = [BANDS.index(band) for band in self.bands]

        def seen(sharp: np.ndarray) -> np.ndarray:
            return observe(sharp, scale, shifts=shifts, sigma=sigma, widths=widths, margin=margin)

        frames = seen(land.reflectance[chosen])
        if self.changing * self.change > 0 and self.n_dates > 1:
            progress = 1 / (1 + np.exp(-np.linspace(-4, 4, self.n_dates)))
            change = _seasonal_change(land, self.changing, self.change, streams[1])[chosen]
            frames = frames + (progress - progress.mean())[:, None, None, None] * seen(change)

        opacity, shadow = self._clouds(streams[2])
        frames = frames * (1 - 0.6 * shadow[:, None]) * (1 - opacity[:, None]) + CLOUD_REFLECTANCE * opacity[:, None]
        gains = 1 + _centred(streams[3].normal(0, self.gain_std, (self.n_dates, len(self.bands))))
        haze = _centred(streams[3].normal(0, self.haze_std, (self.n_dates, 1)))
        offsets = haze * [HAZE[band] for band in self.bands]
        frames = record(frames, noise=self.noise, rng=streams[4], gains=gains, offsets=offsets)

        truth = truth_of(land.reflectance[chosen], scale, margin=margin, shifts=shifts, sigma_psf=sigma_psf)
        return frames, self._classified(land, margin, opacity, shadow), truth

    def _classified(self, land: Landscape, margin: int, opacity: np.ndarray, shadow: np.ndarray) -> np.ndarray:
        """[t, y, x] SCL of the land inside its margin (LR pixels), under clouds of an opacity and their shadows."""
        inside, (_, height, width) = slice(margin * self.pixels_per_lr, -margin * self.pixels_per_lr), opacity.shape
        material = land.material[inside, inside].reshape(height, self.pixels_per_lr, width, self.pixels_per_lr)
        ndvi = _ndvi(land.reflectance[:, inside, inside]).reshape(material.shape).mean((1, 3))
        classes = np.full(opacity.shape, NOT_VEGETATED, np.uint8)
        classes[:, ndvi > 0.35] = VEGETATION
        classes[:, (material == Material.WATER).mean((1, 3)) > 0.5] = WATER
        classes[shadow > self.scl_misses] = SHADOW
        classes[opacity > self.scl_misses] = CLOUD
        classes[opacity > max(0.5, self.scl_misses)] = THICK_CLOUD
        return classes

    def _clouds(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Opacity of clouds and of their shadows, [t, y, x], exactly 0 where there are none."""
        height, width = self._shape()
        away = np.array((-9, -5))  # of a shadow from its cloud, LR pixels: the sun is in the south-east
        reach = np.abs(away)
        opacity = np.zeros((self.n_dates, height, width))
        shadow = np.zeros_like(opacity)
        for t in rng.permutation(self.n_dates)[: round(self.cloudy * self.n_dates)]:
            # a cloud outside of the frame can still cast its shadow into it
            white = rng.normal(0, 1, (height + 2 * reach[0], width + 2 * reach[1]))
            billows = [w * _unit(gaussian_filter(white, size)) for size, w in ((7, 1.0), (3, 0.35), (1.5, 0.1))]
            field = np.sum(billows, axis=0)
            edge = np.quantile(field, 1 - self.cloud_cover)
            cloud = np.clip((field - edge) / 1.3, 0, 0.95)
            opacity[t] = cloud[reach[0] : reach[0] + height, reach[1] : reach[1] + width]
            top, left = reach - away
            shadow[t] = cloud[top : top + height, left : left + width]
        return opacity, shadow

    def _shape(self) -> tuple[int, int]:
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return height, width

    def _sigma(self) -> np.ndarray:
        """[b] pixels of the band's own grid."""
        if self.sigma_psf is None:
            return np.array([sigma_from_mtf(MTF_AT_NYQUIST[band]) for band in self.bands])
        if isinstance(self.sigma_psf, Mapping):
            missing = [band for band in self.bands if band not in self.sigma_psf]
            if missing:
                raise InputError(f"data.sigma_psf has no value for {', '.join(missing)}")
            return np.array([self.sigma_psf[band] for band in self.bands], dtype=float)
        return np.full(len(self.bands), float(self.sigma_psf))

    def _dates(self) -> list[datetime.date]:
        first = datetime.date.fromisoformat(self.start)
        return [first + datetime.timedelta(days=self.every * t) for t in range(self.n_dates)]

    def _grid(self) -> Grid:
        return Grid("EPSG:32631", (LR_PIXEL, 0.0, 640_000.0, 0.0, -LR_PIXEL, 5_680_000.0), self._shape())

    def _check(self) -> None:
        strange = [band for band in self.bands if band not in BANDS]
        if strange or not self.bands:
            raise InputError(f"data.bands={list(self.bands)}: the simulated landscape has {', '.join(BANDS)}")
        sides = (self.size, self.size) if isinstance(self.size, int) else self.size
        if len(sides) != 2 or min(sides) < 4:
            raise InputError(f"data.size={self.size} is neither a side of 4 or more LR pixels nor two of them")
        at_least = {"n_dates": 1, "every": 1, "pixels_per_lr": 8, "jitter": 0, "noise": 0, "gain_std": 0, "haze_std": 0}
        for name, least in at_least.items():
            if not getattr(self, name) >= least:
                raise InputError(f"data.{name}={getattr(self, name)} must be at least {least}")
        for name in ("changing", "change", "cloudy", "cloud_cover", "scl_misses"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"data.{name}={getattr(self, name)} must be a fraction from 0 to 1")
        needed = 190 * (sides[0] + 8) * (sides[1] + 8) * self.pixels_per_lr**2  # bytes; 181 a raster pixel measured
        free = psutil.virtual_memory().available
        if needed > free:
            raise InputError(
                f"data.size={self.size} needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB "
                f"are free; choose data.size={int((free / 190) ** 0.5 / self.pixels_per_lr) - 8}"
            )
        try:
            datetime.date.fromisoformat(self.start)
        except ValueError:
            raise InputError(f"data.start={self.start} is not a date such as 2023-05-02") from None
        if not (self._sigma() > 0).all():
            raise InputError(f"data.sigma_psf={self.sigma_psf} must be positive")


def _seasonal_change(land: Landscape, share: float, amount: float, rng: np.random.Generator) -> np.ndarray:
    """[4, y, x] what a whole season adds: the change of cover times the contrast of crop and soil, field by field."""
    n = len(land.cover)
    fields = rng.permutation(np.unique(land.field[land.material == Material.FIELD]))
    fields = fields[: round(share * len(fields))]
    # the truth lies midway through the change, so fields must have room for half of it either way
    greens = land.cover[fields] < np.median(land.cover[fields]) if len(fields) else []
    change = np.zeros(n, np.float32)
    change[fields] = np.where(greens, amount, -amount)
    added = (change[:, None] * land.crop_over_soil).astype(np.float32)[land.field]
    return np.moveaxis(added * (land.material == Material.FIELD)[..., None], -1, 0)


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(0)


def _unit(values: np.ndarray) -> np.ndarray:
    return values / values.std()


def _ndvi(reflectance: np.ndarray) -> np.ndarray:
    red, infrared = reflectance[BANDS.index("B04")], reflectance[BANDS.index("B08")]
    return (infrared - red) / (infrared + red)


def _name(date: datetime.date) -> str:
    return f"S2_{date.isoformat()}"
