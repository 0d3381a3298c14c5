"""Run a chain of blocks and keep what its attentions compare: queries and keys.

N units in a batch, M attentions side by side, A heads, P tokens, d width of a head, D embedding width.
"""

from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.models.explain.transformer import Block, Chain, Path, States
from tubelet.models.explain.weights import attending


@dataclass(slots=True)
class Recorded:
    """One attention that has run: the path of rows through it, its queries and keys, (M, A, P, d) each."""

    path: Path
    queries: Tensor
    keys: Tensor


@torch.no_grad()
def record(chain: Chain, batch: Tensor) -> Generator[None, None, tuple[list[Recorded], Tensor]]:
    """Run a chain over a batch, and yield after each block: -> its attentions in order, vectors (N, D)."""
    states, recorded = chain.embed(batch), []
    for block in chain.blocks:
        yield
        states = _run(block, states, recorded)
    return recorded, chain.vectors(states)


def _run(block: Block, states: States, recorded: list[Recorded]) -> States:
    """Run a block, and append its attentions to ``recorded``."""
    with ExitStack() as stack:
        for attention, path in block.attentions:

            def attend(q: Tensor, k: Tensor, v: Tensor, path: Path = path) -> Tensor:
                # Copies, since queries and keys are views of a tensor that holds the values, too.
                recorded.append(Recorded(path, q.contiguous(), k.contiguous()))
                return F.scaled_dot_product_attention(q, k, v)

            stack.enter_context(attending(attention, attend))
        return block(states)
