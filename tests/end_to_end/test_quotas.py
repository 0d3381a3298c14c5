"""Quotas over real channels: what the client is told, what counts, and a file that changes."""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic, sleep

import grpc
import numpy as np
import pytest

from tests.support.calls import message_of, options, refusal
from tests.support.http_server import Answer, Site, as_a_whole, by_ranges, site
from tests.support.identities import hash_of
from tests.support.running_server import Served, Upload, serving, wait_until
from tests.support.sample_clip import encode, panning_clip
from tubelet.service.client import Client, ServerError
from tubelet.service.log.lines import TextLines
from tubelet.service.server import watched_files
from tubelet.service.types.result import Classification
from tubelet.v1 import classification_pb2
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

# Each test has an identity of its own, so that none uses up the quota of another.
QUOTAS = {
    "plain": "",
    "one-by-one": "videos_in_flight = 1",
    "often": "videos_per_minute = 2",
    "soon": "videos_per_minute = 30",
    "upload": "bytes_per_day = 1_000_000",
    "ranges": "bytes_per_day = 100_000",
    "whole": "bytes_per_day = 100_000",
    "device": "device_seconds_per_hour = 1",
    "nothing": "videos_per_minute = 0",
    "humble": 'highest_priority = "low"',
    "changing": "videos_per_minute = 1",
}


def token(name: str) -> str:
    return f"tubelet_{name}-{'x' * 40}"


def bearer(name: str) -> tuple[tuple[str, str]]:
    return (("authorization", f"Bearer {token(name)}"),)


def write(file: Path, quotas: dict[str, str]) -> None:
    """Replace the file of identities at once."""
    all_of = 'models = "all"\nrpcs = "all"\nuris = "all"\n'
    tables = (
        f'[{name}]\ntoken_sha256 = ["{hash_of(token(name))}"]\n{all_of}{each}\n'
        for name, each in quotas.items()
    )
    new = file.with_suffix(".new")
    new.write_text("\n".join(tables))
    new.replace(file)


@dataclass(frozen=True, slots=True)
class Limited:
    """A server with quotas, their file, and a web server whose videos it may fetch."""

    served: Served
    file: Path
    web: Site

    def client(self, name: str, *, retries: bool = False) -> Client:
        return Client(self.served.target, token=token(name), retries=retries)

    def error(self, name: str) -> ServerError:
        """The error of a video of this identity, which must fail."""
        with self.client(name) as client, pytest.raises(ServerError) as caught:
            client.classify(panning_clip(1.0))
        return caught.value


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    file = tmp_path_factory.mktemp("quotas") / "identities.toml"
    write(file, QUOTAS)
    server = {"access": {"identities": str(file)}, "retry_after_s": 0.5}
    with site() as web, pytest.MonkeyPatch.context() as patch:
        patch.setattr(watched_files, "_INTERVAL_S", 0.05)
        fetch = {"allow": [web.url], "allowed_private_networks": ["127.0.0.1/32"], "block_bytes": 16 << 10}
        with serving(server=server, fetch=fetch) as served:
            yield Limited(served, file, web)


@pytest.fixture
def stub(limited: Limited) -> Iterator[VideoClassifierStub]:
    with grpc.insecure_channel(limited.served.target) as channel:
        yield VideoClassifierStub(channel)


def is_admitted(client: Client) -> bool:
    """Whether a video has no quota against it."""
    try:
        client.classify(panning_clip(1.0))
    except ServerError as error:
        return error.reason != "QUOTA_EXCEEDED"
    return True


def wait_for(is_so: Callable[[], bool]) -> None:
    end_s = monotonic() + 60
    while not is_so():
        assert monotonic() < end_s
        sleep(0.02)


def test_videos_in_flight(limited: Limited, stub: VideoClassifierStub) -> None:
    first = Upload(stub, metadata=bearer("one-by-one"))
    first.send(panning_clip(1.0))
    wait_until(limited.served, "tubelet_videos_in_flight", 1)
    error = limited.error("one-by-one")
    assert (error.code, error.reason, error.retry_after_s) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", 0.5)
    assert error.message == (
        "1 videos of one-by-one are in flight, its quota videos_in_flight is 1; try again in 0.5 s"
    )
    with limited.client("plain") as other:
        assert other.classify(panning_clip(1.0)).segments
    first.send(None)
    assert first.call.result().classification.segments
    wait_until(limited.served, "tubelet_videos_in_flight", 0)
    with limited.client("one-by-one") as client:
        assert client.classify(panning_clip(1.0)).segments


def lines(caplog: pytest.LogCaptureFixture, identity: str) -> list[str]:
    """The lines of the calls of an identity."""
    found = (TextLines().format(record) for record in caplog.records if record.name == "tubelet.call")
    return [line for line in found if f" identity={identity} " in line]


def test_videos_a_minute(limited: Limited, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tubelet.call")
    with limited.client("often") as client:
        for _ in range(2):
            client.classify(panning_clip(1.0))
    rejected = limited.served.metric("tubelet_rejected_requests_total", reason="QUOTA_EXCEEDED")
    error = limited.error("often")
    assert error.reason == "QUOTA_EXCEEDED"
    assert error.retry_after_s is not None
    assert 10 < error.retry_after_s <= 30
    assert error.message.startswith("often has used 2 of its quota videos_per_minute of 2; try again in ")
    assert error.metadata == {"quota": "videos_per_minute", "limit": "2", "value": "2"}
    assert limited.served.metric("tubelet_rejected_requests_total", reason="QUOTA_EXCEEDED") == rejected + 1
    labels = {"identity": "often", "quota": "videos_per_minute"}
    assert limited.served.metric("tubelet_quota_exceeded_total", **labels) == 1
    said = "reason=QUOTA_EXCEEDED quota=videos_per_minute"
    wait_for(lambda: any(said in line for line in lines(caplog, "often")))


def test_the_python_client_waits_for_a_quota_that_is_soon_free(limited: Limited) -> None:
    """Two seconds after all of a minute were used up, by calls without a video."""
    refused = 0
    with limited.client("soon") as client:
        while not refused:
            with pytest.raises(ServerError) as caught:
                client.classify(b"")
            refused += caught.value.reason == "QUOTA_EXCEEDED"
    with limited.client("soon", retries=True) as client:
        assert client.classify(panning_clip(1.0)).segments


def test_an_upload_ends_in_the_middle(
    limited: Limited, stub: VideoClassifierStub, caplog: pytest.LogCaptureFixture
) -> None:
    """After a megabyte, not at its end, which never comes."""
    caplog.set_level(logging.INFO, "tubelet.call")
    failed = limited.served.metric("tubelet_failed_requests_total", reason="QUOTA_EXCEEDED")
    upload = Upload(stub, metadata=bearer("upload"))
    upload.send(panning_clip(2.0))
    for _ in range(21):
        upload.send(b"\0" * 50_000)
    error = refusal(upload.call.result)
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert error.message.startswith("upload has used up its quota bytes_per_day of 1000000, when 10")
    assert 1_000_000 < int(error.metadata["value"]) <= 1_050_000
    assert error.retry_after_s is None or error.retry_after_s > 3600
    assert limited.served.metric("tubelet_failed_requests_total", reason="QUOTA_EXCEEDED") == failed + 1
    arrived = re.search(r"when (\d+) bytes of this video", error.message)
    assert arrived
    wait_for(lambda: bool(lines(caplog, "upload")))
    assert f" bytes={arrived[1]} " in lines(caplog, "upload")[0]
    assert limited.error("upload").metadata["quota"] == "bytes_per_day"


@pytest.mark.parametrize(("name", "answer"), [("ranges", by_ranges), ("whole", as_a_whole)])
def test_fetched_bytes_count(limited: Limited, name: str, answer: Callable[[bytes], Answer]) -> None:
    clip, url = noisy_clip(), f"{limited.web.url}/{name}"
    assert len(clip) > 200_000
    limited.web.answers[f"/{name}"] = answer(clip)
    with limited.client("plain") as client:
        assert client.classify(url).fetched_bytes == len(clip)
    with limited.client(name) as client, pytest.raises(ServerError) as caught:
        client.classify(url)
    assert caught.value.reason == "QUOTA_EXCEEDED"
    assert caught.value.metadata["quota"] == "bytes_per_day"
    assert 100_000 < int(caught.value.metadata["value"]) <= len(clip)


def noisy_clip(seed: int = 0) -> bytes:
    """A clip without a frame that was seen before, so that the device computes each unit."""
    chance = np.random.default_rng(seed)
    return encode(
        (chance.integers(0, 256, (90, 160, 3), np.uint8) for _ in range(40)), fps=10, preset="ultrafast"
    )


def test_device_seconds_delay_the_next_video(limited: Limited) -> None:
    """A second an hour is so little that one video uses it up; it is answered all the same."""
    answers: list[Classification] = []
    with limited.client("device") as client, pytest.raises(ServerError) as caught:
        answers.extend(client.classify(noisy_clip(seed)) for seed in count())
    used_s = sum(sum(answer.stage_seconds[stage] for stage in ("encode", "classify")) for answer in answers)
    assert caught.value.metadata["quota"] == "device_seconds_per_hour"
    assert used_s > 0.99
    assert float(caught.value.metadata["value"]) == pytest.approx(used_s, abs=1)


def test_a_quota_of_zero(limited: Limited) -> None:
    error = limited.error("nothing")
    assert (error.reason, error.retry_after_s) == ("QUOTA_EXCEEDED", None)
    assert error.message == "nothing may send no videos: its quota videos_per_minute is 0"
    with limited.client("nothing") as client:
        assert client.models()


def test_the_highest_priority(limited: Limited, stub: VideoClassifierStub) -> None:
    error = refusal(
        lambda: stub.Classify(options(priority=classification_pb2.PRIORITY_HIGH), metadata=bearer("humble"))
    )
    assert (error.code, error.reason) == ("PERMISSION_DENIED", "PRIORITY_NOT_ALLOWED")
    assert error.message == "humble may not ask for priority high; its quota highest_priority is low"
    assert stub.Classify(message_of(panning_clip(1.0)), metadata=bearer("humble")).classification.segments


def test_a_changed_file_keeps_what_was_counted(limited: Limited) -> None:
    with limited.client("changing") as client:
        client.classify(panning_clip(1.0))
        assert limited.error("changing").metadata == {
            "quota": "videos_per_minute",
            "limit": "1",
            "value": "1",
        }
        write(limited.file, QUOTAS | {"changing": "videos_per_minute = 2"})
        wait_for(lambda: is_admitted(client))
        assert limited.error("changing").metadata["limit"] == "2"


def test_an_identity_may_be_removed_while_its_call_runs(limited: Limited, stub: VideoClassifierStub) -> None:
    upload = Upload(stub, metadata=bearer("plain"))
    upload.send(panning_clip(1.0))
    wait_until(limited.served, "tubelet_videos_in_flight", 1)
    write(limited.file, {name: each for name, each in QUOTAS.items() if name != "plain"})
    ask = partial(stub.Classify, options(model="none"), metadata=bearer("plain"))
    wait_for(lambda: refusal(ask).code == "UNAUTHENTICATED")
    upload.send(None)
    assert upload.call.result().classification.segments
    write(limited.file, QUOTAS)
