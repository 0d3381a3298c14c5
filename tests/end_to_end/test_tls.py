"""TLS over real channels: versions, mTLS, what a wrong client is told, and the ways to ask for it."""

import logging
import os
import subprocess
from pathlib import Path

import grpc
import pytest

from tests.support.certificates import PAST, Authority, self_signed
from tests.support.cli_process import tubelet
from tests.support.running_server import Served, Upload, serving
from tests.support.sample_clip import panning_clip
from tests.support.secured_server import Secured, refusal
from tubelet.service.client import AsyncClient, Client, ServerError, Tls
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub


def test_client_classifies_over_tls(secured: Secured) -> None:
    with Client(secured.target, tls=secured.tls) as client:
        assert client.classify(panning_clip(2.0)).labels[0].name == "pan_right"


async def test_async_client_classifies_over_tls(secured: Secured) -> None:
    async with AsyncClient(f"https://{secured.target}", tls=secured.tls) as client:
        assert (await client.classify(panning_clip(2.0))).labels[0].name == "pan_right"


@pytest.mark.parametrize("port", ["port", "mtls_port", "metrics_port"])
@pytest.mark.parametrize(
    ("version", "is_spoken"), [("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)]
)
def test_ports_speak_tls_1_2_and_newer(secured: Secured, port: str, version: str, is_spoken: bool) -> None:
    address = f"localhost:{getattr(secured.served.server, port)}"
    # OpenSSL itself would refuse old versions, by its configuration and at its default security level.
    command = ["openssl", "s_client", "-connect", address, version, "-cipher", "DEFAULT@SECLEVEL=0"]
    done = subprocess.run(
        [*command, "-alpn", "h2", "-CAfile", secured.authority.ca],
        input=b"",
        capture_output=True,
        env=os.environ | {"OPENSSL_CONF": os.devnull},
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert "CONNECTED" in said
    assert "no protocols available" not in said, "OpenSSL did not try"
    assert ("no peer certificate available" in said) is not is_spoken
    assert ("Verify return code: 0 (ok)" in said and "BEGIN CERTIFICATE" in said) is is_spoken


@pytest.mark.parametrize("port", ["port", "mtls_port", "metrics_port"])
@pytest.mark.parametrize(
    ("ciphers", "is_spoken"),
    [("ECDHE+AESGCM", True), ("ECDHE+SHA1", False), ("kRSA", False), ("aNULL", False), ("eNULL", False)],
)
def test_ports_refuse_weak_ciphers(secured: Secured, port: str, ciphers: str, is_spoken: bool) -> None:
    address = f"localhost:{getattr(secured.served.server, port)}"
    command = ["openssl", "s_client", "-connect", address, "-tls1_2", "-cipher", f"{ciphers}:@SECLEVEL=0"]
    done = subprocess.run(
        [*command, "-alpn", "h2"],
        input=b"",
        capture_output=True,
        env=os.environ | {"OPENSSL_CONF": os.devnull},
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert "CONNECTED" in said
    assert ("BEGIN CERTIFICATE" in said) is is_spoken
    assert ("no peer certificate available" in said) is not is_spoken


def test_plain_client_is_told_of_tls(secured: Secured) -> None:
    says = "closed the connection; if it speaks TLS, call it with --tls, and --ca FILE for its authority"
    assert refusal(secured.target, False) == f"the server at {secured.target} {says}"


def test_client_with_tls_at_a_plain_port_is_told_so(served: Served) -> None:
    says = f"the server at {served.target} does not speak TLS; call it without --tls, --ca and https://"
    assert refusal(served.target, True) == says
    assert refusal(f"https://{served.target}", None) == says


def test_unknown_authority_is_named(secured: Secured, tmp_path: Path) -> None:
    whose = f"the certificate of the server at {secured.target} is not signed by"
    other = Authority(tmp_path)
    says = "; --ca FILE names the authority that signed it"
    assert refusal(secured.target, Tls(ca=other.ca)) == f"{whose} {other.ca}{says}"
    assert refusal(secured.target, True) == f"{whose} the well-known authorities{says}"


def test_wrong_host_is_named_unless_server_name_says_which(secured: Secured) -> None:
    says = f"the certificate of the server at {secured.target} is not for other.example; call it by a name"
    wrong = Tls(ca=secured.authority.ca, server_name="other.example")
    assert refusal(secured.target, wrong).startswith(says)
    with Client(secured.served.target, tls=Tls(ca=secured.authority.ca, server_name="localhost")) as client:
        assert client.models()


def test_metrics_port_is_recognised(secured: Secured) -> None:
    target = f"localhost:{secured.served.server.metrics_port}"
    says = f"{target} speaks TLS, but not gRPC: this looks like the metrics port; the gRPC port is 8500"
    assert refusal(target, secured.tls).startswith(says)


def test_self_signed_certificate_needs_to_be_the_ca(secured: Secured, tmp_path: Path) -> None:
    pair = self_signed(tmp_path, "localhost")
    with serving(server={"tls": {"certificate": str(pair.certificate), "key": str(pair.key)}}) as served:
        target = f"localhost:{served.server.port}"
        assert "is not signed by the well-known authorities" in refusal(target, True)
        assert "is not signed by" in refusal(target, secured.tls)
        with Client(target, tls=Tls(ca=pair.certificate)) as client:
            assert client.models()


def test_mtls_port_is_for_clients_with_a_certificate(secured: Secured, known: Tls, tmp_path: Path) -> None:
    with Client(secured.mtls_target, tls=known) as client:
        assert client.models()
    with Client(secured.target, tls=known) as client:  # where nobody asks for it
        assert client.models()
    closed = f"the server at {secured.mtls_target} closed the connection; "
    says = f"{closed}if it wants a certificate of its clients, --cert and --key give one"
    assert refusal(secured.mtls_target, secured.tls) == says
    stranger = Authority(tmp_path).issue("mallory.example")
    unknown = Tls(secured.authority.ca, stranger.certificate, stranger.key)
    says = f"{closed}it may not know the authority of {stranger.certificate}, or that has expired"
    assert refusal(secured.mtls_target, unknown) == says
    expired = secured.clients.issue("bob.example", not_before=PAST, not_after=PAST.replace(month=3))
    assert refusal(
        secured.mtls_target, Tls(secured.authority.ca, expired.certificate, expired.key)
    ).startswith(closed)


def test_port_is_for_clients_with_a_certificate_alone_without_a_second_port(
    secured: Secured, known: Tls
) -> None:
    files = {"certificate": str(secured.pair.certificate), "key": str(secured.pair.key)}
    with serving(server={"tls": {**files, "client_ca": str(secured.client_ca)}}) as served:
        target = f"localhost:{served.server.port}"
        assert served.server.mtls_port is None
        assert "if it wants a certificate of its clients" in refusal(target, secured.tls)
        with Client(target, tls=known) as client:
            assert client.models()


def test_clients_count_by_the_name_in_their_certificate(secured: Secured, known: Tls) -> None:
    """Of one client, one video may be in flight; both clients call from one address."""
    other = secured.clients.issue("carol.example", common_name="carol")
    with (
        grpc.secure_channel(secured.mtls_target, _credentials(known)) as channel,
        Client(secured.mtls_target, tls=known, retries=False) as same,
        Client(
            secured.mtls_target, tls=Tls(known.ca, other.certificate, other.key), retries=False
        ) as another,
    ):
        upload = Upload(VideoClassifierStub(channel))
        while secured.metric("tubelet_videos_in_flight") < 1:
            assert not upload.call.done()
        with pytest.raises(ServerError, match="CLIENT_OVERLOADED"):
            same.classify(panning_clip(1.0))
        assert another.classify(panning_clip(1.0)).labels
        upload.send(panning_clip(1.0))
        upload.send(None)
        assert upload.call.result(timeout=60).classification.labels


def test_the_line_of_a_call_names_the_certificate(
    secured: Secured, known: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO, "tubelet.call"),
        Client(secured.mtls_target, tls=known) as own,
        Client(secured.target, tls=secured.tls) as other,
    ):
        assert own.models() == other.models()
    first, second = (each.__dict__["fields"] for each in caplog.records if each.name == "tubelet.call")
    assert first["identity"] == "alice"
    assert "identity" not in second


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    ca, key, cert = (Path(str(path)).read_bytes() for path in (tls.ca, tls.key, tls.cert))
    return grpc.ssl_channel_credentials(ca, key, cert)


def test_command_reaches_a_server_over_tls(secured: Secured, known: Tls, tmp_path: Path) -> None:
    """By flags, by the environment and by a file."""
    ca, cert, key = (str(path) for path in (known.ca, known.cert, known.key))
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(panning_clip(1.0))
    done = tubelet("classify", str(clip), "--server", secured.target, "--ca", ca)
    assert (done.returncode, "pan_right" in done.stdout) == (0, True), done.stderr
    flags = ("--tls", "--ca", ca, "--cert", cert, "--key", key, "--server-name", "localhost")
    done = tubelet("models", "list", "--server", f"127.0.0.1:{secured.served.server.mtls_port}", *flags)
    assert (done.returncode, "camera-motion" in done.stdout) == (0, True), done.stderr
    variables = {"TUBELET_CLIENT__CA": ca, "TUBELET_CLIENT__CERT": cert, "TUBELET_CLIENT__KEY": key}
    done = tubelet("models", "list", "--server", secured.mtls_target, **variables)
    assert (done.returncode, "camera-motion" in done.stdout) == (0, True), done.stderr
    config = tmp_path / "tubelet.toml"
    config.write_text(f'[client]\nca = "{ca}"\n')
    done = tubelet("models", "list", "--server", secured.target, "--config", str(config))
    assert (done.returncode, "camera-motion" in done.stdout) == (0, True), done.stderr


def test_python_client_reads_the_environment(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, served: Served
) -> None:
    monkeypatch.setenv("TUBELET_CLIENT__CA", str(secured.authority.ca))
    with Client(secured.target) as client:
        assert client.models()
    with Client(served.target, tls=False) as client:
        assert client.models()
