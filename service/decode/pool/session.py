"""The decode session: what a request uses of the pool, one worker process for one video."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from tubelet.models.spec import Preprocessing
from tubelet.service.decode.pool.decode_run import split_by_memory
from tubelet.service.decode.pool.worker_process import WorkerProcess
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import DecodeSummary, Thumbnail, UnitFrames, VideoFile, VideoMetadata


class DecodeSession:
    """One request's exclusive use of a worker process, for one video: probe it, then decode it.

    ``end`` is None until ``decode`` has yielded its last unit.
    """

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._is_probed = False
        self.end: DecodeSummary | None = None

    @property
    def knows_key_frames(self) -> bool:
        """Whether the right frames come from any key frame on, all of which the probe has found, and many."""
        return self._process.knows_key_frames

    async def probe(self, file: VideoFile, *, header_only: bool = False) -> VideoMetadata:
        """Return the metadata of the video in ``file``, whose descriptor's offset is neither used nor moved.

        By default, the worker reads all packets first. With ``header_only``, it trusts the file's header and
        waits for no more bytes than the header takes; use that with an unbounded plan. A second probe begins
        anew, also in the middle of decoding.

        Raises:
            NotAVideo, UnsupportedVideo, NoVideoStream, CorruptVideo, VideoTooLarge, DecoderCrashed, or any
            error that ``file`` raises.
        """
        if self._is_probed:
            await self._process.end_session()
        self._is_probed = True
        return await self._process.probe(file, header_only=header_only)

    async def decode(
        self, plan: Plan, preprocessing: Preprocessing, *, fast: bool = False, thumbnails: int = 0
    ) -> AsyncIterator[UnitFrames]:
        """Yield the units of ``plan`` as they are decoded; the caller releases each of them.

        The worker waits while no slot of the shared memory is free. A plan whose units overlap so much that
        they do not fit into that memory is decoded in several passes. If the video ends earlier than the
        probe said, the units stop where ``plan.cut(end.end_ns)`` stops. ``fast`` uses key frames near the
        planned times instead of exact frames, and skips the codec's loop filter. ``end`` has at most
        ``thumbnails`` of the frames, spread evenly over the plan.

        Raises:
            CorruptVideo, UnsupportedVideo, VideoTooLarge, DecoderCrashed.
        """
        self.end = None
        ends: list[DecodeSummary] = []
        parts = list(split_by_memory(plan, preprocessing, self._process.config.shared_memory_bytes))
        shares = _shares(thumbnails, [part.num_frames for _, part in parts])
        for (first, part), share in zip(parts, shares, strict=True):
            if ends and ends[-1].end_ns <= part.grids[0].first_ns:
                break
            self._process.decode(part, preprocessing, fast=fast, thumbnails=share)
            while isinstance(found := await self._process.next_unit(), UnitFrames):
                yield replace(found, grid=first + found.grid) if first else found
            ends.append(found)
        self.end = join_summaries(ends)


def join_summaries(ends: Sequence[DecodeSummary]) -> DecodeSummary:
    """Return the summary of a plan whose parts were decoded one by one, from theirs."""
    return DecodeSummary(
        end_ns=min(end.end_ns for end in ends),
        frames_decoded=sum(end.frames_decoded for end in ends),
        warnings=tuple(dict.fromkeys(warning for end in ends for warning in end.warnings)),
        metadata=ends[-1].metadata,
        max_frame_offset_ns=max(end.max_frame_offset_ns for end in ends),
        thumbnails=_in_order(thumbnail for end in ends for thumbnail in end.thumbnails),
    )


def _shares(number: int, weights: Sequence[int]) -> list[int]:
    """Divide ``number`` by ``weights`` into whole shares, spread evenly; their sum is ``number``."""
    bounds = [number * weight // sum(weights) for weight in accumulate(weights, initial=0)]
    return [after - before for before, after in pairwise(bounds)]


def _in_order(thumbnails: Iterable[Thumbnail]) -> tuple[Thumbnail, ...]:
    """Return the thumbnails of parts of a plan in the order of time, one for each time."""
    by_time = {thumbnail.time_ns: thumbnail for thumbnail in thumbnails}
    return tuple(by_time[time_ns] for time_ns in sorted(by_time))
