"""Embeddings: the vectors of a video, of its units, its windows or the whole of it, and their origin.

N vectors, D numbers in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal, get_args

import numpy as np

from tubelet.service.types.video import NS_PER_S

EmbeddingDtype = Literal["float32", "float16"]
"""The format of the numbers in a vector."""
EMBEDDING_DTYPES: tuple[EmbeddingDtype, ...] = get_args(EmbeddingDtype)

_BYTES_OF_TIMES = 16  # of a vector's time range


class EmbeddingLevel(Enum):
    """What a vector is of: a unit, a window, or the whole video."""

    UNIT = "unit"
    WINDOW = "window"
    VIDEO = "video"


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Vectors of a video, or a part of them, in the order of time, and the model that computed them.

    Units come once each, however many windows share them. With ``Views``, each view's are in the order of
    time. The vector of the video is the mean over its windows.
    """

    level: EmbeddingLevel
    model: str
    version: str
    fingerprint: str
    vectors: np.ndarray
    """(N, D) float32 or float16."""
    start_ns: np.ndarray
    """(N,) int64: the start of each vector's time range, in nanoseconds."""
    end_ns: np.ndarray
    """(N,) int64: its end."""
    view: np.ndarray
    """(N,) int32: the number of its view, from 0: the crops of the first clip first. 0 without ``Views``."""

    def __post_init__(self) -> None:
        rows = {len(self.vectors), len(self.start_ns), len(self.end_ns), len(self.view)}
        if self.vectors.ndim != 2 or len(rows) != 1:
            raise ValueError(f"vectors must be (N, D), with N times and views: {self.vectors.shape}, {rows}")
        if self.vectors.dtype.name not in EMBEDDING_DTYPES:
            raise ValueError(f"vectors must be float32 or float16, not {self.vectors.dtype}")

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        rows = f"{self.vectors.shape} {self.vectors.dtype}"
        return f"Embeddings({self.level.value}, {rows}, {self.model}:{self.version} {self.fingerprint})"

    @property
    def start_s(self) -> np.ndarray:
        """The start of each vector's time range in seconds: (N,) float64."""
        return self.start_ns / NS_PER_S

    @property
    def end_s(self) -> np.ndarray:
        """The end of each vector's time range in seconds: (N,) float64."""
        return self.end_ns / NS_PER_S

    @property
    def size_bytes(self) -> int:
        """The bytes that the vectors and their times take."""
        return self.vectors.nbytes + len(self) * _BYTES_OF_TIMES


def join(parts: Sequence[Embeddings]) -> Embeddings | None:
    """Join the ``parts`` of one video's embeddings, in their order; None if there are none."""
    if not parts:
        return None
    return replace(
        parts[0],
        vectors=np.concatenate([part.vectors for part in parts]),
        start_ns=np.concatenate([part.start_ns for part in parts]),
        end_ns=np.concatenate([part.end_ns for part in parts]),
        view=np.concatenate([part.view for part in parts]),
    )
