"""The separable operator against the dense reference A_y @ W @ A_x.T and against what the machine could do, in one run.

python benchmarks/observe.py [--size 256] [--observations 8] [--bands 4] [--scale 8] [--more 16,30,60]

Forward and backward. Prints seconds (median of the repetitions, taken in turn), how they compare with the dense
reference and with the floor: the useful arithmetic at the measured rate of a matrix product, or the bytes that must be
read and written (weights, frames and the gradients of both) at that of a copy, whichever takes longer. Also the largest
relative difference of the results and the memory on top of the weights, in units of the weights, and the weights-only
seconds of more observations, direct and interpolated (s2sr/model/kernels.py).
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from s2sr.cli import keep_memory
from s2sr.model import kernels
from s2sr.model.field import SplatField
from s2sr.model.footprint import pixel_integral
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF

PAYS = kernels.PAYS


def dense(field: SplatField) -> Tensor:
    """The same frames by whole matrices."""
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


def medians(repetitions: int, *steps: Callable[[], object]) -> list[float]:
    """The seconds of each step. The steps take turns, so that all see the same machine."""
    for step in steps:
        step()
    rounds = [[timed(step) for step in steps] for _ in range(repetitions)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def useful(field: SplatField) -> float:
    """The number of floating-point operations of forward and backward for the weights alone, without any waste."""
    kernels = field.footprints(field.shifts).direct().values
    (y, x), columns = field.grid.shape, field.lattice.shape[1]
    return sum(
        4.0 * y * (rows[0].numel() * columns + along[0].numel() * x)
        for rows, along in zip(kernels[::2], kernels[1::2], strict=True)
    )


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def weights_only(field: SplatField, cotangent: Tensor, pays: float = PAYS) -> tuple[Tensor, Tensor]:
    kernels.PAYS = pays
    for parameter in field.parameters():
        parameter.requires_grad_(parameter is field.weights)
    return evaluation(field, field, cotangent)


def with_shifts(field: SplatField, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    field.raw_shifts.requires_grad_(True)
    return evaluation(field, field, cotangent)


def evaluation(field: SplatField, forward: Callable[[], Tensor], cotangent: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the frames and the gradient of the weights."""
    field.zero_grad(set_to_none=True)
    frames = forward()
    frames.backward(cotangent)
    assert field.weights.grad is not None
    return frames.detach(), field.weights.grad


def made(size: int, observations: int, bands: int, scale: int) -> tuple[SplatField, Tensor]:
    """A field of white noise, and the gradient with which a backward pass begins [t, b, y, x]."""
    grid = Grid(None, (10, 0, 0, 0, -10, 0), (size, size))
    shifts = 0.15 * torch.randn(observations, 2)
    field = SplatField(grid, ("B02", "B03", "B04", "B08")[:bands], scale=scale, psf=PSF(0.45), shifts=shifts)
    torch.nn.init.normal_(field.weights)
    return field, torch.randn(observations, bands, *grid.shape)


def memory(field: SplatField, cotangent: Tensor) -> float:
    """The most memory that an evaluation holds on top of the weights, in units of the weights."""
    before = peak()
    with_shifts(field, cotangent)
    return (peak() - before) / field.weights.nbytes


def against_dense(field: SplatField, cotangent: Tensor, repetitions: int) -> None:
    """Print the seconds beside those of the dense reference and of the floor, and how far the results are apart."""
    square, large = torch.randn(1024, 1024), torch.randn(field.weights.numel())
    product, copy = torch.empty_like(square), torch.empty_like(large)
    fixed, both, whole, gemm, moving = medians(
        repetitions,
        lambda: weights_only(field, cotangent),
        lambda: with_shifts(field, cotangent),
        lambda: evaluation(field, lambda: dense(field), cotangent),
        lambda: torch.mm(square, square, out=product),
        lambda: copy.copy_(large),
    )
    flops, rate = useful(field), 2 * 1024**3 / gemm
    moved, speed = 2 * (field.weights.nbytes + cotangent.nbytes), 2 * large.nbytes / moving
    floor = max(flops / rate, moved / speed)
    print(f"floor: {flops / 1e9:.1f} GFLOP at {rate / 1e9:.0f} GFLOP/s take {flops / rate:.3f} s,", end=" ")
    print(f"{moved / 1e6:.0f} MB at {speed / 1e9:.1f} GB/s {moved / speed:.3f} s")
    print("forward + backward              seconds   dense / this   this / floor")
    rows = {"dense, weights and shifts": whole, "separable, weights and shifts": both, "separable, weights only": fixed}
    for name, value in rows.items():
        print(f"{name:30}{value:9.3f}{whole / value:15.1f}{value / floor:15.1f}")
    found, expected = with_shifts(field, cotangent), evaluation(field, lambda: dense(field), cotangent)
    errors = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True)]
    print(f"largest relative difference: frames {errors[0]:.1e}, gradient {errors[1]:.1e}")


def interpolated(field: SplatField, cotangent: Tensor, repetitions: int) -> None:
    """Print the seconds of many observations with direct and with interpolated kernels."""
    chosen = "interpolated" if field.footprints(field.shifts).interpolated() else "direct"
    each, between = medians(
        repetitions,
        lambda: weights_only(field, cotangent, pays=0.0),
        lambda: weights_only(field, cotangent, pays=math.inf),
    )
    kernels.PAYS = PAYS
    print(f"{len(field.shifts):36}{each:9.3f}{between:15.3f}   {chosen}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"size": 256, "observations": 8, "bands": 4, "scale": 8, "repetitions": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--more", default="16,30,60")
    options = parser.parse_args()
    keep_memory()  # as train.py does
    torch.manual_seed(0)
    size, observations, bands, scale = options.size, options.observations, options.bands, options.scale

    with_shifts(*made(32, observations, bands, scale))  # libraries have taken their memory
    field, cotangent = made(size, observations, bands, scale)
    held = memory(field, cotangent)
    print(f"{size} x {size} LR pixels, {observations} observations, {bands} bands,", end=" ")
    print(f"{scale} splats per pixel, {torch.get_num_threads()} threads")
    against_dense(field, cotangent, options.repetitions)
    print(f"peak memory on top of the weights ({field.weights.nbytes / 1e6:.0f} MB): {held:.1f} times the weights")
    print("weights only, one band: observations   direct   interpolated   chosen")
    for more in sorted({observations, *map(int, options.more.split(","))}):
        interpolated(*made(size, more, 1, scale), options.repetitions)


if __name__ == "__main__":
    main()
