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
    row_taps_gradient,
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

    def op(w, taps=taps):
        along_rows(w, taps, found := torch.full_like(z, torch.nan))
        return found

    def padded(z):
        before, after = padding(taps, n, rows // s)
        return torch.cat((z.new_zeros(before, t, columns), z, z.new_zeros(after, t, columns)))

    def adjoint(z):
        along_rows_adjoint(padded(z), taps, found := torch.full_like(w, torch.nan))
        return found

    torch.testing.assert_close(op(w), (dense(taps, n, rows) @ w).transpose(0, 1), rtol=1e-12, atol=1e-12)
    assert_linear(op, w, w2)
    assert_adjoint(op, adjoint, w, z)
    assert_adjoint(
        lambda values: op(w, Taps(values, first)),
        lambda z: row_taps_gradient(padded(z), taps, w),
        normal(t, cells, s),
        z,
    )


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
        padded = torch.nn.functional.pad(y, padding(taps, n, columns // s))
        along_columns_adjoint(padded, taps, found := torch.full_like(z, torch.nan))
        return found

    assert_adjoint(op, adjoint, z, y)


class Movable:
    """Two bands' kernels that bend with d parameters per observation: k + sum p k_d + p^2 k_d, at p = .3."""

    def __init__(self, normal: Normal, d: int, t: int, s: int, cells: tuple[int, ...], firsts: tuple[int, ...]) -> None:
        self.firsts = firsts
        self.parameters = torch.full((d, t, len(cells) // 2, 2), 0.3, dtype=torch.float64)
        self.values = [normal(1 + d, t, q, s) for q in cells]

    def at(self, parameters: Tensor) -> list[Taps]:
        """Band by band, along rows and columns."""
        found = []
        for k, (value, first) in enumerate(zip(self.values, self.firsts, strict=True)):
            p = parameters[:, :, k // 2, k % 2, None, None]
            found.append(Taps(value[0] + ((p + p.square()) * value[1:]).sum(0), first))
        return found

    def with_slopes(self) -> list[Tensor]:
        """What `Observe` takes."""
        values = [taps.values for taps in self.at(self.parameters)]
        return [torch.cat((k[None], 1.6 * value[1:])) for k, value in zip(values, self.values, strict=True)]

    def observe(self, weights: Tensor, parameters: Tensor, shape: tuple[int, int]) -> Tensor:
        return Observe.apply(weights, parameters, shape, self.firsts, *self.with_slopes())

    def dense(self, weights: Tensor, parameters: Tensor, shape: tuple[int, int]) -> Tensor:
        """A_y @ W @ A_x.T per band, with autograd through the matrices."""
        taps = self.at(parameters)
        return torch.stack(
            [
                dense(taps[2 * b], shape[0], w.shape[0]) @ w @ dense(taps[2 * b + 1], shape[1], w.shape[1]).mT
                for b, w in enumerate(weights)
            ],
            1,
        )


@pytest.mark.parametrize("d", [0, 1, 2])
@pytest.mark.parametrize(
    ("shape", "s", "t"), [((1, 7), 1, 1), ((17, 1), 3, 2), ((33, 16), 2, 5), ((7, 17), 8, 3), ((163, 3), 1, 2)]
)
def test_frames_and_all_gradients_against_the_dense_reference(shape, s, t, d):
    """163 rows are more than ROWS."""
    normal, margin = Normal(), 3
    kernels = Movable(normal, d, t, s, cells=(4, 3, 5, 7), firsts=(1, 2, 1, 0))
    weights = normal(2, *((n + 2 * margin) * s for n in shape)).requires_grad_()
    parameters = kernels.parameters.clone().requires_grad_(d > 0)
    mine, reference = (f(weights, parameters, shape) for f in (kernels.observe, kernels.dense))
    torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-11)
    pull = normal(*mine.shape)
    leaves = [weights, parameters] if d else [weights]
    for got, expected in zip(
        torch.autograd.grad(mine, leaves, pull), torch.autograd.grad(reference, leaves, pull), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-10)


def test_frames_are_the_same_bits_whatever_is_differentiated():
    """Otherwise a run that is resumed would go another way."""
    normal, shape = Normal(), (17, 33)
    kernels = Movable(normal, 2, 3, 4, cells=(4, 5), firsts=(1, 0))
    weights = normal(1, 23 * 4, 39 * 4).float()
    parameters, values = kernels.parameters.float(), [k.float() for k in kernels.with_slopes()]
    frames = [
        Observe.apply(weights, parameters[:d], shape, kernels.firsts, *(k[: 1 + d] for k in values)) for d in range(3)
    ]
    assert all(torch.equal(frames[0], other) for other in frames[1:])


def test_adjoint_of_the_whole_operator():
    normal, shape, s, t = Normal(), (17, 5), 2, 3
    kernels = Movable(normal, 0, t, s, cells=(3, 3, 3, 3), firsts=(0, 0, 0, 0))
    op = lambda w: kernels.observe(w, kernels.parameters, shape)  # noqa: E731

    def adjoint(y):
        w = torch.zeros(2, 19 * s, 7 * s, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(op(w), w, y)[0]

    assert_adjoint(op, adjoint, normal(2, 19 * s, 7 * s), normal(t, 2, *shape))


def test_only_the_gradients_that_are_asked_for():
    normal, shape, s = Normal(), (3, 4), 2
    kernels = Movable(normal, 1, 2, s, cells=(3, 3), firsts=(0, 0))
    weights = normal(1, 5 * s, 6 * s)

    def gradients(free_weights, free_parameters):
        w = weights.clone().requires_grad_(free_weights)
        p = kernels.parameters.clone().requires_grad_(free_parameters)
        kernels.observe(w, p, shape).square().sum().backward()
        return w.grad, p.grad

    both = gradients(True, True)
    only_weights, only_parameters = gradients(True, False), gradients(False, True)
    assert only_weights[1] is None
    assert only_parameters[0] is None
    torch.testing.assert_close(only_weights[0], both[0])
    torch.testing.assert_close(only_parameters[1], both[1])


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
