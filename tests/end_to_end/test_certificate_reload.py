"""Files of ``server.tls`` that change while the server answers."""

import os
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from tests.support.certificates import PAST, Authority, encrypted
from tests.support.running_server import Upload
from tests.support.sample_clip import panning_clip
from tests.support.secured_server import Secured, refusal
from tubelet.service.client import Client, ServerError, Tls
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub


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
