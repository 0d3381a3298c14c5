"""The messages of a call: the options, then the chunks of the video."""

import os
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from itertools import chain
from typing import BinaryIO

from tubelet.service.types.explanation import ExplainOptions
from tubelet.service.types.request import Options
from tubelet.service.types.uri import is_uri
from tubelet.service.wire.explanation import explain_options_to_proto
from tubelet.service.wire.options import options_to_proto
from tubelet.v1 import video_classifier_pb2 as pb

Video = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes of a file, a file open for reading, or a URI for the server to fetch (https://...)."""

_CHUNK_BYTES = 1 << 20


def requests(video: Video, options: Options) -> Iterator[pb.ClassifyRequest]:
    """Return the messages of ``Classify``: the options, then the chunks of ``video``."""
    uri, chunks = read_video(video)
    head = pb.ClassifyRequest(options=options_to_proto(options, uri))
    return chain([head], (pb.ClassifyRequest(chunk=chunk) for chunk in chunks))


def streaming_requests(video: Video, options: Options) -> Iterator[pb.ClassifyStreamingRequest]:
    """Return the messages of ``ClassifyStreaming``: the options, then the chunks of ``video``."""
    uri, chunks = read_video(video)
    head = pb.ClassifyStreamingRequest(options=options_to_proto(options, uri))
    return chain([head], (pb.ClassifyStreamingRequest(chunk=chunk) for chunk in chunks))


def explain_requests(video: Video, asked: ExplainOptions, options: Options) -> Iterator[pb.ExplainRequest]:
    """Return the messages of ``Explain``: the options, then the chunks of ``video``."""
    uri, chunks = read_video(video)
    head = pb.ExplainRequest(options=explain_options_to_proto(asked, options, uri))
    return chain([head], (pb.ExplainRequest(chunk=chunk) for chunk in chunks))


def read_video(video: Video) -> tuple[str, Iterator[bytes]]:
    """Return the URI of ``video``, or its chunks; the other one is empty.

    Raises:
        OSError: the file cannot be opened.
    """
    if isinstance(video, str) and is_uri(video):
        return video, iter(())
    return "", _chunks(video)


def _chunks(video: Video) -> Iterator[bytes]:
    """Return the chunks of ``video``. A path is opened here, so that the caller gets its errors.

    The iterator closes the file: gRPC reads it on a thread that may outlive the call for a moment.
    """
    match video:
        case bytes():
            return iter(partial(BytesIO(video).read, _CHUNK_BYTES), b"")
        case str() | os.PathLike():
            return _chunks_of_file(open(video, "rb"))
        case _:
            return iter(partial(video.read, _CHUNK_BYTES), b"")


def _chunks_of_file(file: BinaryIO) -> Iterator[bytes]:
    """Yield the chunks of ``file``, and close it."""
    with file:
        yield from iter(partial(file.read, _CHUNK_BYTES), b"")
