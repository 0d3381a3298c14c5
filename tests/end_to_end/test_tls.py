"""TLS over real channels: versions, mTLS, certificates that change under load, errors of clients."""

import os
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.certificates import PAST, Authority, Pair, encrypted, self_signed
from tests.support.cli_process import tubelet
from tests.support.running_server import Served, Upload, serving
from tests.support.sample_clip import panning_clip
from tubelet.service.client import AsyncClient, Client, ServerError, Tls
from tubelet.service.server import tls as server_tls
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub


@dataclass(frozen=True, slots=True)
class Secured:
    """A server with TLS and, on a second port, mTLS; and the files that it reads."""

    served: Served
    authority: Authority
    clients: Authority
    pair: Pair
    client_ca: Path

    @property
    def target(self) -> str:
        return f"localhost:{self.served.server.port}"

    @property
    def mtls_target(self) -> str:
        return f"localhost:{self.served.server.mtls_port}"

    @property
    def tls(self) -> Tls:
        """What a client without a certificate needs."""
        return Tls(ca=self.authority.ca)

    def serial(self) -> int:
        """The serial number of the certificate that the gRPC port shows."""
        return self._serial_at(self.served.server.port)

    def http_serial(self) -> int:
        """The serial number of the certificate that the metrics port shows."""
        return self._serial_at(self.served.server.metrics_port)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of ``name`` that have these labels, by a scrape over TLS."""
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        url = f"https://localhost:{self.served.server.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=60, context=context) as response:
            text = response.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    @staticmethod
    def _serial_at(port: int) -> int:
        found = subprocess.run(
            ["openssl", "x509", "-noout", "-serial"],
            input=ssl.get_server_certificate(("localhost", port)),
            capture_output=True,
            text=True,
            check=True,
        )
        return int(found.stdout.removeprefix("serial="), 16)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    authority, clients = Authority(folder / "server"), Authority(folder / "clients")
    pair, client_ca = authority.issue("localhost", "127.0.0.1"), folder / "client-ca.pem"
    client_ca.write_bytes(clients.ca.read_bytes())
    files = {"certificate": str(pair.certificate), "key": str(pair.key), "client_ca": str(client_ca)}
    settings = {"tls": files, "mtls_port": 0, "max_videos_per_client": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_tls, "_INTERVAL_S", 0.05)
        with serving(server=settings) as served:
            yield Secured(served, authority, clients, pair, client_ca)


@pytest.fixture
def known(secured: Secured) -> Tls:
    """What a client with a certificate needs."""
    own = secured.clients.issue("alice.example", common_name="alice")
    return Tls(secured.authority.ca, own.certificate, own.key)


def refusal(target: str, tls: Tls | bool | None) -> str:
    """What a client is told that cannot connect."""
    with Client(target, tls=tls) as client, pytest.raises(ServerError) as caught:
        client.models()
    assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "SERVER_UNREACHABLE")
    return caught.value.message


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


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    ca, key, cert = (Path(str(path)).read_bytes() for path in (tls.ca, tls.key, tls.cert))
    return grpc.ssl_channel_credentials(ca, key, cert)


def test_certificate_changes_under_load_without_a_lost_call(secured: Secured) -> None:
    """New connections all the time, and one call that is older than all changes."""
    stop, answered, failures = threading.Event(), [0], list[Exception]()

    def call() -> None:
        while not stop.is_set():
            try:
                with Client(secured.target, retries=False, tls=secured.tls) as client:
                    client.models()
                answered[0] += 1
            except Exception as error:
                failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(4)]
    with grpc.secure_channel(secured.target, _ca_credentials(secured)) as channel:
        upload = Upload(VideoClassifierStub(channel))
        for caller in callers:
            caller.start()
        try:
            for _ in range(10):
                before, answers = secured.serial(), answered[0]
                secured.pair.replace_by(secured.authority.issue("localhost", "127.0.0.1"))
                while secured.serial() == before or answered[0] < answers + 4:
                    time.sleep(0.01)
        finally:
            stop.set()
            for caller in callers:
                caller.join()
        upload.send(panning_clip(1.0))
        upload.send(None)
        assert upload.call.result(timeout=60).classification.labels
    assert failures == []
    assert secured.serial() == secured.http_serial()


def _ca_credentials(secured: Secured) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(secured.authority.ca.read_bytes())


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("half written", "server.tls.key: PATH holds no private key in PEM form, or only a part of one"),
        ("other key", "server.tls.key: PATH does not belong to the certificate"),
        ("encrypted", "server.tls.key: PATH is encrypted: give it without a passphrase"),
        ("expired", "server.tls.certificate: PATH expired at 2020-03-01 00:00 UTC; renew it"),
        ("gone", "server.tls.key: cannot read PATH: No such file or directory"),
    ],
)
def test_wrong_files_leave_the_old_certificate_in_use(
    secured: Secured, fault: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    pair, serial = secured.pair, secured.serial()
    path = pair.certificate if fault == "expired" else pair.key
    right = path.read_bytes()
    match fault:
        case "half written":
            _put(right[: len(right) // 2], path)
        case "other key":
            _put(secured.authority.issue("localhost").key.read_bytes(), path)
        case "encrypted":
            os.replace(encrypted(path), path)
        case "expired":
            past = secured.authority.issue("localhost", not_before=PAST, not_after=PAST.replace(month=3))
            _put(past.certificate.read_bytes(), path)
        case _:
            path.unlink()
    while not secured.metric("tubelet_certificate_reload_failed"):
        pass
    assert secured.serial() == secured.http_serial() == serial
    with Client(secured.target, tls=secured.tls) as client:
        assert client.models()
    _put(right, path)
    while secured.metric("tubelet_certificate_reload_failed"):
        pass
    (error,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert error.message.startswith("the certificate in use stays: " + says.replace("PATH", str(path)))


def _put(content: bytes, path: Path) -> None:
    """Replace a file in one step: a half of it would be a fault of its own."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.replace(new, path)


def test_authorities_of_clients_change_too(secured: Secured, known: Tls, tmp_path: Path) -> None:
    newer = Authority(tmp_path)
    own = newer.issue("dave.example")
    dave = Tls(secured.authority.ca, own.certificate, own.key)
    assert "it may not know the authority" in refusal(secured.mtls_target, dave)
    before = secured.client_ca.read_bytes()
    secured.client_ca.write_bytes(before + newer.ca.read_bytes())
    while not _is_let_in(secured, dave):
        pass
    assert _is_let_in(secured, known)
    secured.client_ca.write_bytes(before)
    while _is_let_in(secured, dave):
        pass
    assert _is_let_in(secured, known)


def _is_let_in(secured: Secured, tls: Tls) -> bool:
    with Client(secured.mtls_target, tls=tls) as client, suppress(ServerError):
        return bool(client.models())
    return False


def test_metric_shows_the_time_to_expiry(secured: Secured) -> None:
    days = timedelta(days=3)
    serial = secured.serial()
    secured.pair.replace_by(secured.authority.issue("localhost", not_after=datetime.now(UTC) + days))
    while secured.serial() == serial:
        pass
    found = secured.metric("tubelet_certificate_expiry_seconds", certificate="server")
    assert days.total_seconds() - 3600 < found <= days.total_seconds()
    assert secured.metric("tubelet_certificate_expiry_seconds", certificate="client_ca") > found


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
