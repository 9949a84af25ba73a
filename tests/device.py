"""A second device, as strict as a GPU, where there is none: its tensors hold CPU tensors, which do the arithmetic.

What CUDA refuses is refused: operations on tensors of both devices, except for copies, indices that lie on the CPU and
CPU tensors of one number among elementwise operations; and `numpy()`. What makes the host wait for the device is
counted: numbers that are read, copies from one to the other, sizes that depend on values, and checks of matrices.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
NAME = "emulated"
DEVICE = torch.device("privateuseone", 0)  # renamed below
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
ELEMENTWISE = {aten.where, aten.masked_fill, aten.masked_fill_, aten.fill_, aten.fill}  # not tagged as such
MADE_NOW = {aten._conj: aten.conj_physical, aten._neg_view: aten.neg}  # which otherwise are only noted
WAITS = {
    *(aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.bincount, aten._unique2, aten.equal),
    *(aten.repeat_interleave, aten._linalg_check_errors, aten.linalg_eigh, aten._linalg_eigh),
}
waits: Counter[str] = Counter()  # by what made the host wait


class OnDevice(Tensor):
    """A tensor on the device. `held` is on the CPU, of the same sizes and strides; views hold views of it."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        place = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        found = torch.Tensor._make_wrapper_subclass(cls, held.shape, **place, device=DEVICE)
        found.held = held
        return found

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, *args, **(kwargs or {}))

    def tolist(self) -> Any:  # this and the next are not dispatched
        note("tolist")
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert a tensor of the device to numpy")

    def __repr__(self) -> str:
        return f"OnDevice({self.held})"

    def __reduce_ex__(self, protocol: Any) -> Any:  # Lightning loads checkpoints to the CPU
        return self.held.__reduce_ex__(protocol)


def run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation some of whose tensors are, or whose result is to be, on the device."""
    check(func, args, kwargs)
    packet, (flat, spec) = func.overloadpacket, tree_flatten((args, kwargs))
    owners = {id(x.held): x for x in flat if isinstance(x, OnDevice)}
    to = kwargs.get("device")
    values = [x.held if isinstance(x, OnDevice) else x for x in flat]
    args, kwargs = tree_unflatten(values, spec)
    if to is not None:
        kwargs = {**kwargs, "device": "cpu"}
    if packet is aten._copy_from:
        found = args[1].copy_(args[0])
    else:
        found = MADE_NOW.get(packet, func)(*args, **kwargs)
    for held, owner in ((x.held, x) for x in owners.values()):
        assert held.shape == owner.shape and held.stride() == owner.stride(), f"{func} has resized a tensor"
    if (to is not None and torch.device(to).type == "cpu") or (packet is aten.copy_ and id(args[0]) not in owners):
        return found
    return tree_map_only(Tensor, lambda x: owners[id(x)] if id(x) in owners else OnDevice(x), found)


def check(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """Raises RuntimeError where CUDA would; counts where the host waits."""
    packet = func.overloadpacket
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    cpu = [x for x in tensors if not isinstance(x, OnDevice)]
    mixed = 0 < len(cpu) < len(tensors)
    if packet in (aten.copy_, aten._copy_from):
        if mixed:
            note(f"{packet} {'from' if isinstance(args[packet is aten.copy_], OnDevice) else 'to'} the device")
    elif packet is aten._to_copy:
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu":
            note(f"{packet} from the device")
    elif packet in INDEXED:
        indices = [x for x in args[1] if x is not None]
        others = [x for x in tensors if not any(x is i for i in indices)]
        if any(not isinstance(x, OnDevice) and (x is args[0] or x.dim()) for x in others):
            raise RuntimeError(f"{func}: Expected all tensors to be on the same device")
        if any(not isinstance(x, OnDevice) for x in indices):
            note(f"{packet} by indices of the CPU")
        elif any(x.dtype == torch.bool for x in indices) and not (packet is not aten.index and args[2].numel() == 1):
            note(f"{packet} by a mask")
    else:
        if packet in WAITS:
            note(str(packet))
        alone = torch.Tag.pointwise in func.tags or packet in ELEMENTWISE
        changed = [x for x, a in zip(args, func._schema.arguments, strict=False) if a.alias_info and a.alias_info.is_write]
        changed += [kwargs["out"]] if "out" in kwargs else []
        if mixed and (not alone or any(x.dim() for x in cpu) or any(x is y for x in cpu for y in changed)):
            places = ", ".join(f"{tuple(x.shape)} on {x.device.type}" for x in tensors)
            raise RuntimeError(f"{func}: Expected all tensors to be on the same device, found {places}")


def note(what: str) -> None:
    waits[what] += 1


def _made() -> list[Any]:
    """What makes tensors of none, on a device: what torch has for all devices would change their sizes afterwards."""
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
_every = torch.library.Library("_", "IMPL")
_every.fallback(run, "PrivateUse1")
_own = torch.library.Library("aten", "IMPL")
# torch.tensor asks for the first two with Python's part of the dispatcher switched off
for _func in (aten._copy_from.default, aten.detach.default, *_made()):
    _own.impl(_func, partial(run, _func), "PrivateUse1")
