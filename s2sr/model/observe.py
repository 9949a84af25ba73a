"""The separable, strided forward operator and its adjoint.

Lattice, stride and pixels are regular, so along one axis observation t is a correlation with one short kernel:

    y[t, i] = sum_{q, p} taps[t, q, p] * w[(i + first + q) * s + p],      q = LR cells, p = splats within a cell,

for LR pixel i, whose footprint touches the cells first ... first + Q - 1 after its own. Both axes in turn make the
image; nothing of the size splats x pixels exists. Each step is a batch of small matrix products over overlapping
windows of the data, which strides express without a copy. Along rows the windows are whole rows. Along columns they
are cut for `GROUP` cells at a time, so that the products are large enough to run at the speed of the machine.

Where observations are many, `Blur` makes the footprints at a few fixed positions per LR pixel once for all. These are
a lattice again, from which `Observe` interpolates every observation with far fewer taps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

GROUP = 16


@dataclass(frozen=True)
class Taps:
    """The kernels of one band along one axis."""

    values: Tensor  # [t, Q, s]
    first: int  # cell of the first tap of pixel 0


def _groups(cells: int) -> Iterator[tuple[int, int, int]]:
    """(first, count, size) of equal runs of cells that cover 0 ... cells - 1: whole groups, then the rest."""
    whole = cells // GROUP
    if whole:
        yield 0, whole, GROUP
    if cells % GROUP:
        yield whole * GROUP, 1, cells % GROUP


def _row_windows(w: Tensor, n: int, first: int, cells: int, s: int) -> Tensor:
    """[n, cells * s, columns] view of w [rows, columns]: what each of n pixels sees."""
    columns = w.shape[-1]
    return w.as_strided((n, cells * s, columns), (s * columns, columns, 1), w.storage_offset() + first * s * columns)


def _column_windows(z: Tensor, start: int, count: int, step: int, length: int) -> Tensor:
    """[count, rows, length] view of z [rows, columns] (rows may be strided)."""
    return z.as_strided((count, z.shape[0], length), (step, z.stride(0), 1), z.storage_offset() + start)


def along_rows(w: Tensor, taps: Taps, n: int) -> Tensor:
    """[n, t, columns] from w [rows, columns], contiguous."""
    t, cells, s = taps.values.shape
    return torch.bmm(taps.values.reshape(1, t, -1).expand(n, -1, -1), _row_windows(w, n, taps.first, cells, s))


def along_rows_adjoint(z: Tensor, taps: Taps, w: Tensor) -> None:
    """Fills w [rows, columns] from z [n + padding, t, columns], contiguous, zero in the padding."""
    t, cells, s = taps.values.shape
    columns, count = z.shape[-1], w.shape[0] // s
    windows = z.as_strided((count, cells * t, columns), (t * columns, columns, 1), z.storage_offset())
    kernel = taps.values.flip(1).permute(2, 1, 0).reshape(1, s, cells * t)
    torch.bmm(kernel.expand(count, -1, -1), windows, out=w.view(count, s, columns))


def padding(taps: Taps, n: int, cells: int) -> tuple[int, int]:
    """Zeros before and after n pixels, so that every one of `cells` cells has a whole window of pixels that saw it."""
    before = taps.first + taps.values.shape[1] - 1
    return before, cells - n - taps.first


def _columns(x: Tensor, taps: Tensor, first: int, y: Tensor) -> None:
    """y[:, i, a] = sum_{q, p} taps[a, q, p] x[:, i + first + q, p] for x [rows, cells * p] and y [rows, cells * a]."""
    outputs, cells, inputs = taps.shape
    for start, count, size in _groups(y.shape[1] // outputs):
        block = taps.new_zeros(size, outputs, (size - 1 + cells) * inputs)  # copies of the taps, each a cell further
        step, row = block.stride(0) + inputs, block.stride(1)
        block.as_strided((size, outputs, cells * inputs), (step, row, 1)).copy_(taps.flatten(1))
        windows = _column_windows(x, (start + first) * inputs, count, size * inputs, block.shape[2])
        target = _column_windows(y, start * outputs, count, size * outputs, size * outputs)
        torch.bmm(windows, block.flatten(0, 1).T.expand(count, -1, -1), out=target)


def along_columns(z: Tensor, taps: Taps, y: Tensor) -> None:
    """Fills y [t, rows, n] from z [rows, t, columns]."""
    for k, kernel in enumerate(taps.values):
        _columns(z[:, k], kernel[None], taps.first, y[k])


def along_columns_adjoint(y: Tensor, taps: Taps, z: Tensor) -> None:
    """Fills z [rows, t, columns] from y [t, rows, n]."""
    padded = F.pad(y, padding(taps, y.shape[-1], z.shape[-1] // taps.values.shape[2]))
    for k, kernel in enumerate(taps.values.flip(1)):
        _columns(padded[k], kernel.T[..., None], 0, z[:, k])


def row_taps_gradient(z: Tensor, w: Tensor, taps: Taps) -> Tensor:
    """[t, Q, s]: inner products of z [n, t, columns] with what each tap saw of w [rows, columns]."""
    t, cells, s = taps.values.shape
    return torch.bmm(z, _row_windows(w, z.shape[0], taps.first, cells, s).mT).sum(0).view(t, cells, s)


def column_taps_gradient(y: Tensor, z: Tensor, taps: Taps) -> Tensor:
    """[t, Q, s]: inner products of y [t, rows, n] with what each tap saw of z [rows, t, columns]."""
    t, cells, s = taps.values.shape
    gradient = y.new_zeros(t, cells * s)
    for start, count, size in _groups(y.shape[-1]):
        length = (size - 1 + cells) * s
        block = y.new_empty(t, size, length)
        for k in range(t):
            windows = _column_windows(z[:, k], (start + taps.first) * s, count, size * s, length)
            part = y[k, :, start : start + count * size].unflatten(-1, (count, size)).permute(1, 2, 0)
            block[k] = torch.bmm(part, windows).sum(0)
        gradient += block.as_strided((t, size, cells * s), (size * length, length + s, 1)).sum(1)
    return gradient.view(t, cells, s)


class Observe(torch.autograd.Function):
    """weights [b, rows, columns] and 2 b kernels (along rows and columns, band by band) -> frames [t, b, y, x].

    Gradients to the weights and to the kernels. `firsts` are the kernels' first cells, `pixels` is (y, x).
    """

    @staticmethod
    def forward(ctx, weights: Tensor, pixels: tuple[int, int], firsts: tuple[int, ...], *kernels: Tensor) -> Tensor:
        ctx.pixels, ctx.firsts = pixels, firsts
        taps = [Taps(k, first) for k, first in zip(kernels, firsts, strict=True)]
        frames = weights.new_empty(kernels[0].shape[0], weights.shape[0], *pixels)
        half = []
        for b, w in enumerate(weights):
            z = along_rows(w, taps[2 * b], pixels[0])
            along_columns(z, taps[2 * b + 1], frames[:, b])
            if any(ctx.needs_input_grad[3:]):  # else it need not be kept
                half.append(z)
        ctx.save_for_backward(weights, *kernels, *half)
        return frames

    @staticmethod
    @once_differentiable
    def backward(ctx, frames: Tensor):
        weights, *rest = ctx.saved_tensors
        count = len(ctx.firsts)
        taps = [Taps(k, first) for k, first in zip(rest[:count], ctx.firsts, strict=True)]
        half = rest[count:]
        gradient = torch.empty_like(weights) if ctx.needs_input_grad[0] else None
        kernels: list[Tensor | None] = [None] * count
        for b, w in enumerate(weights):
            rows, columns = taps[2 * b], taps[2 * b + 1]
            y = frames[:, b]
            before, after = padding(rows, y.shape[1], w.shape[0] // rows.values.shape[2])
            padded = w.new_empty(before + y.shape[1] + after, y.shape[0], w.shape[1])
            padded[:before] = padded[before + y.shape[1] :] = 0
            z = padded[before : before + y.shape[1]]
            along_columns_adjoint(y, columns, z)
            if gradient is not None:
                along_rows_adjoint(padded, rows, gradient[b])
            if half:
                kernels[2 * b] = row_taps_gradient(z, w, rows)
                kernels[2 * b + 1] = column_taps_gradient(y, half[b], columns)
        return gradient, None, None, *kernels


class Blur(torch.autograd.Function):
    """weights [b, rows, columns] -> [b, y * r, x * r]: every band's footprints at r fixed positions of each cell.

    `firsts` and `kernels` [r, Q, s], band by band, are those of both axes alike; `start` (y, x) is the lattice's cell
    whose positions come first, `cells` (y, x) how many follow. The kernels are constants.
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
            z = along_rows(w, Taps(kernel, start[0] + first), cells[0]).flatten(0, 1)
            _columns(z, kernel, start[1] + first, image)
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
            _columns(padded, kernel.flip(1).permute(2, 1, 0), 0, z)
            along_rows_adjoint(z.unflatten(0, (-1, r)), rows, w)
        return weights, None, None, None, *[None] * len(ctx.firsts)
