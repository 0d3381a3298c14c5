"""Measures what a client without a token can make a server do and hold: memory, descriptors, processor time.

    python -m tests.bench.unknown [--connections 900]

A raw client does to a real server with TLS and identities what no library would: it connects and says
nothing, stops in the middle, opens calls without an end, sends large headers and bodies. The table has what
the server holds and spends for it, beside what it does when idle.
"""

import argparse
import http.client
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from grpc_reflection.v1alpha import reflection_pb2

from tests.bench.serve import Server, started
from tests.support.certificates import Authority
from tests.support.identities import TOKENS, write_identities
from tests.support.raw_http2 import CLASSIFY, LIST_MODELS, RawHttp2, message

_SETTLE_S = 1.0  # so that the server has noticed
_CALLS = 250  # on a connection, which may have 256
_KNOWN = ((b"authorization", f"Bearer {TOKENS['alice']}".encode()),)
_CHECK, _WATCH = b"/grpc.health.v1.Health/Check", b"/grpc.health.v1.Health/Watch"
_REFLECT = b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@dataclass(frozen=True, slots=True)
class State:
    """What a server holds, and the processor time that it has used."""

    memory_bytes: int
    descriptors: int
    threads: int
    cpu_s: float

    @classmethod
    def of(cls, process: psutil.Process) -> "State":
        cpu = process.cpu_times()
        memory = process.memory_full_info().uss
        return cls(memory, process.num_fds(), process.num_threads(), cpu.user + cpu.system)


@dataclass(frozen=True, slots=True)
class Target:
    """The server, and how to connect to it."""

    server: Server
    context: ssl.SSLContext

    def plain(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=60)

    def http2(self) -> RawHttp2:
        connection = RawHttp2(self.server.port, self.context)
        connection.read()
        return connection

    @contextmanager
    def row(self, what: str) -> Iterator[list[str]]:
        """Print the row of a table: what the block adds, and the notes that it leaves."""
        before, notes = State.of(self.server.process), list[str]()
        yield notes
        time.sleep(_SETTLE_S)
        after = State.of(self.server.process)
        memory = (after.memory_bytes - before.memory_bytes) / 2**20
        cells = (
            f"{memory:+.1f} MiB",
            f"{after.descriptors - before.descriptors:+}",
            f"{after.threads - before.threads:+}",
            f"{after.cpu_s - before.cpu_s:.2f} s",
            "; ".join(notes),
        )
        print(f"| {what} | {' | '.join(cells)} |", flush=True)


def _until_closed(connection: socket.socket) -> float:
    """Return the seconds until the server closes a connection."""
    start_s = time.monotonic()
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - start_s


def connections(target: Target, number: int) -> None:
    """Hold connections at each step of their beginning."""
    hello = _client_hello()
    begins: dict[str, Callable[[], socket.socket]] = {
        # The one that holds the most comes first: the allocator keeps its memory for the others.
        "with an idle HTTP/2 connection": lambda: target.http2().socket,
        "that say nothing": target.plain,
        "with half a TLS handshake": lambda: _with(target.plain(), hello),
        "with half the headers of a call": lambda: _with(target.http2().socket, b"\0\0\1\1\0\0\0\0\1\x83"),
    }
    for what, connect in begins.items():
        held = list[socket.socket]()
        with target.row(f"{number} connections {what}") as notes:
            held += [connect() for _ in range(number)]
            notes.append(f"a known client is {'' if _known_is_answered(target) else 'not '}answered")
        if "nothing" in what or "handshake" in what:
            print(f"  the first of them was closed {_until_closed(held[0]):.0f} s later")
        for each in held:
            each.close()
        time.sleep(_SETTLE_S)


def calls(target: Target) -> None:
    """Open calls that do not end, and calls that are refused."""
    for path in (CLASSIFY, LIST_MODELS, _CHECK, _WATCH, _REFLECT):
        name = path.decode().rpartition("/")[2]
        what = "one message, no end" if path == _WATCH else "no message, no end"
        held = [target.http2() for _ in range(4)]
        with target.row(f"{4 * _CALLS} calls of {name}: {what}") as notes:
            for connection in held:
                streams = [connection.call(path) for _ in range(_CALLS)]
                for stream in streams if path == _WATCH else ():
                    connection.send(stream, message(b""))
            for connection in held:
                while connection.read(1.0):
                    pass
            over = sum(each.is_over for connection in held for each in connection.answers.values())
            notes.append(f"{over} ended at once")
            notes.append(f"a known client is {'' if _known_is_answered(target) else 'not '}answered")
        for connection in held:
            connection.socket.close()
        time.sleep(_SETTLE_S)


def bytes_of_calls(target: Target) -> None:
    """Send large headers and bodies without a token, and ask for the largest answer of reflection."""
    with target.row("8 calls with headers of 1 MiB") as notes:
        held = [target.http2() for _ in range(8)]
        large = [(b"x-%d" % index, b"x" * (16 << 10)) for index in range(64)]
        streams = [connection.call(LIST_MODELS, large, is_end=True) for connection in held]
        answers = [connection.answer(stream) for connection, stream in zip(held, streams, strict=True)]
        notes.append(f"codes { {each.status for each in answers} }")
        for connection in held:
            connection.socket.close()
    with target.row("250 uploads that send on after their refusal") as notes:
        taken = 0
        with target.http2() as connection:
            for _ in range(_CALLS):
                stream = connection.call(CLASSIFY)
                taken += connection.send(stream, message(bytes(4 << 20)))
            while connection.read(0.5):
                pass
        notes.append(f"{taken / 2**20:.0f} MiB were taken")
    with target.row("1,000 questions to reflection") as notes:
        asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="tubelet.v1.VideoClassifier")
        with target.http2() as connection:
            stream, size = connection.call(_REFLECT), len(asked.SerializeToString())
            for _ in range(1000):
                connection.send(stream, message(asked.SerializeToString()))
            while connection.read(1.0):
                pass
            notes.append(f"{len(connection.answers[stream].data) // 1000} bytes for {size}")


def http_port(target: Target) -> None:
    """Hold connections to the HTTP port, and ask it."""
    port = target.server.metrics_port
    with target.row("200 connections to the HTTP port that say nothing") as notes:
        held = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(200)]
        time.sleep(_SETTLE_S)
        notes.append(f"/healthz answers {_ask(port, '/healthz')}")
    for each in held:
        each.close()
    time.sleep(_SETTLE_S)
    for path in ("/healthz", "/metrics"):
        with target.row(f"1,000 requests of {path} without TLS or token") as notes:
            notes.append(f"status { {_ask(port, path) for _ in range(1000)} }")


def _ask(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


def _with(connection: socket.socket, data: bytes) -> socket.socket:
    """Send ``data``; return the connection."""
    connection.sendall(data)
    return connection


def _known_is_answered(target: Target) -> bool:
    """Tell whether a client with a token is answered."""
    with target.http2() as connection:
        stream = connection.call(LIST_MODELS, _KNOWN)
        connection.send(stream, message(b""), is_end=True)
        return connection.answer(stream).status == 0


def _client_hello() -> bytes:
    """Return the first message of a TLS client."""
    to_server = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), to_server, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return to_server.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--connections", type=int, default=900)
    number = parser.parse_args().connections
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        pair = authority.issue("localhost")
        context = ssl.create_default_context(cafile=str(authority.ca))
        context.set_alpn_protocols(["h2"])
        settings = {
            "TUBELET_SERVER__HOST": "127.0.0.1",
            "TUBELET_SERVER__TLS__CERTIFICATE": str(pair.certificate),
            "TUBELET_SERVER__TLS__KEY": str(pair.key),
            "TUBELET_SERVER__ACCESS__IDENTITIES": str(write_identities(Path(folder) / "identities.toml")),
            "TUBELET_SERVER__ACCESS__METRICS_TOKEN": "true",
        }
        with started(**settings) as server:
            target = Target(server, context)
            _known_is_answered(target)
            time.sleep(5 * _SETTLE_S)  # the allocator settles
            print("| what | memory | descriptors | threads | processor time | notes |")
            print("|---|---|---|---|---|---|")
            with target.row("nothing, for a second"):
                pass
            connections(target, number)
            calls(target)
            bytes_of_calls(target)
            http_port(target)


if __name__ == "__main__":
    main()
