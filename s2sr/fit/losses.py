"""What is minimised, in nats: misfit of the observations plus total variation.

    1/2 sum rho(r^2 / v)  +  lambda integral Huber_delta(|grad w| / G_b) dA

r is the residual in reflectance, v the noise variance of the observation and band. G_b is the band's own mean gradient
(of the temporal mean, reflectance per LR pixel), so lambda (per LR pixel of area) and delta (mean gradients) mean the
same at every level, crop and band: lambda = 1 is about the Laplace prior whose mean gradient is the scene's. On the
lattice the integral is s^-2 sum Huber_delta(s |forward difference| / G_b).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from s2sr.errors import InputError

BLOCK = 2**18  # samples at a time
Rho = Callable[[Tensor], Tensor]  # residuals over their standard deviation -> nats


@dataclass(frozen=True)
class Quadratic:
    """rho(z^2) = z^2: Gaussian noise."""

    def __call__(self, z: Tensor) -> Tensor:
        return 0.5 * z.square().sum()


@dataclass(frozen=True)
class Huber:
    """rho(z^2) = z^2 up to `threshold` standard deviations, then linear in |z|: limits the influence of change."""

    threshold: float = 3.0

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise InputError(f"misfit.threshold={self.threshold}: it counts standard deviations and must be positive")

    def __call__(self, z: Tensor) -> Tensor:
        return HuberEnergy.apply(z, self.threshold)


def times(gradient: Tensor, output: Tensor) -> Tensor:
    """gradient * output, without a copy if output is 1, as it mostly is; on a device that check would synchronise."""
    return gradient if output.is_cpu and output == 1 else gradient * output


class Energy(torch.autograd.Function):
    """A function of its first argument; `forward` computes the gradient along with the value, and saves it."""

    @staticmethod
    @once_differentiable
    def backward(ctx, output: Tensor):
        (gradient,) = ctx.saved_tensors
        return times(gradient, output), *[None] * (len(ctx.needs_input_grad) - 1)


class HuberEnergy(Energy):
    """sum c (z - c / 2), c the z within +- threshold: its gradient is c."""

    @staticmethod
    def forward(ctx, z: Tensor, threshold: float) -> Tensor:
        inner = z.clamp(-threshold, threshold)
        ctx.save_for_backward(inner)
        return torch.sub(z, inner, alpha=0.5).mul_(inner).sum()


class Misfit(torch.autograd.Function):
    """rho of (gain seen + offset + beside - observed) / sqrt(noise^2 excess) at the valid samples, nats in float64.

    seen, beside, observed, valid, excess: [t, b, y, x]; gain, offset and noise: [t, b]. Differentiable by seen, gain
    and offset; these gradients are computed with the value, a few images at a time, so that intermediates stay in the
    cache.
    """

    @staticmethod
    def forward(
        ctx,
        seen: Tensor,
        gain: Tensor,
        offset: Tensor,
        beside: Tensor,
        observed: Tensor,
        valid: Tensor,
        noise: Tensor,
        excess: Tensor,
        rho: Rho,
    ) -> Tensor:
        slope, of_gain, of_offset = torch.empty_like(seen), torch.zeros_like(gain), torch.zeros_like(offset)
        value = seen.new_zeros((), dtype=torch.float64)  # float32 would lose a nat in ten million
        images = [x.flatten(0, 1).flatten(1) for x in (seen, beside, observed, valid, excess)]
        numbers = [x.flatten()[:, None] for x in (gain, offset, noise.square())]
        count = max(1, BLOCK // seen[0, 0].numel())
        for first in range(0, noise.numel(), count):
            part = slice(first, first + count)
            x, known, y, clear, local = (image[part] for image in images)
            g, o, v = (number[part] for number in numbers)
            rate = torch.mul(local, v).rsqrt_().mul_(clear)
            with torch.enable_grad():
                z = torch.addcmul(o, g, x).add_(known).sub_(y).mul_(rate).requires_grad_()
                nats = rho(z)
            rate.mul_(torch.autograd.grad(nats, z)[0])
            if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
                of_gain.view(-1)[part], of_offset.view(-1)[part] = torch.linalg.vecdot(rate, x), rate.sum(1)
            torch.mul(rate, g, out=slope.flatten(0, 1).flatten(1)[part])
            value += nats.detach()
        ctx.save_for_backward(slope, of_gain, of_offset)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, output: Tensor):
        return *(times(x, output) for x in ctx.saved_tensors), *[None] * 6


class GradientEnergy(Energy):
    """sum rho(d) over the splats of weights [b, y, x], d [2, b, y, x] their `differences`.

    rho: d -> its sum, and its slope along d, which may reuse the memory of d. The gradient by the weights is minus the
    divergence of that slope; both take one pass, a few rows at a time, so that intermediates stay in the cache.
    """

    @staticmethod
    def forward(ctx, weights: Tensor, rho: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        bands, rows, columns = weights.shape
        gradient, value = torch.empty_like(weights), weights.new_zeros((), dtype=torch.float64)
        height = max(1, BLOCK // (bands * columns))
        above: Tensor | float = 0.0  # contribution of the previous rows
        for start in range(0, rows, height):
            energy, slope = rho(differences(weights[:, start : start + height + 1])[:, :, :height])
            value += energy
            g = torch.add(slope[0], slope[1], out=gradient[:, start : start + height]).neg_()
            g[:, 1:] += slope[0, :, :-1]
            g[:, 0] += above
            g[:, :, 1:] += slope[1, :, :, :-1]
            above = slope[0, :, -1]
        ctx.save_for_backward(gradient)
        return value


def differences(weights: Tensor) -> Tensor:
    """[2, b, y, x] forward differences along both axes; 0 in the last row or column."""
    found = weights.new_zeros(2, *weights.shape)
    torch.sub(weights[:, 1:], weights[:, :-1], out=found[0, :, :-1])
    torch.sub(weights[:, :, 1:], weights[:, :, :-1], out=found[1, :, :, :-1])
    return found


def total_variation(weights: Tensor, scale: int, *, gradients: Tensor, delta: float) -> Tensor:
    """The TV integral of weights [b, y, x]; gradients: [b] reflectance per LR pixel; delta in units of these.

    Isotropic, Huber_delta(g) = g^2 / (2 delta) below delta and g - delta / 2 above; its slope g / max(g, delta).
    """
    unit, area = (scale / gradients)[:, None, None], scale**-2

    def huber(d: Tensor) -> tuple[Tensor, Tensor]:
        d *= unit
        size = d.square().sum(0).sqrt_()
        inner = size.clamp(max=delta)
        energy = (size - inner / 2).mul_(inner).sum() * (area / delta)
        d *= size.clamp_(min=delta).reciprocal_() * (unit * area)
        return energy, d

    return GradientEnergy.apply(weights, huber)


def mean_gradient(image: Tensor) -> Tensor:
    """[b] mean gradient magnitude of an LR image [b, y, x], reflectance per LR pixel; at least 1e-6."""
    dy, dx = image.diff(dim=-2)[..., :-1], image.diff(dim=-1)[..., :-1, :]
    return torch.hypot(dy, dx).mean((-2, -1)).clamp(min=1e-6)
