"""A real server with TLS and mTLS, whose files a test may replace."""

import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.certificates import Authority, Pair
from tests.support.running_server import Served, serving, sum_of_samples
from tubelet.service.client import Client, ServerError, Tls
from tubelet.service.server import watched_files


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
            return sum_of_samples(response.read().decode(), name, labels)

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


@contextmanager
def serving_by_tls(folder: Path) -> Iterator[Secured]:
    """Serve with files in ``folder``, which the server looks at all the time."""
    authority, clients = Authority(folder / "server"), Authority(folder / "clients")
    pair, client_ca = authority.issue("localhost", "127.0.0.1"), folder / "client-ca.pem"
    client_ca.write_bytes(clients.ca.read_bytes())
    files = {"certificate": str(pair.certificate), "key": str(pair.key), "client_ca": str(client_ca)}
    settings = {"tls": files, "mtls_port": 0, "max_videos_per_client": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watched_files, "_INTERVAL_S", 0.05)
        with serving(server=settings) as served:
            yield Secured(served, authority, clients, pair, client_ca)


def refusal(target: str, tls: Tls | bool | None) -> str:
    """What a client is told that cannot connect."""
    with Client(target, tls=tls) as client, pytest.raises(ServerError) as caught:
        client.models()
    assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "SERVER_UNREACHABLE")
    return caught.value.message
