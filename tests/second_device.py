"""A second device, as strict as a GPU, where there is none: its tensors hold CPU tensors, which do the arithmetic.

What CUDA refuses is refused: operations on tensors of both devices, but for copies, indices that lie on the CPU, and
CPU tensors of one number among elementwise operations; `numpy()`; and what it leaves undefined, inverse transforms to
real images of what is no transform of one. What makes the host wait for the device is counted: numbers that are read,
copies from one to the other, sizes that depend on values, decompositions that check themselves. Speed is not told, nor
whether CUDA has the operation at all.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
NAME = "second"
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
ELEMENTWISE = {aten.where, aten.masked_fill, aten.masked_fill_, aten.fill_, aten.fill}  # torch does not say so
NOTED = {aten._conj: aten.conj_physical, aten._neg_view: aten.neg}  # rather than made: not seen below the dispatcher
WAITS = {
    *(aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.bincount, aten._unique2, aten.equal),
    *(aten._linalg_check_errors, aten._linalg_eigh, aten._linalg_svd, aten.linalg_pinv),
}
HERMITIAN = 1e-5  # of an image, what rounding may leave of its imaginary part

waits: Counter[str] = Counter()  # by what made the host wait
largest = math.inf  # bytes of a tensor that it has room for
unknown: set[torch.dtype] = set()  # of numbers that it cannot calculate with


class OnDevice(Tensor):
    """A tensor on the device. `held` is on the CPU, of the same sizes and strides; views hold views of it."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        if held.dtype in unknown:
            raise TypeError(f"{NAME} does not support {held.dtype}")
        if held.numel() * held.element_size() > largest:
            raise torch.OutOfMemoryError(f"{NAME} out of memory. Tried to allocate {held.numel()} numbers")
        place = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        found = torch.Tensor._make_wrapper_subclass(cls, held.shape, **place, device=DEVICE)
        found.held = held
        return found

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, *args, **(kwargs or {}))

    def tolist(self) -> Any:  # this and the next are not dispatched
        waits["tolist"] += 1
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert a tensor on {NAME} to numpy")

    def __repr__(self) -> str:
        return f"OnDevice({self.held})"

    def __reduce_ex__(self, protocol: Any) -> Any:  # Lightning loads checkpoints to the CPU
        return self.held.__reduce_ex__(protocol)


def run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operation some of whose tensors are on the device, or whose result is to be there."""
    check(func, args, kwargs)
    waits.update(waited(func, args, kwargs))
    packet, to = func.overloadpacket, kwargs.get("device")
    flat, spec = tree_flatten((args, kwargs))
    owners = {id(x.held): x for x in flat if isinstance(x, OnDevice)}
    args, kwargs = tree_unflatten([x.held if isinstance(x, OnDevice) else x for x in flat], spec)
    if to is not None:
        kwargs["device"] = "cpu"
    copied = packet is aten._copy_from
    found = args[1].copy_(args[0]) if copied else NOTED.get(packet, func)(*args, **kwargs)
    for x in owners.values():
        assert (x.shape, x.stride()) == (x.held.shape, x.held.stride()), f"{func} has resized a tensor"
    if (to is not None and torch.device(to).type == "cpu") or (packet is aten.copy_ and id(args[0]) not in owners):
        return found
    return tree_map_only(Tensor, lambda x: owners[id(x)] if id(x) in owners else OnDevice(x), found)


def check(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """Raises RuntimeError where CUDA would."""
    packet = func.overloadpacket
    if packet is aten._fft_c2r:
        check_hermitian(args[0].held, *args[1:])
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    cpu = [x for x in tensors if not isinstance(x, OnDevice)]
    if packet in (aten.copy_, aten._copy_from, aten._to_copy) or not 0 < len(cpu) < len(tensors):
        return
    if packet in INDEXED:
        cpu = [x for x in cpu if not any(x is index for index in args[1])]
        fits = not any(x.dim() or x is args[0] for x in cpu)
    else:
        names = [a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
        changed = [dict(zip((a.name for a in func._schema.arguments), args, strict=False), **kwargs)[n] for n in names]
        elementwise = torch.Tag.pointwise in func.tags or packet in ELEMENTWISE
        fits = elementwise and not any(x.dim() or any(x is y for y in changed) for x in cpu)
    if not fits:
        places = ", ".join(f"{tuple(x.shape)} on {x.device.type}" for x in tensors)
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, found {places}")


def check_hermitian(z: Tensor, dim: list[int], normalization: int, last: int) -> None:
    """Raises RuntimeError unless z is the half of an image's transform, of `last` columns, that rfft gives."""
    columns = z[..., [0, -1] if last % 2 == 0 else [0]]  # all that has its conjugate in the same half
    imaginary = (torch.fft.ifftn(columns, dim=dim[:-1]) if len(dim) > 1 else columns).imag.abs().max() / last
    image = torch.fft.irfftn(z, s=[*(z.shape[d] for d in dim[:-1]), last], dim=dim).abs().max()
    if imaginary > HERMITIAN * image:
        raise RuntimeError(f"irfft of no transform of a real image: {imaginary:.1e} of {image:.1e} is imaginary")


def waited(func: Any, args: Any, kwargs: dict[str, Any]) -> list[str]:
    """Count what the host waits for."""
    packet = func.overloadpacket
    if packet in (aten.copy_, aten._copy_from):
        both = [isinstance(x, OnDevice) for x in args[:2]]
        return [f"{packet}"] if both[0] != both[1] else []
    if packet is aten._to_copy:
        to = kwargs.get("device")
        return [f"{packet}"] if to is not None and torch.device(to).type == "cpu" else []
    if packet in INDEXED:
        indices = [x for x in args[1] if x is not None]
        masked = any(x.dtype == torch.bool for x in indices) and (packet is aten.index or args[2].numel() > 1)
        return [f"{packet}"] if masked or not all(isinstance(x, OnDevice) for x in indices) else []
    return [f"{packet}"] if packet in WAITS else []


def makers() -> list[Any]:
    """The operations that make tensors from none; torch's versions for all devices would resize these afterwards."""
    found = []
    for name in torch._C._dispatch_get_all_op_names():
        packet, _, overload = name.removeprefix("aten::").partition(".")
        if name.startswith("aten::") and (func := getattr(getattr(aten, packet, None), overload or "default", None)):
            kinds = {x.name: str(x.type) for x in func._schema.arguments}
            if "device" in kinds and not any("Tensor" in kind for kind in kinds.values()):
                found.append(func)
    return found


_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)
_every, _own = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
_every.fallback(run, "PrivateUse1")
for _func in (aten._copy_from.default, aten.detach.default, *makers()):  # the first two: as torch.tensor calls them
    _own.impl(_func, partial(run, _func), "PrivateUse1")


class Second(Accelerator):
    """The device as Lightning knows it."""

    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [DEVICE]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return NAME


AcceleratorRegistry.register(NAME, Second)
TRAINER = (f"trainer.accelerator={NAME}", f"+trainer.strategy._target_={__name__}.strategy")


def strategy() -> SingleDeviceStrategy:
    return SingleDeviceStrategy(device=DEVICE)
