"""Fair turns over real channels: one video of an identity beside many of another."""

from collections.abc import Iterator

import grpc
import pytest

from tests.support.calls import message_of
from tests.support.identities import bearer, write_identities
from tests.support.running_server import Served, Upload, serving, wait_until
from tests.support.sample_clip import panning_clip
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

MANY = 20
TABLES = "".join(
    f'[{name}]\ntoken_sha256 = ["{{{name}}}"]\nmodels = "all"\nrpcs = "all"\n' for name in ("alice", "bob")
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with one decoder, which none of these videos keeps long enough for another to stand in."""
    file = write_identities(tmp_path_factory.mktemp("turns") / "identities.toml", TABLES)
    decode = {"workers": 1, "long_video_after_s": 600.0}
    with serving(server={"access": {"identities": str(file)}}, decode=decode) as found:
        yield found


@pytest.mark.parametrize("one", ["bob", "alice"])
def test_one_video_does_not_wait_for_many_of_another_identity(served: Served, one: str) -> None:
    """It does for those of its own, which came before: so the test tells the two apart."""
    clip = panning_clip(4.0)
    with grpc.insecure_channel(served.target) as channel:
        stub = VideoClassifierStub(channel)
        uploads = [Upload(stub, metadata=bearer("alice")) for _ in range(MANY)]
        wait_until(served, "tubelet_videos_in_flight", MANY)
        for upload in uploads:
            upload.send(clip)
            upload.send(None)
        wait_until(served, "tubelet_decoders_busy", 1)
        assert stub.Classify(message_of(clip), metadata=bearer(one)).classification.segments
        answered = sum(upload.call.done() for upload in uploads)
        assert (answered < MANY / 2) == (one == "bob")
        for upload in uploads:
            assert upload.call.result(timeout=60).classification.segments
    wait_until(served, "tubelet_videos_in_flight", 0)
