"""``tubelet serve`` with a certificate, and what it says without one."""

import re
import signal
import socket
import ssl
from pathlib import Path
from time import sleep

import pytest

from tests.support.certificates import Authority
from tests.support.cli_process import serving, tubelet
from tests.support.listening import has_ipv6
from tubelet.service.client import Client, Tls


def test_serve_with_tls_says_so_and_reads_files_again(tmp_path: Path) -> None:
    authority, log = Authority(tmp_path), tmp_path / "log"
    pair = authority.issue("localhost")
    variables = {
        "TUBELET_SERVER__TLS__CERTIFICATE": str(pair.certificate),
        "TUBELET_SERVER__TLS__KEY": str(pair.key),
        "TUBELET_SERVER__TLS__CLIENT_CA": str(authority.ca),
        "TUBELET_SERVER__MTLS_PORT": "0",
    }
    with log.open("w") as file, serving("--host", "localhost", log=file, **variables) as (process, target):
        port = target.rpartition(":")[2]
        with Client(f"https://localhost:{port}", tls=Tls(ca=authority.ca)) as client:
            assert client.models()
        assert "certificate in use: for localhost, signed by " in log.read_text()
        pair.replace_by(authority.issue("localhost", "newer.example"))
        process.send_signal(signal.SIGHUP)
        while "certificate in use: for localhost, newer.example, signed by " not in log.read_text():
            assert process.poll() is None
            sleep(0.05)
        for host in (
            "127.0.0.1",
            *(["[::1]"] if has_ipv6() else []),
        ):  # gRPC keeps what it has for each address
            with Client(f"{host}:{port}", tls=Tls(authority.ca, server_name="newer.example")) as client:
                assert client.models()
    assert "no TLS" not in log.read_text()
    assert re.search(rf"ready after .* s: gRPC on port {port}, mTLS on port \d+, metrics on", log.read_text())


def test_what_a_handshake_says_is_information_in_one_form(tmp_path: Path) -> None:
    """Any client can cause these lines, so none of them is an error of the server."""
    authority, log = Authority(tmp_path), tmp_path / "log"
    pair = authority.issue("localhost")
    files = {
        "TUBELET_SERVER__TLS__CERTIFICATE": str(pair.certificate),
        "TUBELET_SERVER__TLS__KEY": str(pair.key),
    }
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    with log.open("w") as file, serving("--host", "localhost", log=file, **files) as (process, target):
        address = ("127.0.0.1", int(target.rpartition(":")[2]))
        with socket.create_connection(address) as other:
            context.wrap_socket(other, server_hostname="other.example").close()
        with socket.create_connection(address) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while log.read_text().count("TLS handshake of a client: ") < 2:
                assert process.poll() is None
                sleep(0.05)
    lines = [line.partition(" ")[2] for line in log.read_text().splitlines() if "handshake" in line]
    assert lines[0] == "INFO stderr: TLS handshake of a client: No match found for server name: other.example"
    assert lines[1].startswith("INFO stderr: TLS handshake of a client: Handshake failed")
    assert "HTTP_REQUEST" in lines[1]
    assert " ERROR " not in log.read_text()


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("::", ": whoever reaches the ports can call, and read along; see server.tls"),
        ("localhost", ""),
    ],
)
def test_serve_without_tls_says_so_at_other_addresses_than_loopback(
    tmp_path: Path, host: str, says: str
) -> None:
    log = tmp_path / "log"
    with log.open("w") as file, serving("--host", host, log=file):
        assert log.read_text().count("no TLS") == bool(says)
        assert says in log.read_text()


def test_serve_refuses_a_key_that_does_not_belong(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.issue("localhost"), authority.issue("localhost")
    files = f"certificate = '{pair.certificate}'\nkey = '{other.key}'\n"
    (tmp_path / "tubelet.toml").write_text(f"[server.tls]\n{files}")
    done = tubelet("serve", "--config", str(tmp_path / "tubelet.toml"), "--port", "0", "--metrics-port", "0")
    says = f"configuration: server.tls.key: {other.key} does not belong to the certificate\n"
    assert (done.returncode, done.stderr.count("ERROR")) == (2, 1)
    assert done.stderr.endswith(says)


def test_demo_uses_no_tls() -> None:
    files = {"TUBELET_SERVER__TLS__CERTIFICATE": "/nowhere", "TUBELET_SERVER__TLS__KEY": "/nowhere"}
    done = tubelet("demo", **files, TUBELET_CLIENT__CA="/nowhere")
    assert done.returncode == 0, done.stderr
    assert "whole video" in done.stdout


@pytest.mark.parametrize("flag", ["--tls", "--ca", "--cert", "--key", "--server-name"])
def test_flags_for_tls_need_a_server(flag: str) -> None:
    value = () if flag == "--tls" else ("x",)
    done = tubelet("models", "list", flag, *value, COLUMNS="200")
    assert done.returncode == 2
    assert f"{flag} needs --server" in done.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--ca", "/nowhere"), "cannot read /nowhere: No such file or directory"),
        (("--ca", "KEY"), "KEY holds no certificate in PEM form, or only a part of one"),
        (("--cert", "CERTIFICATE", "--key", "OTHER"), "the key OTHER does not belong to the certificate"),
        (
            ("--cert", "CERTIFICATE", "--key", "CERTIFICATE"),
            "the key CERTIFICATE holds no private key in PEM",
        ),
        (("--cert", "CERTIFICATE"), "client: cert and key need each other; only one of them is set"),
    ],
)
def test_wrong_files_of_the_client_are_a_sentence(tmp_path: Path, flags: tuple[str, ...], says: str) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.issue("a"), authority.issue("b")
    files = {"KEY": str(pair.key), "CERTIFICATE": str(pair.certificate), "OTHER": str(other.key)}
    done = tubelet("models", "list", "--server", "localhost:1", *(files.get(flag, flag) for flag in flags))
    for word, path in files.items():
        says = says.replace(word, path)
    assert done.returncode != 0
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
