"""The scene as a field of Gaussian splats, and how every observation sees it.

    y[t,b,i,j] = o[t,b] + g[t,b] s^-2 sum_k w[k,b] E(i + 1/2 - dy[t] - mu_ky; b) E(j + 1/2 - dx[t] - mu_kx; b)
                 + c[t,b,i,j]

with E as in `footprint`, S_b^2 = sigma_splat^2 + sigma_psf,b^2 and the band's own detector width; c is the change on a
date, 0 until a stage estimates it. If a file repeats 20 m samples, (i, j) is the first LR pixel of a block, and 1
replaces 1/2 (`sampling`). The weights are reflectance: a constant field is observed and rendered as the constant. A
positive shift means that the observation's footprints lie at smaller row and column coordinates of the field. Gauge:
the shifts have zero mean, so the field's grid is the mean geolocation of the observations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2sr.model.footprint import pixel_integral, tail
from s2sr.model.grid import Grid
from s2sr.model.kernels import Footprints
from s2sr.model.lattice import Lattice, margin_of
from s2sr.model.observe import Blur, Observe
from s2sr.model.psf import PSF, WIDEST, detector_widths
from s2sr.model.radiometry import Radiometry
from s2sr.model.sampling import Sampling

SLACK = 0.5  # LR pixels that a shift may move beyond the largest initial one


class SplatField(nn.Module):
    """Weights [b, rows, columns] on a lattice, shifts [t, 2], radiometry and PSF: everything that is optimised.

    grid: of the LR pixels; scale: splats per LR pixel and axis; shifts: [t, 2] initial (dy, dx), LR pixels.
    gain, offset: whether these are fitted. samplings: [b]; default: every LR pixel is a measurement.
    """

    weights: nn.Parameter
    widths: Tensor  # [b] detector pixels, LR pixels
    changed: Tensor  # [t, b, y, x] c: change on a date, reflectance; 0 until a stage estimates it
    beside: Tensor  # [b] offset of the detector's centre from that of the LR pixel, both axes, LR pixels
    log_sigma_start: Tensor

    def __init__(
        self,
        grid: Grid,
        bands: Sequence[str],
        *,
        scale: int,
        psf: PSF,
        shifts: Tensor,
        gain: bool = False,
        offset: bool = False,
        samplings: Sequence[Sampling] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.bands = tuple(bands)
        self.register_buffer("widths", detector_widths(bands).to(dtype), persistent=False)
        self.samplings = tuple(samplings or [Sampling()] * len(bands))
        self.register_buffer("beside", self.widths.new_tensor([s.beside for s in self.samplings]), persistent=False)
        self.raw_shifts = nn.Parameter(shifts.to(dtype, copy=True))
        self.log_sigma = nn.Parameter(psf.of(bands).to(dtype).log())
        self.register_buffer("log_sigma_start", self.log_sigma.detach().clone(), persistent=False)
        self.radiometry = Radiometry(len(shifts), len(bands), gain=gain, offset=offset).to(dtype)
        self.register_buffer("changed", torch.zeros(len(shifts), len(bands), *grid.shape, dtype=dtype))
        radiometry = {"radiometry.raw_gain": gain, "radiometry.raw_offset": offset}
        self.fitted = {
            "weights": ["weights"],
            "shifts": ["raw_shifts"],
            "radiometry": [name for name, free in radiometry.items() if free],
            "psf": ["log_sigma"] if psf.learn else [],
        }
        # The coarsest splats have the widest footprint; one margin for all levels keeps refinement simple.
        self.reach = float(self.shifts.detach().abs().max()) + SLACK
        spread = torch.hypot(self.sigma_psf.detach(), torch.tensor(0.6 / scale))
        footprint = (self.beside + self.widths / 2 + tail(dtype) * spread).max()
        self.lattice = Lattice(grid.shape, scale, margin_of(grid.shape, math.ceil(float(footprint) + self.reach)))
        self.weights = nn.Parameter(torch.zeros(len(bands), *self.lattice.shape, dtype=dtype))

    @property
    def bands_by_sampling(self) -> dict[Sampling, list[int]]:
        """The bands that share a grid of measurements, by sampling."""
        found: dict[Sampling, list[int]] = {}
        for band, sampling in enumerate(self.samplings):
            found.setdefault(sampling, []).append(band)
        return found

    @property
    def scale(self) -> int:
        return self.lattice.scale

    @property
    def shifts(self) -> Tensor:
        """[t, 2] (dy, dx), LR pixels, zero mean."""
        return self.raw_shifts - self.raw_shifts.mean(0)

    @property
    def sigma_psf(self) -> Tensor:
        """[b] Gaussian part of the PSF, LR pixels (`PSF.sigma` counts pixels of the band's own grid)."""
        return self._sigma * self.widths

    @property
    def _sigma(self) -> Tensor:
        # A line search may try anything: within a factor of 4 of the start, or exp would overflow.
        near = self.log_sigma.clamp(self.log_sigma_start - 1.4, self.log_sigma_start + 1.4)
        return near.exp().clamp(max=WIDEST)

    def sigma_by_band(self) -> dict[str, float]:
        """The Gaussian part of the PSF in pixels of each band's own grid, as `PSF.sigma` counts it."""
        return dict(zip(self.bands, self._sigma.tolist(), strict=True))

    def blocks(self) -> dict[str, list[nn.Parameter]]:
        """The free parameters by the names that stages use; fixed ones are left out."""
        return {block: [self.get_parameter(name) for name in names] for block, names in self.fitted.items()}

    def footprints(self, shifts: Tensor) -> Footprints:
        """The footprints of frames at `shifts` [t, 2] with the current PSF."""
        shifts = shifts.clamp(-self.reach, self.reach)  # a line search may try to leave the lattice
        sigma = torch.hypot(self.sigma_psf, self.sigma_psf.new_full((), self.lattice.sigma))
        return Footprints(self.lattice, 0.5 - shifts[:, None] + self.beside[:, None], self.widths, sigma)

    def forward(self) -> Tensor:
        """The predicted frames [t, b, y, x], reflectance."""
        return self.radiometry(self.observed(self.shifts)).add_(self.changed)

    def observed(self, shifts: Tensor) -> Tensor:
        """[t, b, y, x] frames at any `shifts` [t, 2], with gain 1 and offset 0, reflectance.

        In the gauge of the field's own shifts; up to `reach` LR pixels along an axis.
        """
        footprints = self.footprints(shifts)
        weights, short = self.weights, footprints.interpolated()
        if short:
            weights = Blur.apply(weights, short.start, short.cells, short.positions.firsts, *short.positions.values)
        kernels = short.observations if short else footprints.direct()
        frames = Observe.apply(weights, footprints.parameters, self.grid.shape, kernels.firsts, *kernels.values)
        if all(s.pitch == 1 for s in self.samplings):
            return frames
        return torch.stack([s.repeat(f) for s, f in zip(self.samplings, frames.unbind(1), strict=True)], 1)

    @torch.no_grad()
    def initialise(self, image: Tensor) -> None:
        """Set the weights to an LR image [b, y, x], its border pixels extended over the margin."""
        m = self.lattice.margin
        padded = F.pad(image[None].to(self.weights), [m] * 4, mode="replicate")
        self.weights.copy_(F.interpolate(padded, scale_factor=self.scale, mode="bicubic", align_corners=False)[0])

    def unsolved(self, scale: int) -> SplatField:
        """A field of zero weights at `scale`, with the same margin, shifts, PSF and radiometry.

        Only its weights are free.
        """
        sigma = PSF(self.sigma_by_band())
        shifts, samplings = self.shifts.detach(), self.samplings
        field = SplatField(self.grid, self.bands, scale=scale, psf=sigma, shifts=shifts, samplings=samplings)
        field.reach, field.lattice = self.reach, Lattice(self.grid.shape, scale, self.lattice.margin)
        field.weights = nn.Parameter(field.weights.new_zeros(len(self.bands), *field.lattice.shape))
        field.to(self.weights).radiometry.load_state_dict(self.radiometry.state_dict())
        field.fitted = {block: names if block == "weights" else [] for block, names in field.fitted.items()}
        return field

    @torch.no_grad()
    def refine(self, scale: int) -> None:
        """Refine the lattice to a multiple of its scale; predicted frames and rendered image stay the same."""
        if scale != self.scale:
            self.lattice, weights = self.lattice.refine(self.weights, scale)
            self.weights = nn.Parameter(weights)

    @torch.no_grad()
    def render(self, grid: Grid | None = None) -> Tensor:
        """The field itself, averaged over the pixels of `grid`: [b, rows, columns] reflectance.

        Any crop and resolution of the scene's footprint; default: the lattice's own resolution. The only blur is the
        splat's (0.6 / scale LR pixels). Divided by the rendered field of ones; NaN far outside the footprint.
        Raises ValueError for a grid of another CRS or one that is rotated.
        """
        grid = grid or self.grid.scaled(self.scale)
        image: Tensor = self.weights
        for axis, (start, pitch) in enumerate(self.grid.axes_of(grid)):
            positions = start + pitch * (torch.arange(grid.shape[axis], dtype=torch.float64) + 0.5)
            kernel = partial(pixel_integral, width=abs(pitch), sigma=self.lattice.sigma)
            reach = abs(pitch) / 2 + tail(image.dtype) * self.lattice.sigma
            image = self.lattice.along(axis, image, positions, kernel, reach, normalise=True)
        return image
