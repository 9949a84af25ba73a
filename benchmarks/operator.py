"""The separable operator against the dense reference A_y @ W @ A_x.T and against what the machine could do, in one run.

python benchmarks/operator.py [--size 256] [--observations 8] [--bands 4] [--scale 8] [--more 16,30,60]

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

from s2sr.model import kernels
from s2sr.model.field import SplatField
from s2sr.model.footprint import pixel_integral
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF

PAYS = kernels.PAYS


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


def medians(repetitions: int, *steps: Callable[[], object]) -> list[float]:
    """Seconds of each step; they take turns, so that all see the same machine."""
    for step in steps:
        step()
    rounds = [[timed(step) for step in steps] for _ in range(repetitions)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def useful(field: SplatField) -> float:
    """Floating-point operations of forward and backward, weights only, without any waste."""
    kernels = field.footprints(field.shifts).direct().values
    (y, x), columns = field.grid.shape, field.lattice.shape[1]
    return sum(
        4.0 * y * (rows.numel() * columns + along.numel() * x)
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
    field.zero_grad(set_to_none=True)
    frames = forward()
    frames.backward(cotangent)
    return frames.detach(), field.weights.grad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"size": 256, "observations": 8, "bands": 4, "scale": 8, "repetitions": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--more", default="16,30,60")
    options = parser.parse_args()
    torch.manual_seed(0)
    grid = Grid(None, (10, 0, 0, 0, -10, 0), (options.size, options.size))
    bands = ("B02", "B03", "B04", "B08")[: options.bands]

    def made(observations: int, grid: Grid = grid, bands: tuple[str, ...] = bands) -> tuple[SplatField, Tensor]:
        shifts = 0.15 * torch.randn(observations, 2)
        field = SplatField(grid, bands, scale=options.scale, psf=PSF(0.45), shifts=shifts)
        torch.nn.init.normal_(field.weights)
        return field, torch.randn(observations, len(bands), *grid.shape)

    with_shifts(*made(options.observations, Grid(None, grid.transform, (32, 32))))  # libraries have taken their memory
    field, cotangent = made(options.observations)
    before = peak()
    with_shifts(field, cotangent)
    memory = (peak() - before) / field.weights.nbytes

    square = torch.randn(1024, 1024)
    large = torch.randn(field.weights.numel())
    copy = torch.empty_like(large)
    product = torch.empty_like(square)
    *seconds, gemm, moving = medians(
        options.repetitions,
        lambda: weights_only(field, cotangent),
        lambda: with_shifts(field, cotangent),
        lambda: evaluation(field, lambda: dense(field), cotangent),
        lambda: torch.mm(square, square, out=product),
        lambda: copy.copy_(large),
    )
    fixed, both, whole = seconds
    flops, rate = useful(field), 2 * 1024**3 / gemm
    moved, speed = 2 * (field.weights.nbytes + cotangent.nbytes), 2 * large.nbytes / moving
    floor = max(flops / rate, moved / speed)
    found, expected = with_shifts(field, cotangent), evaluation(field, lambda: dense(field), cotangent)
    errors = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True)]

    print(
        f"{options.size} x {options.size} LR pixels, {options.observations} observations, {len(bands)} bands,", end=" "
    )
    print(f"{options.scale} splats per pixel, {torch.get_num_threads()} threads")
    print(f"floor: {flops / 1e9:.1f} GFLOP at {rate / 1e9:.0f} GFLOP/s take {flops / rate:.3f} s,", end=" ")
    print(f"{moved / 1e6:.0f} MB at {speed / 1e9:.1f} GB/s {moved / speed:.3f} s")
    print("forward + backward              seconds   dense / this   this / floor")
    for name, value in {
        "dense, weights and shifts": whole,
        "separable, weights and shifts": both,
        "separable, weights only": fixed,
    }.items():
        print(f"{name:30}{value:9.3f}{whole / value:15.1f}{value / floor:15.1f}")
    print(f"largest relative difference: frames {errors[0]:.1e}, gradient {errors[1]:.1e}")
    print(f"peak memory on top of the weights ({field.weights.nbytes / 1e6:.0f} MB): {memory:.1f} times the weights")

    print("weights only, one band: observations   direct   interpolated   chosen")
    for observations in sorted({options.observations, *map(int, options.more.split(","))}):
        field, cotangent = made(observations, bands=bands[:1])
        chosen = "interpolated" if field.footprints(field.shifts).interpolated() else "direct"
        direct, interpolated = medians(
            options.repetitions,
            lambda f=field, c=cotangent: weights_only(f, c, pays=0.0),
            lambda f=field, c=cotangent: weights_only(f, c, pays=math.inf),
        )
        kernels.PAYS = PAYS
        print(f"{observations:36}{direct:9.3f}{interpolated:15.3f}   {chosen}")


if __name__ == "__main__":
    main()
