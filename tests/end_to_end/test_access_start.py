"""The start of a server with identities, its addresses, certificates and the URIs of an identity."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.calls import message_of, options, refusal
from tests.support.certificates import Authority
from tests.support.identities import bearer, write_identities
from tests.support.running_server import serving
from tests.support.sample_clip import panning_clip
from tubelet.service.config.config import load_config
from tubelet.service.config.problems import BadConfig
from tubelet.service.server.app import open_server
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub


def start_problem(server: dict[str, Any]) -> str:
    """Why no server starts with this table."""

    async def start() -> None:
        async with open_server(load_config(server={"port": 0, "metrics_port": 0} | server)):
            pass

    with pytest.raises(BadConfig) as caught:
        asyncio.run(start())
    return str(caught.value)


def test_uris_are_those_of_the_identity(tmp_path: Path) -> None:
    tables = """
    [alice]
    token_sha256 = ["{alice}"]
    models = "all"
    rpcs = "all"
    uris = ["FOLDER/alice/"]

    [bob]
    token_sha256 = ["{bob}"]
    models = "all"
    rpcs = ["Classify"]
    """.replace("FOLDER", f"file://{tmp_path}")
    file = write_identities(tmp_path / "identities.toml", tables)
    folder = tmp_path / "alice"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(panning_clip(2.0))
    (tmp_path / "other.mp4").write_bytes(panning_clip(2.0))
    with (
        serving(
            server={"access": {"identities": str(file)}}, fetch={"allow": [f"file://{tmp_path}"]}
        ) as served,
        grpc.insecure_channel(served.target) as channel,
    ):
        stub = VideoClassifierStub(channel)
        own, other = f"file://{folder}/clip.mp4", f"file://{tmp_path}/other.mp4"
        response = stub.Classify(options(uri=own), metadata=bearer("alice"))
        assert response.classification.labels[0].name == "pan_right"
        for who, uri in (("alice", other), ("bob", own)):
            error = refusal(lambda who=who, uri=uri: stub.Classify(options(uri=uri), metadata=bearer(who)))
            assert (error.code, error.reason) == ("PERMISSION_DENIED", "URI_NOT_ALLOWED")
            assert f"{who} may not have this URI read" in error.message
        assert stub.Classify(message_of(panning_clip(2.0)), metadata=bearer("bob")).classification.labels


def test_a_file_that_others_can_read_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write_identities(tmp_path / "identities.toml")
    os.chmod(file, 0o644)
    with caplog.at_level(logging.WARNING), serving(server={"access": {"identities": str(file)}}):
        pass
    assert f"every user of this machine can read {file}" in caplog.text


def test_a_token_needs_tls_on_other_addresses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write_identities(tmp_path / "identities.toml")
    access: dict[str, Any] = {"identities": str(file)}
    assert "tokens would cross the network in the clear" in start_problem({"host": "::", "access": access})
    with (
        caplog.at_level(logging.WARNING),
        serving(server={"host": "::", "access": access | {"plain_tokens": True}}) as served,
        grpc.insecure_channel(served.target) as channel,
    ):
        VideoClassifierStub(channel).ListModels(pb.ListModelsRequest(), metadata=bearer("alice"))
    assert "no TLS on all addresses" in caplog.text
    assert "whoever reaches the ports can read along" in caplog.text
    assert "can call" not in caplog.text


def test_no_server_starts_with_a_wrong_file(tmp_path: Path) -> None:
    file = write_identities(tmp_path / "identities.toml", "[a")
    for path, said in ((file, "is not TOML"), (tmp_path / "none.toml", "No such file or directory")):
        assert said in start_problem({"host": "localhost", "access": {"identities": str(path)}})


def test_certificates_are_identities_and_a_token_beats_them(tmp_path: Path) -> None:
    file = write_identities(tmp_path / "identities.toml")
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("localhost")
    tls = {"certificate": str(pair.certificate), "key": str(pair.key), "client_ca": str(authority.ca)}
    settings = {"host": "localhost", "tls": tls, "access": {"identities": str(file)}}

    def stub_of(target: str, **names: Any) -> VideoClassifierStub:
        own = authority.issue(*names.pop("hosts", ("client.example",)), **names)
        credentials = grpc.ssl_channel_credentials(
            authority.ca.read_bytes(), own.key.read_bytes(), own.certificate.read_bytes()
        )
        return VideoClassifierStub(grpc.secure_channel(target, credentials))

    with serving(server=settings) as served:
        target = f"localhost:{served.server.port}"
        known = stub_of(target, common_name="cert.example")
        assert known.GetModel(pb.GetModelRequest(name="camera-motion")).model.name == "camera-motion"
        error = refusal(lambda: known.GetModel(pb.GetModelRequest(name="vit")))
        assert "cert.example may not use this model; it may use: camera-motion" in error.message
        by_host = stub_of(target, hosts=("cert.example",))
        assert by_host.ListModels(pb.ListModelsRequest()).models

        unknown = stub_of(target, common_name="stranger.example")
        error = refusal(lambda: unknown.ListModels(pb.ListModelsRequest()))
        assert error.code == "UNAUTHENTICATED"
        assert "this server does not know 'stranger.example'" in error.message
        assert unknown.ListModels(pb.ListModelsRequest(), metadata=bearer("alice")).models
        error = refusal(lambda: known.ListModels(pb.ListModelsRequest(), metadata=bearer("mallory")))
        assert error.code == "UNAUTHENTICATED"
