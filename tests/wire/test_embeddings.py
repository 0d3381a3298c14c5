"""Embeddings survive the conversion to messages, whose bytes any language can read."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tubelet.service.types.embeddings import EmbeddingDtype, EmbeddingLevel, Embeddings, join
from tubelet.service.types.request import Options
from tubelet.service.wire.embeddings import embeddings_from_proto, embeddings_to_proto
from tubelet.service.wire.options import options_to_proto
from tubelet.v1 import classification_pb2 as pb


def embeddings(vectors: np.ndarray, level: EmbeddingLevel = EmbeddingLevel.UNIT) -> Embeddings:
    rows = len(vectors)
    times = np.arange(rows, dtype=np.int64) * 333_333_333
    views = np.arange(rows, dtype=np.int32)
    return Embeddings(level, "camera-motion", "1.1.0", "0123", vectors, times, times + 333_333_333, views)


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
floats = st.sampled_from((np.float32, np.float16)).flatmap(lambda dtype: arrays.arrays(dtype, shapes))


@given(floats, st.sampled_from(EmbeddingLevel))
def test_embeddings_survive_the_conversion(vectors: np.ndarray, level: EmbeddingLevel) -> None:
    given_ = embeddings(vectors, level)
    message = pb.Embeddings.FromString(embeddings_to_proto(given_).SerializeToString())
    found = embeddings_from_proto(message)
    for array in ("vectors", "start_ns", "end_ns", "view"):
        np.testing.assert_array_equal(getattr(found, array), getattr(given_, array))
    assert found.vectors.dtype == vectors.dtype
    assert repr(found) == repr(given_)


@pytest.mark.parametrize(
    ("dtype", "letter", "number"),
    [("float32", "f", pb.EMBEDDING_DTYPE_FLOAT32), ("float16", "e", pb.EMBEDDING_DTYPE_FLOAT16)],
)
def test_the_bytes_are_rows_of_little_endian_numbers(
    dtype: EmbeddingDtype, letter: str, number: "pb.EmbeddingDtype"
) -> None:
    message = embeddings_to_proto(embeddings(np.array([[1, -2, 0.5], [4, 5, 6]], dtype)))
    assert (message.width, message.dtype) == (3, number)
    assert struct.unpack(f"<6{letter}", message.vectors) == (1, -2, 0.5, 4, 5, 6)
    assert list(message.start_s) == [0, 0.333333333]


def test_a_message_without_views_has_only_the_first() -> None:
    message = embeddings_to_proto(embeddings(np.zeros((1, 3), np.float32)))
    assert not message.view
    assert embeddings_from_proto(message).view.tolist() == [0]


def test_unequal_rows_are_refused() -> None:
    message = embeddings_to_proto(embeddings(np.zeros((2, 3), np.float32)))
    message.start_s.append(5)
    with pytest.raises(ValueError, match="vectors must be"):
        embeddings_from_proto(message)
    assert join([]) is None


def test_an_unknown_format_of_numbers_is_named() -> None:
    with pytest.raises(ValueError, match="'float64'; it must be float32 or float16"):
        options_to_proto(Options(embedding_dtype="float64"))  # pyright: ignore[reportArgumentType]
