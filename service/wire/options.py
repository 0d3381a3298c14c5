"""Conversion between the options of a request and their proto message."""

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
from tubelet.service.types.uri import Uri, parse_uri
from tubelet.service.wire.embeddings import dtype_from_proto, dtype_to_proto, level_from_proto, level_to_proto
from tubelet.service.wire.times import from_duration, to_duration, to_time_range
from tubelet.v1 import classification_pb2 as pb

_MAX_RANGES = 2_000  # planning ten times as many would block the event loop
_PRIORITIES = {
    Priority.LOW: pb.PRIORITY_LOW,
    Priority.NORMAL: pb.PRIORITY_NORMAL,
    Priority.HIGH: pb.PRIORITY_HIGH,
}
_PRIORITY_NAMES = ", ".join(priority.name for priority in Priority)


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
        ranges=[to_time_range(start, end) for start, end in options.ranges_ns],
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
