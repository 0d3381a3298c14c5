"""Values are unchanged after a conversion to messages and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.service.errors import MalformedOption
from tubelet.service.types.embeddings import EMBEDDING_DTYPES, EmbeddingLevel
from tubelet.service.types.request import Options, Priority, Sliding, Views, WholeVideo
from tubelet.service.types.result import Activation, Classification, Label, Progress, Segment
from tubelet.service.types.video import Thumbnail, VideoMetadata
from tubelet.service.wire.answer import (
    classification_from_proto,
    classification_to_proto,
    progress_from_proto,
    progress_to_proto,
)
from tubelet.service.wire.options import options_from_proto, options_to_proto
from tubelet.v1 import classification_pb2 as pb

times = st.integers(0, 10**15)
scores = st.floats(0, 1, width=32)
labels = st.lists(st.builds(Label, st.text(max_size=9), scores), max_size=3).map(tuple)
activations = st.sampled_from(Activation)
segments = st.lists(st.builds(Segment, times, times, labels, activations), max_size=3).map(tuple)
thumbnails = st.lists(
    st.builds(Thumbnail, times, st.integers(1, 160), st.integers(1, 160), st.binary(max_size=9)), max_size=3
).map(tuple)
metadata = st.builds(
    VideoMetadata,
    container=st.text(max_size=9),
    codec=st.text(max_size=9),
    width=st.integers(1, 9999),
    height=st.integers(1, 9999),
    fps=st.floats(0, 1000),
    frames=st.integers(0, 10**9),
    duration_ns=st.integers(1, 10**15),
    size_bytes=times,
)


@given(
    st.builds(
        Options,
        model=st.text(max_size=9).filter(lambda name: ":" not in name),
        version=st.text(max_size=9),
        top_k=st.integers(1, 1000),
        score_threshold=scores,
        windowing=st.builds(WholeVideo)
        | st.builds(Sliding, st.none() | times, st.none() | times)
        | st.builds(Views, st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1)),
        ranges_ns=st.lists(st.tuples(times, times), max_size=3).map(tuple),
        fast=st.booleans(),
        thumbnails=st.integers(0, 60),
        priority=st.sampled_from(Priority),
        embeddings=st.none() | st.sampled_from(EmbeddingLevel),
        embedding_dtype=st.sampled_from(EMBEDDING_DTYPES),
        normalise_embeddings=st.booleans(),
        only_embeddings=st.booleans(),
    )
)
def test_options_survive_the_conversion_to_protos(options: Options) -> None:
    assert options_from_proto(options_to_proto(options)) == options


def test_ranges_are_counted_before_they_are_converted() -> None:
    ranges = [pb.TimeRange()] * 2000
    assert len(options_from_proto(pb.ClassifyOptions(ranges=ranges)).ranges_ns) == 2000
    with pytest.raises(MalformedOption, match="2001 time ranges were given; the limit is 2000") as refused:
        options_from_proto(pb.ClassifyOptions(ranges=[*ranges, pb.TimeRange()]))
    assert (refused.value.field, refused.value.metadata) == ("ranges", {"limit": "2000", "value": "2001"})


@given(
    st.builds(
        Classification,
        metadata=metadata,
        model=st.text(max_size=9),
        version=st.text(max_size=9),
        segments=segments,
        labels=labels,
        stage_seconds=st.dictionaries(st.sampled_from(["probe", "decode"]), st.floats(0, 100)),
        warnings=st.lists(st.text(max_size=9), max_size=2).map(tuple),
        max_frame_offset_ns=times,
        activation=activations,
        thumbnails=thumbnails,
    )
)
def test_answers_survive_the_conversion_to_protos(answer: Classification) -> None:
    assert classification_from_proto(classification_to_proto(answer)) == answer


def test_missing_activation_means_softmax() -> None:
    video = pb.VideoMetadata(width=1, height=1)
    answer = classification_from_proto(pb.Classification(video=video, segments=[pb.Segment()]))
    assert {answer.activation, answer.segments[0].activation} == {Activation.SOFTMAX}


@given(st.builds(Progress, st.floats(0, 1e6), st.floats(0, 1e6)))
def test_progress_survives_the_conversion_to_protos(progress: Progress) -> None:
    assert progress_from_proto(progress_to_proto(progress)) == progress
