"""A call in flight, and its line in the log: who called, what came in, how it ended, where the time went."""

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar
from urllib.parse import unquote

import grpc

from tubelet.models.spec import ModelSpec
from tubelet.service.config.identities import Identity, unrestricted
from tubelet.service.log.lines import Fields
from tubelet.service.metrics import RequestTimings
from tubelet.service.rpc.request_stream import Context
from tubelet.service.types.result import Classification
from tubelet.service.types.video import STAGES, VideoMetadata

logger = logging.getLogger("tubelet.call")
logger.addHandler(logging.NullHandler())  # else Python prints warnings where nobody has set up a log

E = TypeVar("E")

_LEVELS = {grpc.StatusCode.OK: logging.INFO, grpc.StatusCode.INTERNAL: logging.ERROR}  # others: WARNING
_DIGITS = 4  # of times and scores, after the point


@dataclass(slots=True)
class Call:
    """A call in flight; what its line says is set as it becomes known."""

    method: str
    context: Context
    request_id: str
    identity: Identity = field(default_factory=unrestricted)
    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""
    quota: str = ""
    spec: ModelSpec | None = None
    timings: RequestTimings | None = None
    metadata: VideoMetadata | None = None
    answer: Classification | None = None
    started: float = field(default_factory=monotonic)

    @property
    def model(self) -> str:
        """The name of the model, which is its label in the metrics; empty until the model is known."""
        return self.spec.name if self.spec else ""

    @property
    def has_bytes(self) -> bool:
        """Whether bytes of the video have arrived."""
        return self.timings is not None and self.timings.arrived.bytes > 0

    def note_metadata(self, emit: Callable[[E], Awaitable[None]]) -> Callable[[E], Awaitable[None]]:
        """Return a function that keeps the video's metadata, and hands all events to ``emit``."""

        async def note(event: E) -> None:
            """Keep the metadata, then emit the event."""
            if isinstance(event, VideoMetadata):
                self.metadata = event
            await emit(event)

        return note

    def log(self, sample: float) -> None:
        """Write the line of the call, which has ended; of successes, only the share ``sample``."""
        level = _LEVELS.get(self.code, logging.WARNING)
        is_chosen = self.code != grpc.StatusCode.OK or random.random() < sample
        if is_chosen and logger.isEnabledFor(level):
            logger.log(level, "call", extra={"fields": self._fields()})

    def _fields(self) -> Fields:
        """Return the fields of the line: those that are known."""
        fields: dict[str, str | float] = {
            "rpc": self.method,
            "code": self.code.name,
            "reason": self.reason,
            "quota": self.quota,
            "seconds": round(monotonic() - self.started, _DIGITS),
            "request_id": self.request_id,
            "identity": self.identity.name,
            "peer": unquote(self.context.peer()),
            "model": self.model,
            "version": self.spec.version if self.spec else "",
        }
        fields |= _of_video(self.answer.metadata if self.answer else self.metadata)
        fields |= _of_request(self.timings)
        if self.answer and self.answer.labels:
            best = self.answer.labels[0]
            fields |= {"label": best.name, "score": round(best.score, _DIGITS)}
        return {key: value for key, value in fields.items() if value != ""}


def _of_video(metadata: VideoMetadata | None) -> Fields:
    """Return the fields of a video's metadata."""
    if metadata is None:
        return {}
    return {
        "container": metadata.container,
        "codec": metadata.codec,
        "width": metadata.width,
        "height": metadata.height,
        "video_s": round(metadata.duration_s, _DIGITS),
    }


def _of_request(timings: RequestTimings | None) -> Fields:
    """Return the bytes of a video, what identifies them, its windows, and the seconds of each stage."""
    if timings is None:
        return {}
    arrived, seconds = timings.arrived, timings.seconds
    return {
        "bytes": arrived.bytes,
        "digest": arrived.digest,
        "etag": arrived.etag,
        "windows": timings.windows,
        **{f"{stage}_s": round(seconds[stage], _DIGITS) for stage in STAGES if stage in seconds},
    }
