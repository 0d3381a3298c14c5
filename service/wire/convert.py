"""Conversion between proto messages and the values of ``tubelet.service.types``."""

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from tubelet.service.errors import MalformedOption
from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.request import (
    DEFAULT_TOP_K,
    MAX_TOP_K,
    Options,
    Priority,
    Sliding,
    Views,
    WholeVideo,
)
from tubelet.service.types.result import Activation, Classification, Label, Progress, Segment
from tubelet.service.types.uri import Uri, parse_uri
from tubelet.service.types.video import NS_PER_S, Thumbnail, VideoMetadata
from tubelet.service.wire.embeddings import (
    dtype_from_proto,
    dtype_to_proto,
    embeddings_from_proto,
    embeddings_to_proto,
    level_from_proto,
    level_to_proto,
)
from tubelet.v1 import classification_pb2 as pb
from tubelet.v1 import model_pb2

_MAX_RANGES = 2_000  # planning ten times as many would block the event loop
_PRIORITIES = {
    Priority.LOW: pb.PRIORITY_LOW,
    Priority.NORMAL: pb.PRIORITY_NORMAL,
    Priority.HIGH: pb.PRIORITY_HIGH,
}

_PRIORITY_NAMES = ", ".join(priority.name for priority in Priority)

_ACTIVATIONS = {
    Activation.SOFTMAX: model_pb2.ACTIVATION_SOFTMAX,
    Activation.SIGMOID: model_pb2.ACTIVATION_SIGMOID,
}


def to_duration(ns: int) -> Duration:
    """Convert nanoseconds to a protobuf Duration."""
    seconds, nanos = divmod(ns, NS_PER_S)
    return Duration(seconds=seconds, nanos=nanos)


def from_duration(duration: Duration) -> int:
    """Convert a protobuf Duration to nanoseconds."""
    return duration.seconds * NS_PER_S + duration.nanos


def options_from_proto(message: pb.ClassifyOptions) -> Options:
    """Convert a client's options, all but the URI.

    Raises:
        MalformedOption: a value is not allowed for any video.
    """
    if message.top_k > MAX_TOP_K:
        raise MalformedOption(
            f"top_k is {message.top_k}; the limit is {MAX_TOP_K}",
            field="top_k",
            limit=MAX_TOP_K,
            value=message.top_k,
        )
    if not 0 <= message.score_threshold <= 1:
        raise MalformedOption(
            f"score_threshold is {message.score_threshold:g}; it must be 0 to 1",
            field="score_threshold",
            limit="0..1",
            value=message.score_threshold,
        )
    if len(message.ranges) > _MAX_RANGES:  # before any is converted: a message may hold two million
        raise MalformedOption(
            f"{len(message.ranges)} time ranges were given; the limit is {_MAX_RANGES}",
            field="ranges",
            limit=_MAX_RANGES,
            value=len(message.ranges),
        )
    model = model_from_proto(message.model, message.version)
    return Options(
        model=model.name,
        version=model.version,
        top_k=message.top_k or DEFAULT_TOP_K,
        score_threshold=message.score_threshold,
        windowing=_windowing_from_proto(message),
        ranges_ns=tuple((from_duration(each.start), from_duration(each.end)) for each in message.ranges),
        fast=message.fast,
        thumbnails=message.thumbnails,
        priority=_priority_from_proto(message.priority),
        embeddings=level_from_proto(message.embeddings),
        embedding_dtype=dtype_from_proto(message.embedding_dtype),
        normalise_embeddings=message.normalise_embeddings,
        only_embeddings=message.only_embeddings,
    )


def model_from_proto(model: str, version: str) -> ModelRef:
    """Parse the fields ``model`` (NAME or NAME:VERSION) and ``version`` of a request.

    Raises:
        MalformedOption: ``model`` is neither, or the two versions differ.
    """
    try:
        return ModelRef.parse(model, version)
    except ValueError as error:
        raise MalformedOption(str(error), field="model", value=model) from None


def _priority_from_proto(number: int) -> Priority:
    """Convert a message's priority.

    Raises:
        MalformedOption: there is no such priority.
    """
    if number == pb.PRIORITY_UNSPECIFIED:
        return Priority.NORMAL
    for priority, known in _PRIORITIES.items():
        if number == known:
            return priority
    raise MalformedOption(
        f"priority {number} is not one of {_PRIORITY_NAMES}", field="priority", value=number
    )


def uri_from_proto(message: pb.ClassifyOptions) -> Uri | None:
    """Return the URI of a request, or None if the video is uploaded.

    Raises:
        MalformedOption: the URI cannot be parsed, or is not supported.
    """
    try:
        return parse_uri(message.uri) if message.uri else None
    except ValueError as error:
        raise MalformedOption(str(error), field="uri") from None


def options_to_proto(options: Options, uri: str = "") -> pb.ClassifyOptions:
    """Convert options for a request; ``uri`` is that of the video, if it has one."""
    message = pb.ClassifyOptions(
        model=options.model,
        version=options.version,
        top_k=options.top_k,
        score_threshold=options.score_threshold,
        ranges=[_range_to_proto(start, end) for start, end in options.ranges_ns],
        fast=options.fast,
        thumbnails=options.thumbnails,
        priority=_PRIORITIES[options.priority],
        uri=uri,
        embeddings=level_to_proto(options.embeddings),
        embedding_dtype=dtype_to_proto(options.embedding_dtype),
        normalise_embeddings=options.normalise_embeddings,
        only_embeddings=options.only_embeddings,
    )
    match options.windowing:
        case WholeVideo():
            message.whole_video.SetInParent()
        case Sliding(window_ns, stride_ns):
            message.sliding.SetInParent()
            if window_ns is not None:
                message.sliding.window.CopyFrom(to_duration(window_ns))
            if stride_ns is not None:
                message.sliding.stride.CopyFrom(to_duration(stride_ns))
        case Views(clips, crops):
            message.views.CopyFrom(pb.Views(clips=clips, crops=crops))
    return message


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
        range=_range_to_proto(segment.start_ns, segment.end_ns),
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


def _windowing_from_proto(message: pb.ClassifyOptions) -> WholeVideo | Sliding | Views:
    """Convert the windowing of a message; absent, it is sliding with the model's own window and stride."""
    match message.WhichOneof("windowing"):
        case "whole_video":
            return WholeVideo()
        case "views":
            return Views(clips=message.views.clips or 1, crops=message.views.crops or 1)
    sliding = message.sliding  # without window and stride if it is absent
    return Sliding(
        window_ns=from_duration(sliding.window) if sliding.HasField("window") else None,
        stride_ns=from_duration(sliding.stride) if sliding.HasField("stride") else None,
    )


def _range_to_proto(start_ns: int, end_ns: int) -> pb.TimeRange:
    """Convert the time range [start_ns, end_ns) to a message."""
    return pb.TimeRange(start=to_duration(start_ns), end=to_duration(end_ns))


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
