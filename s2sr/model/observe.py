"""The separable, strided forward operator and its adjoint.

Lattice and pixels are regular, so along one axis observation t is a strided correlation with one short kernel:

    y[t, i] = sum_{q, p} taps[t, q, p] * w[(i + first + q) * s + p],      q = LR cells, p = splats within a cell,

for LR pixel i, whose footprint covers the cells first ... first + Q - 1 after its own. The axes are applied in turn; no
splats-by-pixels matrix exists. Each step is a batch of small matrix products over overlapping windows of the data,
which are strided views, not copies. Along rows the windows are whole rows. Along columns they cover `GROUP` cells at a
time, so that the products are large enough to run at the machine's full rate.

With many observations, `Blur` first computes the footprints at a few fixed positions per LR pixel. These form another
lattice, from which `Observe` interpolates every observation with far fewer taps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

GROUP = 16
ROWS = 160  # LR rows at a time, at most: the intermediate stays in the cache and in memory already paged in


@dataclass(frozen=True)
class Taps:
    """The kernels of one band along one axis."""

    values: Tensor  # [t, Q, s]
    first: int  # cell of the first tap of pixel 0


def _runs(rows: int) -> Iterator[tuple[int, int]]:
    """(first, size) of about equally long runs that cover 0 ... rows - 1."""
    size = math.ceil(rows / math.ceil(rows / ROWS))
    for first in range(0, rows, size):
        yield first, min(size, rows - first)


def _row_windows(w: Tensor, n: int, first: int, cells: int, s: int) -> Tensor:
    """[n, cells * s, columns] view of w [rows, columns]: the splats that each of n pixels sees."""
    columns = w.shape[-1]
    return w.as_strided((n, cells * s, columns), (s * columns, columns, 1), w.storage_offset() + first * s * columns)


def _pixel_windows(z: Tensor, cells: int) -> Tensor:
    """[n, cells * t, columns] view of z [n + cells - 1, t, columns]: the pixels that see each of n cells."""
    rows, t, columns = z.shape
    return z.as_strided((rows - cells + 1, cells * t, columns), (t * columns, columns, 1), z.storage_offset())


def along_rows(w: Tensor, taps: Taps, z: Tensor) -> None:
    """Fills z [n, t, columns] from w [rows, columns], contiguous."""
    t, cells, s = taps.values.shape
    kernel = taps.values.reshape(1, t, -1).expand(len(z), -1, -1)
    torch.bmm(kernel, _row_windows(w, len(z), taps.first, cells, s), out=z)


def along_rows_adjoint(z: Tensor, taps: Taps, w: Tensor) -> None:
    """Fills w [rows, columns], contiguous, from z [rows / s + Q - 1, t, columns], the pixels that see w."""
    t, cells, s = taps.values.shape
    windows = _pixel_windows(z, cells)
    kernel = taps.values.flip(1).permute(2, 1, 0).reshape(1, s, cells * t)
    torch.bmm(kernel.expand(len(windows), -1, -1), windows, out=w.unflatten(0, (-1, s)))


def row_taps_gradient(z: Tensor, taps: Taps, w: Tensor) -> Tensor:
    """[t, Q, s] gradient of the taps: inner products of w with the pixels z that saw it, both as for the adjoint."""
    t, cells, s = taps.values.shape
    gradient = torch.bmm(w.unflatten(0, (-1, s)), _pixel_windows(z, cells).mT).sum(0)
    return gradient.view(s, cells, t).permute(2, 1, 0).flip(1)


def padding(taps: Taps, n: int, cells: int) -> tuple[int, int]:
    """Zeros before and after n pixels, so that each of `cells` cells has a full window of pixels that saw it."""
    before = taps.first + taps.values.shape[1] - 1
    return before, cells - n - taps.first


def _columns(x: Tensor, taps: Tensor, first: int, y: Tensor) -> None:
    """y[t, :, i, a] = sum_{q, p} taps[t, a, q, p] x[t, :, i + first + q, p] for x [t, rows, cells * p] and
    y [t, rows, cells * a]; all t at once, a group of cells at a time.
    """
    t, outputs, cells, inputs = taps.shape
    every = y.shape[2] // outputs
    size = min(GROUP, every)
    block = taps.new_zeros(t, size, outputs, (size - 1 + cells) * inputs)  # copies of the taps, each shifted by a cell
    step = block.stride(0), block.stride(1) + inputs, block.stride(2), 1
    block.as_strided((t, size, outputs, cells * inputs), step).copy_(taps.flatten(2)[:, None])
    kernel = block.flatten(1, 2).mT
    for start in range(0, every, size):
        group = min(size, every - start)
        length = (group - 1 + cells) * inputs
        windows = x.narrow(2, (start + first) * inputs, length)
        target = y.narrow(2, start * outputs, group * outputs)
        torch.bmm(windows, kernel[:, :length, : group * outputs], out=target)


def along_columns(z: Tensor, taps: Taps, y: Tensor) -> None:
    """Fills y [t, rows, n] from z [rows, t, columns]."""
    _columns(z.transpose(0, 1), taps.values[:, None], taps.first, y)


def along_columns_adjoint(y: Tensor, taps: Taps, z: Tensor) -> None:
    """Fills z [rows, t, columns] from y [t, rows, columns / s + Q - 1], the pixels that see z."""
    _columns(y, taps.values.flip(1).mT[..., None], 0, z.transpose(0, 1))


class Observe(torch.autograd.Function):
    """weights [b, rows, columns] and 2 b kernels (along rows and columns, band by band) -> frames [t, b, y, x].

    kernels: [1 + d, t, Q, s] each, with derivatives along `parameters` [d, t, b, 2]; not differentiable. `firsts` are
    their first cells, `pixels` is (y, x). Differentiable by the weights and the parameters. Nothing is kept between the
    axes: derivatives along columns are computed with the frames, the gradient of the row taps with the adjoint.
    """

    @staticmethod
    def forward(
        ctx, weights: Tensor, parameters: Tensor, pixels: tuple[int, int], firsts: tuple[int, ...], *kernels: Tensor
    ) -> Tensor:
        d, t, bands, _ = parameters.shape
        frames = weights.new_empty(t, bands, *pixels)
        slopes = weights.new_empty(d, t, bands, *pixels)
        between = weights.new_empty(min(ROWS, pixels[0]), t, weights.shape[2])
        for b, w in enumerate(weights):
            (rows, columns), (top, left) = kernels[2 * b : 2 * b + 2], firsts[2 * b : 2 * b + 2]
            for start, size in _runs(pixels[0]):
                z, run = between[:size], slice(start, start + size)
                along_rows(w, Taps(rows[0], start + top), z)
                for kernel, images in zip(columns, (frames, *slopes), strict=True):
                    along_columns(z, Taps(kernel, left), images[:, b, run])
        ctx.firsts = firsts
        ctx.save_for_backward(weights, slopes, *kernels)
        return frames

    @staticmethod
    @once_differentiable
    def backward(ctx, frames: Tensor):
        weights, slopes, *kernels = ctx.saved_tensors
        to_weights, to_parameters = ctx.needs_input_grad[:2]
        gradient = torch.empty_like(weights) if to_weights else None
        along = torch.linalg.vecdot(slopes.flatten(3), frames.flatten(2))
        parameters = torch.stack((torch.empty_like(along), along), -1)
        between = frames.new_empty(ROWS + max(k.shape[2] for k in kernels) - 1, len(frames), weights.shape[2])
        for b, w in enumerate(weights):
            rows, columns = (Taps(kernels[k][0], ctx.firsts[k]) for k in (2 * b, 2 * b + 1))
            _, cells, s = rows.values.shape
            margins = padding(columns, frames.shape[3], w.shape[1] // s) + padding(rows, frames.shape[2], len(w) // s)
            y = F.pad(frames[:, b], margins)
            taps = torch.zeros_like(rows.values)
            for start, size in _runs(len(w) // s):
                z, run = between[: size + cells - 1], slice(start * s, (start + size) * s)
                along_columns_adjoint(y[:, start : start + len(z)], columns, z)
                if gradient is not None:
                    along_rows_adjoint(z, rows, gradient[b, run])
                if to_parameters:
                    taps += row_taps_gradient(z, rows, w[run])
            parameters[:, :, b, 0] = (kernels[2 * b][1:] * taps).sum((-2, -1))
        return gradient, parameters, None, None, *[None] * len(kernels)


class Blur(torch.autograd.Function):
    """weights [b, rows, columns] -> [b, y * r, x * r]: every band's footprints at r fixed positions of each cell.

    `firsts` and `kernels` [r, Q, s], one per band, serve both axes; `start` (y, x) is the first cell of the lattice
    to be evaluated, `cells` (y, x) their number. The kernels are not differentiable.
    """

    @staticmethod
    def forward(
        ctx, weights: Tensor, start: tuple[int, int], cells: tuple[int, int], firsts: tuple[int, ...], *kernels: Tensor
    ) -> Tensor:
        ctx.shape, ctx.start, ctx.firsts = weights.shape, start, firsts
        ctx.save_for_backward(*kernels)
        r = kernels[0].shape[0]
        blurred = weights.new_empty(len(weights), cells[0] * r, cells[1] * r)
        for w, image, kernel, first in zip(weights, blurred, kernels, firsts, strict=True):
            z = w.new_empty(cells[0], r, w.shape[1])
            along_rows(w, Taps(kernel, start[0] + first), z)
            _columns(z.flatten(0, 1)[None], kernel[None], start[1] + first, image[None])
        return blurred

    @staticmethod
    @once_differentiable
    def backward(ctx, blurred: Tensor):
        weights = blurred.new_empty(ctx.shape)
        _, height, width = ctx.shape
        for w, image, kernel, first in zip(weights, blurred, ctx.saved_tensors, ctx.firsts, strict=True):
            r, _, s = kernel.shape
            rows, columns = (Taps(kernel, start + first) for start in ctx.start)
            above, below = padding(rows, len(image) // r, height // s)
            before, after = padding(columns, image.shape[1] // r, width // s)
            padded = F.pad(image, (before * r, after * r, above * r, below * r))
            z = w.new_empty(len(padded), width)
            _columns(padded[None], kernel.flip(1).permute(2, 1, 0)[None], 0, z[None])
            along_rows_adjoint(z.unflatten(0, (-1, r)), rows, w)
        return weights, None, None, None, *[None] * len(ctx.firsts)
