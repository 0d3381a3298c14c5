"""Who may call, over real channels: tokens, certificates, what an identity may do, a file that changes."""

import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.calls import message_of, options, refusal
from tests.support.identities import TABLES, TOKENS, bearer, hash_of, write_identities
from tests.support.running_server import OPTIONS, Served, serving
from tests.support.sample_clip import panning_clip
from tubelet.service.server import watched_files
from tubelet.service.wire.status import from_rpc_error
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Guarded:
    """A server that lets in those in its file, and the file."""

    served: Served
    file: Path

    def metrics(self, authorization: str | None = None, path: str = "/metrics") -> tuple[int, str]:
        """The status and the text of a page of the HTTP port."""
        headers = {} if authorization is None else {"Authorization": authorization}
        url = f"http://127.0.0.1:{self.served.server.metrics_port}{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    file = write_identities(tmp_path_factory.mktemp("access") / "identities.toml")
    access = {"identities": str(file), "metrics_token": True, "reflection": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watched_files, "_INTERVAL_S", 0.05)
        with serving(server={"access": access, "max_videos_per_client": 1}) as served:
            yield Guarded(served, file)


@pytest.fixture
def stub(guarded: Guarded) -> Iterator[VideoClassifierStub]:
    with grpc.insecure_channel(guarded.served.target) as channel:
        yield VideoClassifierStub(channel)


def until(is_so: Callable[[], bool]) -> None:
    end_s = monotonic() + 60
    while not is_so():
        assert monotonic() < end_s
        sleep(0.02)


def test_a_known_token_classifies(stub: VideoClassifierStub) -> None:
    response = stub.Classify(message_of(panning_clip(2.0)), metadata=bearer("alice"))
    assert response.classification.labels[0].name == "pan_right"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ((), "this server wants to know who calls: give a token"),
        (bearer("mallory"), "does not know the token"),
        ((("authorization", f"Bearer {TOKENS['alice'][:-1]}"),), "does not know the token"),
        ((("authorization", f"Bearer {TOKENS['alice']}x"),), "does not know the token"),
        ((("authorization", f"Bearer {hash_of(TOKENS['alice'])}"),), "does not know the token"),
        ((("authorization", f"bEARER  {TOKENS['mallory']} "),), "does not know the token"),
        ((("authorization", TOKENS["alice"]),), "must be: Bearer TOKEN"),
        ((("authorization", f"Basic {TOKENS['alice']}"),), "must be: Bearer TOKEN"),
        ((("authorization", ""),), "must be: Bearer TOKEN"),
        ((("authorization", "Bearer"),), "a token is one word"),
        ((("authorization", f"Bearer {TOKENS['alice']} {TOKENS['alice']}"),), "a token is one word"),
        ((("authorization", f"Bearer {TOKENS['alice']},{TOKENS['alice']}"),), "a token is one word"),
        ((("authorization", "Bearer " + "x" * 5_000),), "4096 characters at most; this one has 5000"),
        ((*bearer("alice"), *bearer("alice")), "came 2 times"),
        ((*bearer("alice"), *bearer("mallory")), "came 2 times"),
        ((*bearer("mallory"), *bearer("alice")), "came 2 times"),
    ],
)
def test_who_is_not_known_is_refused(stub: VideoClassifierStub, metadata: Metadata, said: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: stub.Classify(message_of(b"not read"), metadata=metadata),
        lambda: list(stub.ClassifyStreaming(iter(()), metadata=metadata)),
        lambda: list(stub.Explain(iter(()), metadata=metadata)),
        lambda: stub.ListModels(pb.ListModelsRequest(), metadata=metadata),
        lambda: stub.GetModel(pb.GetModelRequest(name="camera-motion"), metadata=metadata),
    ]
    for call in calls:
        error = refusal(call)
        assert (error.code, error.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        assert said in error.message
        assert TOKENS["alice"][:20] not in str(error)


def test_a_token_of_a_megabyte_is_refused(stub: VideoClassifierStub) -> None:
    """GRPC itself refuses metadata of more than 16 KiB, and some from 8 KiB on."""
    metadata = (("authorization", "Bearer " + "x" * (1 << 20)),)
    error = refusal(lambda: stub.ListModels(pb.ListModelsRequest(), metadata=metadata))
    assert error.code in ("RESOURCE_EXHAUSTED", "UNAVAILABLE")
    stub.ListModels(pb.ListModelsRequest(), metadata=bearer("alice"))


def test_nothing_of_an_upload_is_read_before_its_token(guarded: Guarded, stub: VideoClassifierStub) -> None:
    """The answer comes although the client has sent no message."""
    forever = threading.Event()

    def never() -> Iterator[pb.ClassifyRequest]:
        forever.wait(60)
        yield from ()

    try:
        call = stub.Classify.future(never(), metadata=bearer("mallory"))
        assert call.code() is grpc.StatusCode.UNAUTHENTICATED
    finally:
        forever.set()
    _, text = guarded.metrics(f"Bearer {TOKENS['prometheus']}")
    assert "tubelet_videos_in_flight 0.0" in text
    assert 'tubelet_rejected_requests_total{reason="UNAUTHENTICATED"}' in text


def test_an_identity_calls_only_its_rpcs(stub: VideoClassifierStub) -> None:
    error = refusal(lambda: list(stub.ClassifyStreaming(iter(()), metadata=bearer("narrow"))))
    assert (error.code, error.reason) == ("PERMISSION_DENIED", "RPC_NOT_ALLOWED")
    assert error.message == "narrow may not call ClassifyStreaming"
    stub.ListModels(pb.ListModelsRequest(), metadata=bearer("narrow"))


@pytest.mark.parametrize("name", ["", "camera-motion", "nobody"])
def test_an_identity_uses_only_its_models(stub: VideoClassifierStub, name: str) -> None:
    who = bearer("narrow")
    for error in (
        refusal(lambda: stub.Classify(options(model=name), metadata=who)),
        refusal(lambda: stub.GetModel(pb.GetModelRequest(name=name), metadata=who)),
    ):
        assert (error.code, error.reason) == ("PERMISSION_DENIED", "MODEL_NOT_ALLOWED")
        assert error.message == "narrow may not use this model; it may use: vit:9"


def test_an_identity_learns_nothing_of_models_that_it_may_not_use(stub: VideoClassifierStub) -> None:
    assert not stub.ListModels(pb.ListModelsRequest(), metadata=bearer("narrow")).models
    assert stub.ListModels(pb.ListModelsRequest(), metadata=bearer("alice")).models
    asked = pb.GetModelRequest(name="vit", version="9")
    error = refusal(lambda: stub.GetModel(asked, metadata=bearer("narrow")))
    assert (error.code, error.reason) == ("NOT_FOUND", "UNKNOWN_MODEL")
    assert "camera-motion" not in error.message
    error = refusal(lambda: stub.GetModel(asked, metadata=bearer("alice")))
    assert "camera-motion" in error.message


def test_health_is_open_and_reflection_is_off(guarded: Guarded) -> None:
    with grpc.insecure_channel(guarded.served.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        assert refusal(lambda: list(reflection.ServerReflectionInfo(iter([ask])))).code == "UNIMPLEMENTED"


def test_videos_in_flight_count_by_identity(guarded: Guarded, stub: VideoClassifierStub) -> None:
    """Both come from one address; ``max_videos_per_client`` is 1."""
    hanging = threading.Event()

    def upload() -> Iterator[pb.ClassifyRequest]:
        yield OPTIONS
        hanging.wait(60)

    first = stub.Classify.future(upload(), metadata=bearer("alice"))
    authorization = f"Bearer {TOKENS['prometheus']}"
    until(lambda: "tubelet_videos_in_flight 1.0" in guarded.metrics(authorization)[1])
    try:
        error = refusal(lambda: stub.Classify(options(), metadata=bearer("alice")))
        assert error.reason == "CLIENT_OVERLOADED"
        error = refusal(lambda: stub.Classify(options(), metadata=bearer("narrow")))
        assert error.reason == "MODEL_NOT_ALLOWED"
    finally:
        first.cancel()
        hanging.set()
    until(lambda: "tubelet_videos_in_flight 0.0" in guarded.metrics(authorization)[1])


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        (f"Bearer {TOKENS['mallory']}", 401),
        (f"Basic {TOKENS['prometheus']}", 401),
        (f"Bearer {TOKENS['prometheus']},Bearer {TOKENS['prometheus']}", 401),
        (f"Bearer {TOKENS['alice']}", 403),
        (f"Bearer {TOKENS['prometheus']}", 200),
        (f"bearer {TOKENS['prometheus']}", 200),
    ],
)
def test_metrics_ask_for_a_token_but_probes_do_not(
    guarded: Guarded, authorization: str | None, status: int
) -> None:
    found, text = guarded.metrics(authorization)
    assert found == status
    assert ("tubelet_ready 1.0" in text) is (status == 200)
    assert not any(token in text for token in TOKENS.values())
    for path in ("/healthz", "/readyz"):
        assert guarded.metrics(authorization, path)[0] == 200


def test_metrics_refuse_a_header_that_comes_twice(guarded: Guarded) -> None:
    connection = HTTPConnection("127.0.0.1", guarded.served.server.metrics_port, timeout=60)
    connection.putrequest("GET", "/metrics")
    for name in ("mallory", "prometheus"):
        connection.putheader("Authorization", f"Bearer {TOKENS[name]}")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


def test_metrics_survive_a_header_of_a_megabyte(guarded: Guarded) -> None:
    """The server answers 431, or has closed the connection before the client could send it all."""
    with suppress(OSError):
        assert guarded.metrics("Bearer " + "x" * (1 << 20))[0] == 431
    assert guarded.metrics(f"Bearer {TOKENS['prometheus']}")[0] == 200


def test_a_changed_file_is_used_and_a_wrong_one_is_not(
    guarded: Guarded, stub: VideoClassifierStub, caplog: pytest.LogCaptureFixture
) -> None:
    def code(name: str) -> str:
        try:
            stub.ListModels(pb.ListModelsRequest(), metadata=bearer(name))
        except grpc.RpcError as error:
            return from_rpc_error(error, "server").code
        return "OK"

    def reload_failed() -> bool:
        metrics = guarded.metrics(f"Bearer {TOKENS['prometheus']}")[1]
        return "tubelet_identities_reload_failed 1.0" in metrics

    assert (code("alice"), code("mallory")) == ("OK", "UNAUTHENTICATED")
    for wrong in ("", TABLES[: len(TABLES) // 2].replace("{alice}", "").replace("{narrow}", "no-hash"), "[a"):
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            write_identities(guarded.file, wrong)
            until(reload_failed)
        assert [each.levelname for each in caplog.records] == ["ERROR"]
        assert "the identities in use stay: server.access.identities:" in caplog.text
        assert "no-hash" not in caplog.text
        assert (code("alice"), code("mallory")) == ("OK", "UNAUTHENTICATED")
        write_identities(guarded.file)
        until(lambda: not reload_failed())
    guarded.file.unlink()
    until(reload_failed)
    assert code("alice") == "OK"
    write_identities(guarded.file, TABLES.replace("{alice}", "{mallory}"))
    until(lambda: code("mallory") == "OK")
    assert code("alice") == "UNAUTHENTICATED"
    write_identities(guarded.file)
    until(lambda: code("alice") == "OK")
    assert code("mallory") == "UNAUTHENTICATED"
