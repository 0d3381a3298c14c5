"""Conversion of embeddings, and of the options that ask for them, to messages and back."""

import numpy as np

from tubelet.service.errors import MalformedOption
from tubelet.service.types.embeddings import EmbeddingDtype, EmbeddingLevel, Embeddings
from tubelet.service.wire.times import to_ns_array
from tubelet.v1 import classification_pb2 as pb

_LEVELS = {
    None: pb.EMBEDDING_LEVEL_UNSPECIFIED,
    EmbeddingLevel.UNIT: pb.EMBEDDING_LEVEL_UNIT,
    EmbeddingLevel.WINDOW: pb.EMBEDDING_LEVEL_WINDOW,
    EmbeddingLevel.VIDEO: pb.EMBEDDING_LEVEL_VIDEO,
}
_DTYPES: dict[EmbeddingDtype, pb.EmbeddingDtype] = {
    "float32": pb.EMBEDDING_DTYPE_FLOAT32,
    "float16": pb.EMBEDDING_DTYPE_FLOAT16,
}
_ON_THE_WIRE = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


def level_to_proto(level: EmbeddingLevel | None) -> pb.EmbeddingLevel:
    """Convert a level, or None, to the enum value of a message."""
    return _LEVELS[level]


def level_from_proto(number: int) -> EmbeddingLevel | None:
    """Convert the level of a message; None if it is unspecified.

    Raises:
        MalformedOption: there is no such level.
    """
    for level, known in _LEVELS.items():
        if number == known:
            return level
    names = ", ".join(level.name for level in EmbeddingLevel)
    raise MalformedOption(f"embeddings {number} is not one of {names}", field="embeddings", value=number)


def dtype_to_proto(dtype: EmbeddingDtype) -> pb.EmbeddingDtype:
    """Convert a format of numbers to the enum value of a message.

    Raises:
        ValueError: there is no such format.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"embedding_dtype is {dtype!r}; it must be {' or '.join(_DTYPES)}")
    return _DTYPES[dtype]


def dtype_from_proto(number: int) -> EmbeddingDtype:
    """Convert a message's format of numbers; unspecified is float32.

    Raises:
        MalformedOption: there is no such format.
    """
    if number == pb.EMBEDDING_DTYPE_UNSPECIFIED:
        return "float32"
    for dtype, known in _DTYPES.items():
        if number == known:
            return dtype
    names = ", ".join(dtype.upper() for dtype in _DTYPES)
    raise MalformedOption(
        f"embedding_dtype {number} is not one of {names}", field="embedding_dtype", value=number
    )


def embeddings_to_proto(embeddings: Embeddings) -> pb.Embeddings:
    """Convert embeddings to a message; the views are left out where all are 0."""
    dtype: EmbeddingDtype = "float16" if embeddings.vectors.dtype == np.float16 else "float32"
    return pb.Embeddings(
        level=_LEVELS[embeddings.level],
        model=embeddings.model,
        version=embeddings.version,
        fingerprint=embeddings.fingerprint,
        width=embeddings.vectors.shape[1],
        dtype=_DTYPES[dtype],
        vectors=embeddings.vectors.astype(_ON_THE_WIRE[dtype], copy=False).tobytes(),
        start_s=embeddings.start_s.tolist(),
        end_s=embeddings.end_s.tolist(),
        view=embeddings.view.tolist() if embeddings.view.any() else (),
    )


def embeddings_from_proto(message: pb.Embeddings) -> Embeddings:
    """Convert a message to embeddings.

    Raises:
        ValueError: its numbers do not fit each other.
    """
    level, dtype = level_from_proto(message.level), dtype_from_proto(message.dtype)
    if level is None:
        raise ValueError("the server sent vectors without saying what they are of")
    vectors = np.frombuffer(message.vectors, _ON_THE_WIRE[dtype]).reshape(-1, message.width)
    return Embeddings(
        level=level,
        model=message.model,
        version=message.version,
        fingerprint=message.fingerprint,
        vectors=vectors.astype(dtype, copy=False),
        start_ns=to_ns_array(message.start_s),
        end_ns=to_ns_array(message.end_s),
        view=np.array(message.view or [0] * len(vectors), np.int32),
    )
