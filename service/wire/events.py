"""The events of a streaming call."""

from collections.abc import Sequence
from dataclasses import replace

from tubelet.service.types.embeddings import Embeddings, join
from tubelet.service.types.result import Classification, Progress, Segment
from tubelet.service.types.video import VideoMetadata
from tubelet.service.wire.answer import (
    classification_from_proto,
    metadata_from_proto,
    progress_from_proto,
    segment_from_proto,
)
from tubelet.service.wire.embeddings import embeddings_from_proto
from tubelet.service.wire.status import ServerError
from tubelet.v1 import video_classifier_pb2 as pb

Event = VideoMetadata | Progress | Segment | Embeddings | Classification


def with_embeddings(events: Sequence[Event]) -> Classification:
    """Return the classification at the end of ``events``, with the embeddings that came before it."""
    answer = events[-1] if events else None
    if not isinstance(answer, Classification):
        raise ServerError("INTERNAL", "", "the server ended the stream without a classification", {})
    return replace(answer, embeddings=join([event for event in events if isinstance(event, Embeddings)]))


def unknown_event(kind: str | None) -> ValueError:
    """Return the error of an event of a kind that this client does not know."""
    return ValueError(f"the server sent an event of an unknown kind: {kind}; the client may be too old")


def event_from_proto(response: pb.ClassifyStreamingResponse) -> Event:
    """Convert a message of ``ClassifyStreaming`` to its event.

    Raises:
        ValueError: the message has an event of an unknown kind.
    """
    match response.WhichOneof("event"):
        case "video":
            return metadata_from_proto(response.video)
        case "progress":
            return progress_from_proto(response.progress)
        case "segment":
            return segment_from_proto(response.segment)
        case "classification":
            return classification_from_proto(response.classification)
        case "embeddings":
            return embeddings_from_proto(response.embeddings)
        case unknown:
            raise unknown_event(unknown)
