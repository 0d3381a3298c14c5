"""Activation checkpointing: what blocks keep for the backward pass is computed again there, to save memory.

Chen et al., arXiv 1604.06174. Gradients and statistics of batch norms do not change.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

_CONTAINERS = (nn.Sequential, nn.ModuleList)


def checkpoint_blocks_(model: nn.Module) -> None:
    """Let each block of ``model`` keep its inputs alone; a training step takes about a third longer.

    A model without blocks does not change. What decides random numbers in the forward pass must hold in the
    backward pass, too.
    """
    for block in _blocks(model):
        block.forward = partial(_forward, block, block.forward)


def saved_bytes(model: nn.Module, compute: Callable[[], object]) -> int:
    """Return how many bytes ``compute`` keeps for a backward pass, but for the parameters of ``model``.

    Statistics of batch norms do not change.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}  # held, or memory that is used again would be counted once

    def keep(saved: Tensor) -> None:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage

    def unpack(_: None) -> Tensor:
        raise AssertionError("nothing is computed backwards")

    with saved_tensors_hooks(keep, unpack), _fixed_statistics(model):
        compute()
    return sum(storage.nbytes() for storage in found.values())


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the elements of a model's sequences and lists, but for single layers and further sequences."""
    for child in module.children():
        is_sequence = isinstance(child, _CONTAINERS)
        if isinstance(module, _CONTAINERS) and not is_sequence and any(True for _ in child.children()):
            yield child
        else:
            yield from _blocks(child)


def _forward(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """Call a block's own ``forward``, twice if gradients are wanted."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    return checkpoint(
        forward,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _fixed_statistics(block)),
        **options,
    )


@contextmanager
def _fixed_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms in training leave their running statistics as they are."""
    norms = [each for each in module.modules() if isinstance(each, _BatchNorm)]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count
