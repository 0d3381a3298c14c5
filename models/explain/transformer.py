"""How explanations see the families of transformers: chains of blocks, and the rows that run through them.

A row says how much of a result each token accounts for. N units in a batch, t time steps in a unit,
P patches of a picture, L tokens, D embedding width, S units in a window.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from einops import rearrange, repeat
from torch import Tensor, cat, nn

from tubelet.models.explain.explanation import Mass
from tubelet.models.families.channel_stack import ChannelStack
from tubelet.models.families.divided import Divided, DividedBlock
from tubelet.models.families.factorised import Factorised
from tubelet.models.families.joint import Joint, MeanEncoder
from tubelet.models.families.layers import Attention, Encoder, EncoderBlock, PatchEmbed
from tubelet.models.families.vit import ViT
from tubelet.models.video_model import VideoModel

States = tuple[Tensor, ...]
"""What one block passes to the next: the tokens, or the class token and the tokens."""
Push = Callable[[Tensor], Tensor]
"""Moves rows from the queries of an attention to its keys: (M, Q) -> (M, K)."""
Path = Callable[[Tensor, Push], Tensor]
"""Moves rows of units through an attention, which may see parts of them: (N, L), Push -> (N, L)."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block, and its attentions in the order of their computation, with the path of rows through each."""

    run: Callable[..., Tensor | States]
    attentions: tuple[tuple[Attention, Path], ...]

    def __call__(self, states: States) -> States:
        """Run the block."""
        result = self.run(*states)
        return result if isinstance(result, tuple) else (result,)


@dataclass(frozen=True, slots=True)
class Chain:
    """The blocks of a transformer, from its input to the vector that it is read out as.

    ``start`` (L,) float64 is the row of the read-out: the class token's, or the mean's. Class tokens, of
    which there are ``class_tokens``, come first.
    """

    embed: Callable[[Tensor], States]
    blocks: tuple[Block, ...]
    read_out: Callable[[Tensor], Tensor]
    start: Tensor
    class_tokens: int

    def vectors(self, states: States) -> Tensor:
        """Read out what the last block computed: -> (N, D)."""
        return self.read_out(states[0])

    @property
    def attentions(self) -> tuple[tuple[Attention, Path], ...]:
        """All attentions in the order of their computation."""
        return tuple(chain.from_iterable(block.attentions for block in self.blocks))


@dataclass(frozen=True, slots=True)
class Transformer:
    """A model as explanations see it: a chain over units, perhaps one over their embeddings, a grid.

    Without ``temporal``, the logits of a window are the mean of those of its units.
    """

    model: VideoModel
    spatial: Chain
    temporal: Chain | None
    grid: tuple[int, int, int]  # time steps in a unit, rows, columns

    @property
    def attentions(self) -> tuple[tuple[Attention, Path], ...]:
        """The layers of the model: all attentions in the order of their computation."""
        return self.spatial.attentions + (self.temporal.attentions if self.temporal else ())

    @property
    def heads(self) -> int:
        """The number of heads that every layer has."""
        return min(attention.num_heads for attention, _ in self.attentions)

    @property
    def attended(self) -> tuple[str, ...]:
        """What each layer attends to."""
        if isinstance(self.model, Divided):
            return ("frames", "patches of a frame") * len(self.spatial.blocks)
        temporal = len(self.attentions) - len(self.spatial.attentions)
        return ("patches",) * len(self.spatial.attentions) + ("units",) * temporal

    def mass(self, rows: Tensor, elsewhere: float = 0.0) -> Mass:
        """Lay the rows of units on the grid of patches: (S, L) -> Mass; class tokens add to ``elsewhere``."""
        first = self.spatial.class_tokens
        patches = rows[:, first:].unflatten(1, self.grid).flatten(0, 1)
        return Mass(patches, elsewhere + float(rows[:, :first].sum()))


def as_transformer(model: VideoModel) -> Transformer | None:
    """Return how explanations see an unpacked model; None if they cannot see into its family."""
    temporal = None
    match model:
        case ViT() | ChannelStack():
            spatial = _encoder(model.spatial, model.tokenise)
        case Factorised(pooling=None):
            spatial = _encoder(model.spatial, model.tokenise)
            temporal = _encoder(model.temporal, model.adapt)
        case Joint(spacetime=Encoder() as encoder):
            spatial = _encoder(encoder, model.tokenise)
        case Joint(spacetime=MeanEncoder() as encoder):
            spatial = _mean_encoder(encoder, model.tokenise)
        case Divided():
            spatial = _divided(model)
        case _:
            return None
    embed, size = model.patch_embed, model.preprocessing
    p, q = embed.patch_size if isinstance(embed, PatchEmbed) else embed.tubelet_size[1:]
    rows, columns = size.height // p, size.width // q
    steps = (len(spatial.start) - spatial.class_tokens) // (rows * columns)
    return Transformer(model, spatial, temporal, (steps, rows, columns))


def _encoder(encoder: Encoder, tokenise: Callable[[Tensor], Tensor]) -> Chain:
    """Describe an encoder, which is read out at its class token."""
    return Chain(
        embed=lambda units: (encoder.embed(tokenise(units)),),
        blocks=_blocks(encoder.blocks),
        read_out=encoder.read_out,
        start=one_hot(encoder.pos_embed[0, :, 0], 0),
        class_tokens=1,
    )


def _mean_encoder(encoder: MeanEncoder, tokenise: Callable[[Tensor], Tensor]) -> Chain:
    """Describe an encoder without a class token, which is read out as the mean of its tokens."""
    tokens = encoder.pos_embed.shape[1]
    start = torch.full((tokens,), 1 / tokens, dtype=torch.float64, device=encoder.pos_embed.device)
    return Chain(
        embed=lambda units: (encoder.embed(tokenise(units)),),
        blocks=_blocks(encoder.blocks),
        read_out=encoder.read_out,
        start=start,
        class_tokens=0,
    )


def _blocks(blocks: nn.Sequential) -> tuple[Block, ...]:
    """Describe blocks whose tokens all attend to each other."""
    encoder_blocks = [block for block in blocks if isinstance(block, EncoderBlock)]
    assert len(encoder_blocks) == len(blocks)  # the model is not packed
    return tuple(Block(block, ((block.attn, _over_all),)) for block in encoder_blocks)


def _divided(model: Divided) -> Chain:
    """Describe a TimeSformer, each block of which attends over time, then over space."""
    t = model.time_embed.shape[1]
    tokens = model.pos_embed.new_zeros(1 + t * (model.pos_embed.shape[1] - 1))
    blocks = [block for block in model.blocks if isinstance(block, DividedBlock)]
    return Chain(
        embed=model.embed,
        blocks=tuple(
            Block(
                block, ((block.temporal_attn, partial(_over_time, t)), (block.attn, partial(_over_space, t)))
            )
            for block in blocks
        ),
        read_out=model.read_out,
        start=one_hot(tokens, 0),
        class_tokens=1,
    )


def _over_all(rows: Tensor, push: Push) -> Tensor:
    """Move rows through an attention of all tokens."""
    return push(rows)


def _over_space(t: int, rows: Tensor, push: Push) -> Tensor:
    """Move rows through an attention within each of ``t`` frames, over which the class token is averaged."""
    tokens = rearrange(rows[:, 1:], "n (t p) -> n t p", t=t)
    frames = cat((repeat(rows[:, :1] / t, "n 1 -> n t 1", t=t), tokens), dim=2)
    pushed = rearrange(push(frames.flatten(0, 1)), "(n t) p -> n t p", t=t)
    return cat((pushed[:, :, 0].sum(dim=1, keepdim=True), pushed[:, :, 1:].flatten(1)), dim=1)


def _over_time(t: int, rows: Tensor, push: Push) -> Tensor:
    """Move rows through an attention across ``t`` frames at each patch; the class token has no part in it."""
    tracks = rearrange(rows[:, 1:], "n (t p) -> (n p) t", t=t)
    return cat((rows[:, :1], rearrange(push(tracks), "(n p) t -> n (t p)", n=len(rows))), dim=1)


def one_hot(row: Tensor, token: int) -> Tensor:
    """Return a row as long as ``row``, (L,), and on its device, of one token alone: -> (L,) float64."""
    row = torch.zeros_like(row, dtype=torch.float64)
    row[token] = 1
    return row
