"""A fuzzing campaign of calls: a real server in a process of its own, whose answers and log are judged."""

import json
import socket
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.fuzz.call_inputs import ISSUER, KNOWN, Input, Kind, make_input
from tests.support.cli_process import serving
from tests.support.identities import TOKENS, write_identities
from tests.support.issuer import AUDIENCE
from tests.support.issuer import ISSUER as ISSUED_BY
from tests.support.raw_http2 import LIST_MODELS, Answer, RawHttp2, message

_AT_ONCE = 64  # calls: gRPC answers malformed headers late, so that it pays less to try
_OK, _UNKNOWN, _INTERNAL, _DATA_LOSS = 0, 2, 13, 15
_LEAVING_S = 60.0  # for what the server holds of calls to go
_OF_GRPC = "hpack_parser.cc"  # which says that headers are malformed, without their values


@dataclass(slots=True)
class CallReport:
    """The outcomes by code of gRPC, what was wrong by seed, and what the server has kept."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: dict[int, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)  # what is wrong in the log, and in the metrics
    lines: int = 0
    rss_bytes: list[int] = field(default_factory=list)
    leaked_descriptors: int = 0
    leaked_threads: int = 0

    @property
    def settled_bytes(self) -> list[int]:
        """The memory of the server once it was warm."""
        return self.rss_bytes[len(self.rss_bytes) // 3 :]


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """The server under test."""

    process: psutil.Process
    port: int
    metrics_port: int
    log: Path


@contextmanager
def fuzzed(folder: Path) -> Iterator[Fuzzed]:
    """Serve those in a file, and those of an issuer; log as JSON."""
    identities, keys, log = write_identities(folder / "identities.toml"), folder / "keys.json", folder / "log"
    keys.write_bytes(ISSUER.jwks())
    config = folder / "tubelet.toml"
    config.write_text(
        f'[server.access]\nidentities = "{identities}"\n[server.access.jwt]\nissuer = "{ISSUED_BY}"\n'
        f'audience = "{AUDIENCE}"\nkeys = "{keys}"\n[server]\nhost = "127.0.0.1"\n[log]\nformat = "json"\n'
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics_port: int = free.getsockname()[1]
    flags = ("--config", str(config), "--metrics-port", str(metrics_port))
    with log.open("w") as lines, serving(*flags, log=lines) as (process, target):
        yield Fuzzed(psutil.Process(process.pid), int(target.rpartition(":")[2]), metrics_port, log)


def run_calls(
    server: Fuzzed, kind: Kind, seeds: range, progress: Callable[[], None] = lambda: None
) -> CallReport:
    """Make the call of each seed, some at a time, with sound ones between them."""
    report, secrets, before = (
        CallReport(),
        {token.encode() for token in TOKENS.values()},
        server.log.stat().st_size,
    )
    _check_sound(server)
    descriptors, threads = server.process.num_fds(), server.process.num_threads()
    connections = [RawHttp2(server.port) for _ in range(_AT_ONCE)]
    for first in range(seeds.start, seeds.stop, _AT_ONCE):
        batch = range(first, min(first + _AT_ONCE, seeds.stop))
        given = {seed: make_input(kind, seed) for seed in batch}
        streams = [
            _send(connection, each) for connection, each in zip(connections, given.values(), strict=False)
        ]
        for index, (seed, each) in enumerate(given.items()):
            connection = connections[index]
            answer = connection.answer(streams[index])
            if problem := _problem(each, answer):
                report.wrong[seed] = problem
            report.outcomes[_outcome(answer)] += 1
            secrets.update(each.secrets)
            if connection.is_over:
                connection.socket.close()
                connections[index] = RawHttp2(server.port)
            progress()
        _check_sound(server)
        report.rss_bytes.append(server.process.memory_info().rss)
    for connection in connections:
        connection.socket.close()
    _check_sound(server)
    end_s = time.monotonic() + _LEAVING_S
    while True:  # connections end, and idle threads of gRPC
        report.leaked_descriptors = server.process.num_fds() - descriptors
        report.leaked_threads = server.process.num_threads() - threads
        if max(report.leaked_descriptors, report.leaked_threads) <= 0 or time.monotonic() > end_s:
            break
        time.sleep(0.1)
    _read_log(server, before, secrets, report)
    return report


def _send(connection: RawHttp2, given: Input) -> int:
    """Make a call; return its stream."""
    stream = connection.call(given.path, given.headers, is_end=not given.body)
    if connection.send(stream, given.body, is_end=True) < len(given.body) and not connection.is_over:
        raise AssertionError("the server took no more bytes of a small message")
    return stream


def _problem(given: Input, answer: Answer) -> str:
    """Say what is wrong with an answer; empty if nothing is."""
    code, text = answer.status, b" ".join((*answer.headers.values(), answer.data))
    is_of_grpc = b"grpc-status-details-bin" not in answer.headers
    if code in (_UNKNOWN, _DATA_LOSS) or (code == _INTERNAL and not is_of_grpc):
        return f"code {code}: {text!r:.300}"
    if code == _OK and given.must_fail:
        return "success for who is not known"
    if any(secret in text for secret in given.secrets):
        return "the answer repeats a token"
    request_id = answer.headers.get(b"x-request-id", b"")
    if len(request_id) > 128 or not all(0x21 <= each < 0x7F for each in request_id):
        return f"the request id is {request_id!r:.200}"
    return ""


def _outcome(answer: Answer) -> str:
    """Name what was answered."""
    if answer.status is None:
        return f"HTTP {answer.headers.get(b':status', b'reset').decode()}"
    return f"code {answer.status}"


def _check_sound(server: Fuzzed) -> None:
    """Check that a sound call is answered, on a connection of its own."""
    with RawHttp2(server.port) as connection:
        stream = connection.call(LIST_MODELS, (KNOWN,))
        connection.send(stream, message(b""), is_end=True)
        answer = connection.answer(stream)
        assert answer.status == _OK
        assert b"camera-motion" in answer.data


def _read_log(server: Fuzzed, start: int, secrets: set[bytes], report: CallReport) -> None:
    """Check each line of the log from byte ``start`` on, and the page of metrics."""
    content = server.log.read_bytes()[start:]
    for line in content.splitlines():
        report.lines += 1
        try:
            record = json.loads(line)
            is_error = record["level"] == "ERROR" and _OF_GRPC not in record["message"]
            if is_error or "exception" in record:
                report.log.append(f"an error: {line!r:.6000}")
        except (ValueError, KeyError, TypeError):
            report.log.append(f"no record: {line!r:.300}")
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=60) as response:
        page = response.read()
    report.log += [f"a token in it: {each!r:.60}" for each in secrets if each in content or each in page]
