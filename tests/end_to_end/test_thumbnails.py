"""Thumbnails over a real channel: both calls, both clients, and within what any client takes."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from tests.support.running_server import Served
from tests.support.videos import render
from tubelet.service.client import AsyncClient, Client, ServerError
from tubelet.service.types.request import Options, Views, WholeVideo
from tubelet.service.types.result import Classification
from tubelet.service.types.video import MAX_THUMBNAILS, NS_PER_S
from tubelet.v1 import classification_pb2, video_classifier_pb2
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub


async def test_both_clients_and_calls_return_the_same_thumbnails(
    served: Served, client: Client, sample: bytes
) -> None:
    options = Options(thumbnails=7)
    answer = client.classify(sample, options)
    assert len(answer.thumbnails) == 7
    for thumbnail in answer.thumbnails:
        assert Image.open(BytesIO(thumbnail.jpeg)).size == (thumbnail.width, thumbnail.height) == (160, 90)
    assert answer.thumbnails[-1].time_s > 12
    streamed = list(client.stream(sample, options))[-1]
    assert isinstance(streamed, Classification)
    assert streamed.thumbnails == answer.thumbnails
    async with AsyncClient(served.target) as other:
        assert (await other.classify(sample, options)).thumbnails == answer.thumbnails


def test_thumbnails_change_nothing_else(client: Client, sample: bytes) -> None:
    plain, with_them = client.classify(sample), client.classify(sample, Options(thumbnails=60))
    assert plain.thumbnails == ()
    assert plain.segments == with_them.segments
    of_call = {"stage_seconds": {}, "request_id": ""}  # differ from call to call
    assert replace(with_them, thumbnails=(), **of_call) == replace(plain, **of_call)


@pytest.mark.parametrize(
    "options",
    [
        Options(windowing=Views(3, 3)),
        Options(windowing=WholeVideo()),
        Options(fast=True),
        Options(ranges_ns=((2 * NS_PER_S, 4 * NS_PER_S), (6 * NS_PER_S, 7 * NS_PER_S))),
    ],
    ids=lambda options: type(options.windowing).__name__ + "-fast" * options.fast,
)
def test_every_kind_of_request_has_thumbnails(client: Client, sample: bytes, options: Options) -> None:
    answer = client.classify(sample, replace(options, thumbnails=6))
    times = [thumbnail.time_ns for thumbnail in answer.thumbnails]
    assert len(times) == 6
    assert times == sorted(set(times))
    ranges = options.ranges_ns or ((0, answer.metadata.duration_ns),)
    assert all(any(start <= time < end for start, end in ranges) for time in times)


def test_too_many_are_refused_with_the_limit(client: Client, sample: bytes) -> None:
    with pytest.raises(ServerError, match="61 thumbnails were requested; 0 to 60 are possible") as refused:
        client.classify(sample, Options(thumbnails=61))
    assert (refused.value.code, refused.value.reason) == ("INVALID_ARGUMENT", "MALFORMED_OPTION")


def test_largest_answer_fits_into_the_message_that_clients_take(served: Served, tmp_path: Path) -> None:
    """gRPC's clients take 4 MiB unless told otherwise; pictures of noise are the largest."""
    noise = np.random.default_rng(0)
    path = render(
        tmp_path / "noise.mp4",
        100,
        size=(160, 160),
        options={"qp": "20"},
        draw=lambda _: noise.integers(0, 2, (160, 160, 3), np.uint8) * 255,
    )
    options = classification_pb2.ClassifyOptions(thumbnails=MAX_THUMBNAILS)
    requests = [
        video_classifier_pb2.ClassifyRequest(options=options),
        video_classifier_pb2.ClassifyRequest(chunk=path.read_bytes()),
    ]
    with grpc.insecure_channel(served.target) as channel:
        answer = VideoClassifierStub(channel).Classify(iter(requests)).classification
    assert len(answer.thumbnails) == MAX_THUMBNAILS
    assert 400_000 < answer.ByteSize() < 1 << 20
