"""Conversion of the options and events of explanations to and from their proto messages."""

import numpy as np

from tubelet.service.errors import MalformedOption
from tubelet.service.types.explanation import (
    EXPLAIN_METHODS,
    ExplainedVideo,
    ExplainEvent,
    ExplainMethod,
    ExplainOptions,
    MapQuestion,
    SegmentMap,
)
from tubelet.service.types.request import Options
from tubelet.service.types.result import Classification, Progress
from tubelet.service.types.video import Rectangle, VideoMetadata
from tubelet.service.wire.answer import (
    classification_from_proto,
    metadata_from_proto,
    metadata_to_proto,
    progress_from_proto,
    progress_to_proto,
    segment_from_proto,
    segment_to_proto,
)
from tubelet.service.wire.events import unknown_event
from tubelet.service.wire.options import options_to_proto
from tubelet.service.wire.status import ServerError
from tubelet.service.wire.times import to_ns_array
from tubelet.v1 import explanation_pb2
from tubelet.v1 import video_classifier_pb2 as pb

_METHODS: dict[ExplainMethod, explanation_pb2.ExplainMethod] = {
    "relevance": explanation_pb2.EXPLAIN_METHOD_RELEVANCE,
    "rollout": explanation_pb2.EXPLAIN_METHOD_ROLLOUT,
    "attention": explanation_pb2.EXPLAIN_METHOD_ATTENTION,
    "occlusion": explanation_pb2.EXPLAIN_METHOD_OCCLUSION,
}
_ON_THE_WIRE = np.dtype("<f4")
_MOST = 2**31 - 1  # that an int32 of a message holds


def explain_options_to_proto(
    asked: ExplainOptions, options: Options, uri: str = ""
) -> explanation_pb2.ExplainOptions:
    """Convert the options of an explanation for a request; ``uri`` is that of the video, if it has one.

    Raises:
        ValueError: there is no such method, or a number is negative or huge.
    """
    if asked.method not in _METHODS:
        raise ValueError(f"method is {asked.method!r}; it must be one of {', '.join(EXPLAIN_METHODS)}")
    if not 1 <= asked.best <= _MOST:
        raise ValueError(f"best is {asked.best}; it must be 1 to {_MOST}")
    for field, number in (("layer", asked.layer), ("head", asked.head)):
        if number is not None and abs(number) > _MOST:
            raise ValueError(f"{field} is {number}; it must be at most {_MOST}")
    return explanation_pb2.ExplainOptions(
        classification=options_to_proto(options, uri),
        method=_METHODS[asked.method],
        labels=asked.labels,
        best=asked.best,
        against=asked.against or "",
        layer=asked.layer,
        head=asked.head,
    )


def explain_options_from_proto(message: explanation_pb2.ExplainOptions) -> ExplainOptions:
    """Convert what a client asks of an explanation, all but the options of its classification.

    Raises:
        MalformedOption: there is no such method.
    """
    return ExplainOptions(
        method=_method_from_proto(message.method),
        labels=tuple(message.labels),
        best=message.best or 1,
        against=message.against or None,
        layer=message.layer if message.HasField("layer") else None,
        head=message.head if message.HasField("head") else None,
    )


def explain_event_to_proto(event: ExplainEvent) -> pb.ExplainResponse:
    """Convert an event before the classification to a message."""
    match event:
        case VideoMetadata():
            return pb.ExplainResponse(video=metadata_to_proto(event))
        case Progress():
            return pb.ExplainResponse(progress=progress_to_proto(event))
        case SegmentMap():
            return pb.ExplainResponse(map=_map_to_proto(event))


def explain_event_from_proto(response: pb.ExplainResponse) -> ExplainEvent | Classification:
    """Convert a message of ``Explain`` to its event.

    Raises:
        ValueError: the message has an event of an unknown kind, or numbers that do not fit each other.
    """
    match response.WhichOneof("event"):
        case "video":
            return metadata_from_proto(response.video)
        case "progress":
            return progress_from_proto(response.progress)
        case "map":
            return _map_from_proto(response.map)
        case "classification":
            return classification_from_proto(response.classification)
        case unknown:
            raise unknown_event(unknown)


def explained_video(events: list[ExplainEvent | Classification]) -> ExplainedVideo:
    """Return the classification at the end of ``events``, and the maps that came before it."""
    answer = events[-1] if events else None
    if not isinstance(answer, Classification):
        raise ServerError("INTERNAL", "", "the server ended the stream without a classification", {})
    return ExplainedVideo(answer, tuple(event for event in events if isinstance(event, SegmentMap)))


def _method_from_proto(number: int) -> ExplainMethod:
    """Convert a message's method; unspecified is relevance."""
    if number == explanation_pb2.EXPLAIN_METHOD_UNSPECIFIED:
        return "relevance"
    for method, known in _METHODS.items():
        if number == known:
            return method
    names = ", ".join(method.upper() for method in _METHODS)
    raise MalformedOption(f"method {number} is not one of {names}", field="method", value=number)


def _map_to_proto(found: SegmentMap) -> explanation_pb2.SegmentMap:
    """Convert a map to a message."""
    question, rectangle = found.question, found.rectangle
    _, rows, columns = found.map.shape
    return explanation_pb2.SegmentMap(
        segment=segment_to_proto(found.segment),
        method=_METHODS[question.method],
        label=question.label,
        against=question.against,
        layer=question.layer,
        head=question.head,
        rows=rows,
        columns=columns,
        map=found.map.astype(_ON_THE_WIRE, copy=False).tobytes(),
        on_no_patch=found.on_no_patch,
        start_s=found.start_s.tolist(),
        end_s=found.end_s.tolist(),
        rectangle=explanation_pb2.Rectangle(
            left=rectangle.left, top=rectangle.top, right=rectangle.right, bottom=rectangle.bottom
        ),
        view=found.view,
        runs=found.runs,
        steps_left_out=found.steps_left_out,
    )


def _map_from_proto(message: explanation_pb2.SegmentMap) -> SegmentMap:
    """Convert a message to a map."""
    patches = np.frombuffer(message.map, _ON_THE_WIRE).astype(np.float32, copy=False)
    box = message.rectangle
    return SegmentMap(
        segment=segment_from_proto(message.segment),
        question=MapQuestion(
            _method_from_proto(message.method),
            message.label if message.HasField("label") else None,
            message.against if message.HasField("against") else None,
            message.layer if message.HasField("layer") else None,
            message.head if message.HasField("head") else None,
        ),
        map=patches.reshape(-1, message.rows, message.columns),
        on_no_patch=message.on_no_patch,
        start_ns=to_ns_array(message.start_s),
        end_ns=to_ns_array(message.end_s),
        rectangle=Rectangle(box.left, box.top, box.right, box.bottom),
        view=message.view,
        runs=message.runs,
        steps_left_out=message.steps_left_out,
    )
