from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from s2sr.model.observe import (
    Blur,
    Observe,
    Taps,
    along_columns,
    along_columns_adjoint,
    along_rows,
    along_rows_adjoint,
    padding,
)

SIZES = [1, 7, 16, 17, 33]  # GROUP is 16: the rest alone, a group alone, groups and a rest


class Normal:
    """Reproducible random float64 tensors."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator)


def dense(taps: Taps, pixels: int, splats: int) -> Tensor:
    """[t, pixels, splats]: the matrix that the taps stand for."""
    t, cells, s = taps.values.shape
    matrix = taps.values.new_zeros(t, pixels, splats)
    for i in range(pixels):
        start = (i + taps.first) * s
        matrix[:, i, start : start + cells * s] = taps.values.flatten(1)
    return matrix


def assert_linear(op: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> None:
    torch.testing.assert_close(op(2 * x - 3 * y), 2 * op(x) - 3 * op(y), rtol=1e-12, atol=1e-12)


def assert_adjoint(op: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> None:
    """<op x, y> = <x, adjoint y>"""
    left, right = float((op(x) * y).sum()), float((x * adjoint(y)).sum())
    scale = float(op(x).norm() * y.norm())
    assert abs(left - right) <= 1e-13 * scale, f"<op x, y> = {left!r} but <x, adjoint y> = {right!r}"


@pytest.mark.parametrize("s", [1, 2, 3, 8])
@pytest.mark.parametrize("n", SIZES)
def test_rows_against_their_matrix_and_adjoint(n, s):
    normal, cells, first, margin = Normal(), 4, 1, 3
    rows, columns, t = (n + 2 * margin) * s, 5, 3
    taps = Taps(normal(t, cells, s), first)
    w, w2, z = normal(rows, columns), normal(rows, columns), normal(n, t, columns)
    expected = (dense(taps, n, rows) @ w).transpose(0, 1)
    torch.testing.assert_close(along_rows(w, taps, n), expected, rtol=1e-12, atol=1e-12)
    assert_linear(lambda w: along_rows(w, taps, n), w, w2)

    def adjoint(z):
        before, after = padding(taps, n, rows // s)
        padded = torch.cat((z.new_zeros(before, t, columns), z, z.new_zeros(after, t, columns)))
        along_rows_adjoint(padded, taps, found := torch.full_like(w, torch.nan))
        return found

    assert_adjoint(lambda w: along_rows(w, taps, n), adjoint, w, z)


@pytest.mark.parametrize("s", [1, 2, 3, 8])
@pytest.mark.parametrize("n", SIZES)
def test_columns_against_their_matrix_and_adjoint(n, s):
    normal, cells, first, margin = Normal(), 4, 2, 3
    columns, rows, t = (n + 2 * margin) * s, 5, 3
    taps = Taps(normal(t, cells, s), first)
    z, z2, y = normal(rows, t, columns), normal(rows, t, columns), normal(t, rows, n)

    def op(z):
        along_columns(z, taps, found := torch.full_like(y, torch.nan))
        return found

    torch.testing.assert_close(op(z), z.transpose(0, 1) @ dense(taps, n, columns).mT, rtol=1e-12, atol=1e-12)
    assert_linear(op, z, z2)

    def adjoint(y):
        along_columns_adjoint(y, taps, found := torch.full_like(z, torch.nan))
        return found

    assert_adjoint(op, adjoint, z, y)


@pytest.mark.parametrize(("shape", "s", "t"), [((1, 7), 1, 1), ((17, 1), 3, 2), ((33, 16), 2, 5), ((7, 17), 8, 3)])
def test_frames_and_all_gradients_against_the_dense_reference(shape, s, t):
    """A_y @ W @ A_x.T per band, with autograd through the matrices."""
    normal, margin, bands, cells, firsts = Normal(), 3, 2, (4, 3, 5, 7), (1, 2, 1, 0)
    weights = normal(bands, *((n + 2 * margin) * s for n in shape)).requires_grad_()
    kernels = [normal(t, q, s).requires_grad_() for q in cells]
    mine = Observe.apply(weights, shape, firsts, *kernels)

    reference = torch.stack(
        [
            dense(Taps(kernels[2 * b], firsts[2 * b]), shape[0], w.shape[0])
            @ w
            @ dense(Taps(kernels[2 * b + 1], firsts[2 * b + 1]), shape[1], w.shape[1]).mT
            for b, w in enumerate(weights)
        ],
        1,
    )
    torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-11)
    pull = normal(*mine.shape)
    leaves = [weights, *kernels]
    for got, expected in zip(
        torch.autograd.grad(mine, leaves, pull), torch.autograd.grad(reference, leaves, pull), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-10)


def test_adjoint_of_the_whole_operator():
    normal, shape, s, t = Normal(), (17, 5), 2, 3
    kernels = [normal(t, 3, s) for _ in range(4)]
    op = lambda w: Observe.apply(w, shape, (0, 0, 0, 0), *kernels)  # noqa: E731

    def adjoint(y):
        w = torch.zeros(2, 19 * s, 7 * s, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(op(w), w, y)[0]

    assert_adjoint(op, adjoint, normal(2, 19 * s, 7 * s), normal(t, 2, *shape))


def test_only_the_gradients_that_are_asked_for():
    normal, shape, s = Normal(), (3, 4), 2
    weights, kernels = normal(1, 5 * s, 6 * s), [normal(2, 3, s) for _ in range(2)]

    def gradients(free_weights, free_kernels):
        w = weights.clone().requires_grad_(free_weights)
        k = [kernel.clone().requires_grad_(free_kernels) for kernel in kernels]
        Observe.apply(w, shape, (0, 0), *k).square().sum().backward()
        return [x.grad for x in (w, *k)]

    both = gradients(True, True)
    only_weights, only_kernels = gradients(True, False), gradients(False, True)
    assert only_weights[1:] == [None, None]
    assert only_kernels[0] is None
    torch.testing.assert_close(only_weights[0], both[0])
    torch.testing.assert_close(only_kernels[1:], both[1:])


@pytest.mark.parametrize("s", [1, 2, 8])
@pytest.mark.parametrize("shape", [(1, 7), (17, 5)])
def test_blurred_images_and_their_gradient_against_matrices(shape, s):
    normal, r, start, firsts, cells = Normal(), 3, (1, 2), (-1, 0), (3, 2)
    weights = normal(2, *((n + 5) * s for n in shape)).requires_grad_()
    kernels = [normal(r, q, s) for q in cells]
    mine = Blur.apply(weights, start, shape, firsts, *kernels)
    matrices = [
        [
            dense(Taps(kernel, begin + first), n, size).transpose(0, 1).flatten(0, 1)
            for begin, n, size in zip(start, shape, weights.shape[1:], strict=True)
        ]
        for kernel, first in zip(kernels, firsts, strict=True)
    ]
    reference = torch.stack([rows @ w @ columns.T for w, (rows, columns) in zip(weights, matrices, strict=True)])
    torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)
    pull = normal(*mine.shape)
    got, expected = (torch.autograd.grad(image, weights, pull)[0] for image in (mine, reference))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
