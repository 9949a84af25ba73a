"""The separable operator against the dense reference A_y @ W @ A_x.T: forward and backward, in one run.

python benchmarks/operator.py [--size 256] [--observations 8] [--bands 4] [--scale 8]

Prints seconds (median of the repetitions, taken in turn), their ratio, the largest relative difference of the results,
and the memory on top of the weights, in units of the weights.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from s2sr.model.field import SplatField
from s2sr.model.footprint import pixel_integral
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF


def dense(field: SplatField) -> Tensor:
    """The same frames through whole matrices."""
    sigma = torch.hypot(field.sigma_psf, field.sigma_psf.new_tensor(field.lattice.sigma))
    frames = []
    for b in range(len(field.bands)):
        axes = []
        for axis, n in enumerate(field.grid.shape):
            u = torch.arange(n)[:, None] + 0.5 - field.lattice.centres(axis).to(sigma.dtype)
            shifted = u - field.shifts[:, axis, None, None]
            axes.append(pixel_integral(shifted, field.widths[b], sigma[b]) / field.scale)
        frames.append(axes[0] @ field.weights[b] @ axes[1].mT)
    return torch.stack(frames, 1)


def timed(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"size": 256, "observations": 8, "bands": 4, "scale": 8, "repetitions": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.manual_seed(0)
    grid = Grid(None, (10, 0, 0, 0, -10, 0), (options.size, options.size))
    bands = ("B02", "B03", "B04", "B08")[: options.bands]
    shifts = 0.15 * torch.randn(options.observations, 2)
    small = SplatField(Grid(None, grid.transform, (32, 32)), bands, scale=options.scale, psf=PSF(0.45), shifts=shifts)
    small().sum().backward()  # libraries and threads have taken their memory
    field = SplatField(grid, bands, scale=options.scale, psf=PSF(0.45), shifts=shifts)
    torch.nn.init.normal_(field.weights)
    cotangent = torch.randn(options.observations, len(bands), *grid.shape)
    weights = field.weights.nbytes

    def separable(fixed: bool) -> tuple[Tensor, Tensor]:
        field.raw_shifts.requires_grad_(not fixed)
        field.zero_grad(set_to_none=True)
        frames = field()
        frames.backward(cotangent)
        return frames.detach(), field.weights.grad

    def reference() -> tuple[Tensor, Tensor]:
        field.raw_shifts.requires_grad_(True)
        field.zero_grad(set_to_none=True)
        frames = dense(field)
        frames.backward(cotangent)
        return frames.detach(), field.weights.grad

    before = peak()
    separable(fixed=False)
    memory = (peak() - before) / weights
    pairs = [
        (timed(lambda: separable(fixed=True)), timed(lambda: separable(fixed=False)), timed(reference))
        for _ in range(options.repetitions)
    ]
    weights_only, both, whole = (statistics.median(column) for column in zip(*pairs, strict=True))
    found, expected = separable(fixed=False), reference()
    errors = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True)]
    print(
        f"{options.size} x {options.size} LR pixels, {options.observations} observations, {len(bands)} bands, ", end=""
    )
    print(f"{options.scale} splats per pixel, {torch.get_num_threads()} threads")
    print("forward + backward                         seconds   dense / this")
    print(f"dense, weights and shifts                  {whole:7.3f}")
    print(f"separable, weights and shifts              {both:7.3f}   {whole / both:6.1f}")
    print(f"separable, weights only                    {weights_only:7.3f}   {whole / weights_only:6.1f}")
    print(f"largest relative difference: frames {errors[0]:.1e}, gradient {errors[1]:.1e}")
    print(f"peak memory on top of the weights ({weights / 1e6:.0f} MB): {memory:.1f} times the weights")


if __name__ == "__main__":
    main()
