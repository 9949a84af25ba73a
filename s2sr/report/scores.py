"""The scores of a product and of the baseline, as in metrics.json."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from s2sr.model.scene import Scene
from s2sr.report.metrics import bicubic, fidelity, sharpness, shift_rmse


def offset_to_truth(scene: Scene, shifts: Tensor) -> Tensor:
    """[2] (dy, dx) LR pixels from a place in the truth to the same place in a product with these shifts."""
    return scene.truth.shifts.mean(0) - shifts.mean(0) if scene.truth else shifts.new_zeros(2)


def scores(
    scene: Scene, image: Tensor, scale: int, shifts: Tensor, *, baseline: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Sharpness of an image [b, y * scale, x * scale] made with `shifts` [t, 2]; fidelity if the truth is known.

    With suffix `_bicubic`, the same of the bicubic temporal mean; baseline: these, if known already.
    """
    found = {**sharpness(image, scale), **(baseline_scores(scene, scale) if baseline is None else baseline)}
    if scene.truth:
        truth, fine = scene.truth.reflectance, scene.truth.scale
        found |= fidelity(image, truth, scale=scale, truth_scale=fine, shift=offset_to_truth(scene, shifts))
        found["shift_rmse_px"] = shift_rmse(shifts, scene.truth.shifts)
    return found


def baseline_scores(scene: Scene, scale: int) -> dict[str, float]:
    """The scores of the bicubic temporal mean, with suffix `_bicubic`."""
    return baseline_sharpness(scene, scale) | baseline_fidelity(scene, scale)


def baseline_sharpness(scene: Scene, scale: int) -> dict[str, float]:
    """The part without truth, which hardly depends on the scale."""
    return _named(sharpness(bicubic(scene.temporal_mean, scale), scale))


def baseline_fidelity(scene: Scene, scale: int) -> dict[str, float]:
    """The part that compares with the truth, at `scale` or coarser; empty if the truth is unknown."""
    if scene.truth is None:
        return {}
    image, truth, shift = bicubic(scene.temporal_mean, scale), scene.truth, scene.truth.shifts.mean(0)
    return _named(fidelity(image, truth.reflectance, scale=scale, truth_scale=truth.scale, shift=shift))


def _named(found: Mapping[str, float]) -> dict[str, float]:
    return {f"{key}_bicubic": value for key, value in found.items()}
