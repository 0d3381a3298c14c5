"""The embeddings of an answer that is a single message, within the size that clients accept."""

from tubelet.service.errors import VideoTooLarge
from tubelet.service.types.embeddings import Embeddings, join
from tubelet.service.types.result import Event

_MAX_BYTES = 2 << 20  # of the 4 MiB that a client accepts by default; segments and thumbnails need the rest


class EmbeddingsOfAnswer:
    """Collects the embeddings among the events of a video, and drops the other events."""

    def __init__(self) -> None:
        self._parts: list[Embeddings] = []
        self._bytes = 0

    async def emit(self, event: Event) -> None:
        """Keep an event if it has embeddings.

        Raises:
            VideoTooLarge: together they are too large for one message.
        """
        if not isinstance(event, Embeddings):
            return
        self._bytes += event.size_bytes
        if self._bytes > _MAX_BYTES:
            raise VideoTooLarge(
                f"the embeddings of this video take more than {_MAX_BYTES >> 20} MiB, the limit of Classify, "
                "whose answer is one message; ClassifyStreaming sends any number of them, in parts",
                limit=_MAX_BYTES,
                value=f">={self._bytes}",
            )
        self._parts.append(event)

    def joined(self) -> Embeddings | None:
        """Return all embeddings, in the order of time; None if there were none."""
        return join(self._parts)
