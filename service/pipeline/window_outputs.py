"""What the engine computes of a window: its logits, and the vectors that the request asks for.

S units in a window, K classes, D width of an embedding, E width of a window's vector.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from torch import Tensor

from tubelet.service.engine.model_runner import Embedding, Logits, WindowOutput
from tubelet.service.engine.session import VideoSession
from tubelet.service.types.embeddings import EmbeddingLevel
from tubelet.service.types.request import Options

Units = Sequence[asyncio.Future[Embedding]]
Vector = Tensor | np.ndarray  # (D,) of a unit, as the engine and its cache have it; (E,) of a window
Outputs = tuple[Logits | None, Sequence[Vector]]
ComputeWindow = Callable[[VideoSession, Units, int], Awaitable[Outputs]]
"""Computes a window of S units, of which the last ``new`` ones are in no earlier window of its grid."""


def choose_outputs(options: Options) -> ComputeWindow:
    """Return the function that computes of each window what ``options`` ask for, and nothing else."""
    match options.embeddings, options.only_embeddings:
        case None, _:
            return _logits
        case EmbeddingLevel.UNIT, False:
            return _logits_and_units
        case EmbeddingLevel.UNIT, True:
            return _units
        case _, False:
            return _logits_and_vector
        case _, True:
            return _vector


async def _logits(session: VideoSession, units: Units, new: int) -> Outputs:
    """Compute the logits (K,)."""
    return await session.classify(units), ()


async def _logits_and_units(session: VideoSession, units: Units, new: int) -> Outputs:
    """Compute the logits (K,), and return the embeddings (D,) of the new units, too."""
    return await session.classify(units), [unit.result() for unit in units[len(units) - new :]]


async def _units(session: VideoSession, units: Units, new: int) -> Outputs:
    """Return the embeddings (D,) of the new units, without the temporal stage."""
    return None, [await unit for unit in units[len(units) - new :]]


async def _logits_and_vector(session: VideoSession, units: Units, new: int) -> Outputs:
    """Compute the logits (K,) and the vector (E,)."""
    logits, vector = await session.classify_and_pool(units)
    return logits, (vector,)


async def _vector(session: VideoSession, units: Units, new: int) -> Outputs:
    """Compute the vector (E,), without the head."""
    return None, (await session.compute(units, WindowOutput.VECTOR),)
