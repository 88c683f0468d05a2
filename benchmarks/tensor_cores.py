"""fp16 matrix products on a CPU as a GPU's tensor cores compute them: fp16 factors, sums in fp32, an fp16 result.

A CPU without fp16 units takes about a hundred times as long as for fp32. The products of two fp16 numbers are exact in
fp32, so the same operation in fp32 on the same factors, rounded to fp16 at the end, gives what tensor cores give up to
the order of the sums. A result beyond 65,504 becomes infinite, as it does there. Attention is computed so as a whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ATEN = torch.ops.aten
ATTENTION = ATEN._scaled_dot_product_flash_attention_for_cpu
PRODUCTS = {ATEN.mm, ATEN.bmm, ATEN.addmm, ATEN.baddbmm, ATEN.linear, ATEN.matmul, ATEN.mv}
PRODUCTS |= {ATTENTION, ATEN._scaled_dot_product_flash_attention_for_cpu_backward}


class TensorCores(TorchDispatchMode):
    """While it is entered, fp16 products on the CPU are computed in fp32 and rounded; everything else is as it was."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute one operation."""
        kwargs = kwargs or {}
        if func.overloadpacket not in PRODUCTS or not any(map(_is_half, args)):
            return func(*args, **kwargs)
        wide = {name: one.float() if _is_half(one) else one for name, one in kwargs.items()}
        result = func(*(one.float() if _is_half(one) else one for one in args), **wide)
        if func.overloadpacket is ATTENTION:
            return result[0].half(), result[1]  # the second is the logarithm of a sum, which is fp32 always
        return tuple(one.half() for one in result) if isinstance(result, tuple) else result.half()


def _is_half(value: Any) -> bool:
    return torch.is_tensor(value) and value.dtype == torch.float16 and value.device.type == "cpu"
