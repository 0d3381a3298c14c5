"""A start for position embeddings: sine waves over the grid, as strong as the tokens they are added to.

Waves as in Vaswani et al., arXiv 1706.03762, in two dimensions as in He et al. (MAE), arXiv 2111.06377, but
learned from there on. A zoom or roll is a flow that differs from place to place: tokens that hardly know
where they are cannot tell it from rest. P tokens, D embedding width.
"""

import math

import torch
from torch import Tensor

from models.layers import Encoder

STRENGTH = 0.5  # root mean square; that of the tubelet tokens is about 0.8
LONGEST = 4.0  # grids in the longest wave: nearly a straight line over the grid


@torch.no_grad()
def sine_positions_(encoder: Encoder, rows: int, columns: int) -> None:
    """Fill the position embeddings of a grid's tokens, not the class token's; rows = 1 for a sequence."""
    width = encoder.pos_embed.shape[-1]
    along_x = waves(columns, width if rows == 1 else width // 2)
    if rows == 1:
        encoder.pos_embed[0, 1:] = along_x
        return
    along_y = waves(rows, width - width // 2)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    encoder.pos_embed[0, 1:] = torch.cat((along_y[y.flatten()], along_x[x.flatten()]), dim=1)


def waves(count: int, width: int) -> Tensor:
    """(P, D): positions 0..count-1 in sines and cosines, from the longest wave to two positions."""
    pairs = (width + 1) // 2
    centred = (torch.arange(count) - (count - 1) / 2) / count
    cycles = torch.exp(torch.linspace(math.log(1 / LONGEST), math.log(max(count / 2, 1 / LONGEST)), pairs))
    phase = 2 * math.pi * centred[:, None] * cycles
    return STRENGTH * 2**0.5 * torch.cat((phase.sin(), phase.cos()), dim=1)[:, :width]
