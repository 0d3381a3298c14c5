"""Torch operations in small steps, before each of which a function may wait or end the computation.

M rows, K width and N columns of a product; B attentions side by side, A heads, L tokens, d width of a head.
"""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

MAX_MULTIPLICATIONS = 1 << 28
"""Multiplications of a step: 3 to 10 ms of a core in float32."""

_aten = torch.ops.aten
_ATTENTION = _aten._scaled_dot_product_flash_attention_for_cpu.default


class Interrupted(Exception):
    """The computation was ended before one of its steps."""


class SmallSteps(TorchDispatchMode):
    """Runs the operations within the context, also those of backward passes, in steps of milliseconds.

    Before each operation it calls ``go_on``, which may block. Large products are computed in parts, by rows,
    and attentions by heads; ``go_on`` is called before each part. The results are the same up to rounding.

    Raises:
        Interrupted: ``go_on`` returned False.
    """

    def __init__(self, go_on: Callable[[], bool]) -> None:
        super().__init__()
        self._go_on = go_on

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Compute one operation."""
        if func is _aten.mm.default or (func is _aten.addmm.default and args[0].dim() == 1 and not kwargs):
            return self._multiply(func, *args)
        if func is _ATTENTION:
            return self._attend(*args, **(kwargs or {}))
        self._wait()
        return func(*args, **(kwargs or {}))

    def _multiply(self, func: Any, *operands: Tensor) -> Tensor:
        """Compute a product by rows: [bias (N,),] (M, K), (K, N) -> (M, N)."""
        *bias, rows, matrix = operands
        found = []
        for part in rows.chunk(_parts(rows.numel() * matrix.shape[1])):
            self._wait()
            found.append(func(*bias, part, matrix))
        return found[0] if len(found) == 1 else torch.cat(found)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Compute attentions by heads: 3 x (B, A, L, d) -> (B, A, L, d), (B, A, L)."""
        parts = _parts(2 * q.numel() * k.shape[2])
        if parts == 1 or kwargs.get("attn_mask") is not None:
            self._wait()
            return _ATTENTION(q, k, v, *args, **kwargs)
        found = []
        for heads in zip(*(each.flatten(0, 1)[None].chunk(parts, dim=1) for each in (q, k, v)), strict=True):
            self._wait()
            found.append(_ATTENTION(*heads, *args, **kwargs))
        values, sums = (
            torch.cat(each, dim=1)[0].unflatten(0, q.shape[:2]) for each in zip(*found, strict=True)
        )
        return values, sums

    def _wait(self) -> None:
        """Wait before a step.

        Raises:
            Interrupted: the computation has to end.
        """
        if not self._go_on():
            raise Interrupted


def _parts(multiplications: int) -> int:
    """Return into how many steps to divide an operation."""
    return max(1, ceil(multiplications / MAX_MULTIPLICATIONS))
