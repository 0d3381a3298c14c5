"""Copies of a clip in other containers, and a comparison of their answers."""

from io import BytesIO
from tempfile import NamedTemporaryFile

import av
import pytest

from tubelet.service.types.result import Classification


def remuxed(clip: bytes, container: str, options: dict[str, str]) -> bytes:
    """Copy the packets of ``clip`` to a file of another ``container``, and return its bytes."""
    with NamedTemporaryFile() as out:  # a file on disk, because faststart reads again what it wrote
        with (
            av.open(BytesIO(clip), "r") as source,
            av.open(out.name, "w", container, container_options=options) as target,
        ):
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        return out.read()


def assert_same(answer: Classification, other: Classification) -> None:
    """Assert that two answers are equal, except for the last digits of scores, which depend on the batch."""
    assert answer.metadata == other.metadata
    assert len(answer.segments) == len(other.segments)
    for one, another in zip(answer.segments, other.segments, strict=True):
        assert (one.start_ns, one.end_ns) == (another.start_ns, another.end_ns)
        assert {each.name: each.score for each in one.labels} == pytest.approx(
            {each.name: each.score for each in another.labels}, abs=1e-4
        )
