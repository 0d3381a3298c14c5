"""Conversion between answers, of ``tubelet.service.types``, and their proto messages."""

from collections.abc import Iterable

from tubelet.service.types.result import Activation, Classification, Label, Progress, Segment
from tubelet.service.types.video import Thumbnail, VideoMetadata
from tubelet.service.wire.embeddings import embeddings_from_proto, embeddings_to_proto
from tubelet.service.wire.times import from_duration, to_duration, to_time_range
from tubelet.v1 import classification_pb2 as pb
from tubelet.v1 import model_pb2

_ACTIVATIONS = {
    Activation.SOFTMAX: model_pb2.ACTIVATION_SOFTMAX,
    Activation.SIGMOID: model_pb2.ACTIVATION_SIGMOID,
}


def metadata_to_proto(metadata: VideoMetadata) -> pb.VideoMetadata:
    """Convert a video's metadata to a message."""
    return pb.VideoMetadata(
        container=metadata.container,
        codec=metadata.codec,
        width=metadata.width,
        height=metadata.height,
        fps=metadata.fps,
        frames=metadata.frames,
        duration=to_duration(metadata.duration_ns),
        size_bytes=metadata.size_bytes,
        pixel_format=metadata.pixel_format,
        shown_as_stored=metadata.shown_as_stored,
    )


def metadata_from_proto(message: pb.VideoMetadata) -> VideoMetadata:
    """Convert a message to a video's metadata."""
    return VideoMetadata(
        container=message.container,
        codec=message.codec,
        width=message.width,
        height=message.height,
        fps=message.fps,
        frames=message.frames,
        duration_ns=from_duration(message.duration),
        size_bytes=message.size_bytes,
        pixel_format=message.pixel_format,
        shown_as_stored=message.shown_as_stored,
    )


def activation_to_proto(activation: Activation) -> model_pb2.Activation:
    """Convert an activation to the enum value of a message."""
    return _ACTIVATIONS[activation]


def activation_from_proto(number: int) -> Activation:
    """Convert a message's activation; servers that send none use softmax."""
    return Activation.SIGMOID if number == model_pb2.ACTIVATION_SIGMOID else Activation.SOFTMAX


def segment_to_proto(segment: Segment) -> pb.Segment:
    """Convert a segment with its labels to a message."""
    return pb.Segment(
        range=to_time_range(segment.start_ns, segment.end_ns),
        labels=_labels_to_proto(segment.labels),
        activation=activation_to_proto(segment.activation),
    )


def segment_from_proto(message: pb.Segment) -> Segment:
    """Convert a message to a segment with its labels."""
    return Segment(
        start_ns=from_duration(message.range.start),
        end_ns=from_duration(message.range.end),
        labels=_labels_from_proto(message.labels),
        activation=activation_from_proto(message.activation),
    )


def progress_to_proto(progress: Progress) -> pb.Progress:
    """Convert progress to a message."""
    return pb.Progress(decoded_s=progress.decoded_s, total_s=progress.total_s)


def progress_from_proto(message: pb.Progress) -> Progress:
    """Convert a message to progress."""
    return Progress(decoded_s=message.decoded_s, total_s=message.total_s)


def classification_to_proto(answer: Classification) -> pb.Classification:
    """Convert the answer for a video to a message."""
    return pb.Classification(
        video=metadata_to_proto(answer.metadata),
        model=answer.model,
        version=answer.version,
        segments=[segment_to_proto(segment) for segment in answer.segments],
        labels=_labels_to_proto(answer.labels),
        stage_seconds=answer.stage_seconds,
        warnings=answer.warnings,
        max_frame_offset=to_duration(answer.max_frame_offset_ns),
        fetched_bytes=answer.fetched_bytes,
        activation=activation_to_proto(answer.activation),
        fingerprint=answer.fingerprint,
        request_id=answer.request_id,
        thumbnails=[_thumbnail_to_proto(thumbnail) for thumbnail in answer.thumbnails],
        embeddings=None if answer.embeddings is None else embeddings_to_proto(answer.embeddings),
    )


def classification_from_proto(message: pb.Classification) -> Classification:
    """Convert a message to the answer for a video."""
    return Classification(
        metadata=metadata_from_proto(message.video),
        model=message.model,
        version=message.version,
        segments=tuple(segment_from_proto(segment) for segment in message.segments),
        labels=_labels_from_proto(message.labels),
        stage_seconds=dict(message.stage_seconds),
        warnings=tuple(message.warnings),
        max_frame_offset_ns=from_duration(message.max_frame_offset),
        fetched_bytes=message.fetched_bytes,
        activation=activation_from_proto(message.activation),
        fingerprint=message.fingerprint,
        request_id=message.request_id,
        thumbnails=tuple(_thumbnail_from_proto(thumbnail) for thumbnail in message.thumbnails),
        embeddings=embeddings_from_proto(message.embeddings) if message.HasField("embeddings") else None,
    )


def _thumbnail_to_proto(thumbnail: Thumbnail) -> pb.Thumbnail:
    """Convert a thumbnail to a message."""
    return pb.Thumbnail(
        time=to_duration(thumbnail.time_ns),
        width=thumbnail.width,
        height=thumbnail.height,
        jpeg=thumbnail.jpeg,
    )


def _thumbnail_from_proto(message: pb.Thumbnail) -> Thumbnail:
    """Convert a message to a thumbnail."""
    return Thumbnail(from_duration(message.time), message.width, message.height, message.jpeg)


def _labels_to_proto(labels: tuple[Label, ...]) -> list[pb.Label]:
    """Convert labels to messages."""
    return [pb.Label(name=label.name, score=label.score) for label in labels]


def _labels_from_proto(labels: Iterable[pb.Label]) -> tuple[Label, ...]:
    """Convert messages to labels."""
    return tuple(Label(label.name, label.score) for label in labels)
