"""Measures what TLS, tokens and lines of the log cost: processor time a call, and the speed of uploads.

    python -m tests.bench.secure [--rounds 25] [--calls 200] [--megabytes 64]

Servers take turns: one that asks for nothing, a second such one as control, and one with each kind of
security. A call lists the models; an upload is of bytes that are no video. The processor time is the server's
alone, in nanoseconds as the kernel counts it. In each round a server is compared with the one that asks for
nothing: the table has medians over the rounds, with 95 % intervals.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

from tests.bench.costs import median_interval
from tests.bench.serve import started
from tests.bench.upload import messages
from tests.support.certificates import Authority
from tests.support.identities import TOKENS, write_identities
from tests.support.issuer import AUDIENCE, ISSUER, Issuer
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

_CHUNK_BYTES = 1 << 20  # as the Python client sends
_QUIET = {"TUBELET_LOG__LEVEL": "error", "TUBELET_DECODE__WORKERS": "1", "TUBELET_ENGINE__THREADS": "1"}
_BASE, _CONTROL = "neither", "neither (control)"

Metadata = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Contestant:
    """A server, how to call it, and what its rounds cost."""

    name: str
    process: psutil.Popen
    stub: VideoClassifierStub
    metadata: Metadata
    call_us: list[float] = field(default_factory=list)  # processor time
    upload_ms: list[float] = field(default_factory=list)  # processor time of 100 MiB
    speeds: list[float] = field(default_factory=list)  # MB/s

    def run(self, calls: int, megabytes: int) -> None:
        """Make some calls and an upload."""
        before = _busy_ns(self.process)
        for _ in range(calls):
            self.stub.ListModels(pb.ListModelsRequest(), metadata=self.metadata)
        between, start_s = _busy_ns(self.process), time.perf_counter()
        with suppress(grpc.RpcError):  # it is no video
            self.stub.Classify(messages(_CHUNK_BYTES, megabytes << 20), metadata=self.metadata, timeout=600)
        wall_s = time.perf_counter() - start_s
        self.call_us.append((between - before) / calls / 1e3)
        self.upload_ms.append((_busy_ns(self.process) - between) / 1e6 * 100 / megabytes)
        self.speeds.append((megabytes << 20) / wall_s / 1e6)


def _busy_ns(process: psutil.Popen) -> int:
    """Return the processor time of a process's threads."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def contestants(folder: Path, stack: ExitStack) -> Iterator[Contestant]:
    """Start the servers one after the other, and yield them."""
    authority, issuer = Authority(folder), Issuer()
    pair, keys = authority.issue("localhost"), folder / "keys.json"
    keys.write_bytes(issuer.jwks())
    tls = {
        "TUBELET_SERVER__TLS__CERTIFICATE": str(pair.certificate),
        "TUBELET_SERVER__TLS__KEY": str(pair.key),
    }
    tokens = {"TUBELET_SERVER__ACCESS__IDENTITIES": str(write_identities(folder / "identities.toml"))}
    jwt = {"ISSUER": ISSUER, "AUDIENCE": AUDIENCE, "KEYS": str(keys)}
    issued = tokens | {f"TUBELET_SERVER__ACCESS__JWT__{key}": value for key, value in jwt.items()}
    lines = {"TUBELET_LOG__LEVEL": "info", "TUBELET_LOG__FORMAT": "json"}
    kinds: dict[str, tuple[dict[str, str], str]] = {
        _BASE: ({}, ""),
        _CONTROL: ({}, ""),
        "TLS": (tls, ""),
        "token of the file": (tokens, TOKENS["alice"]),
        "token of an issuer": (issued, issuer.token(exp=time.time() + 3600)),
        "lines of the log": (lines, ""),
        "TLS, token of the file, lines": (tls | tokens | lines, TOKENS["alice"]),
    }
    for name, (settings, token) in kinds.items():
        server = stack.enter_context(started(**_QUIET | {"TUBELET_SERVER__HOST": "localhost"} | settings))
        if "TUBELET_SERVER__TLS__KEY" in settings:
            credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
            channel = grpc.secure_channel(f"localhost:{server.port}", credentials)
        else:
            channel = grpc.insecure_channel(f"localhost:{server.port}")
        stub = VideoClassifierStub(stack.enter_context(channel))
        yield Contestant(name, server.process, stub, (("authorization", f"Bearer {token}"),) if token else ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--megabytes", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = list(contestants(Path(folder), stack))
        for each in servers:
            each.run(arguments.calls, arguments.megabytes)  # warm
        for each in servers:
            each.call_us, each.upload_ms, each.speeds = [], [], []
        for _ in range(arguments.rounds):
            for each in servers:
                each.run(arguments.calls, arguments.megabytes)
        base = servers[0]
        print("| server | us a call | more (95 %) | ms for 100 MiB | times (95 %) | MB/s | times (95 %) |")
        print("|---|---|---|---|---|---|---|")
        for each in servers:
            print(f"| {each.name} | {_against(each, base)} |")


def _against(each: Contestant, base: Contestant) -> str:
    """Return a server's cells: its medians, and how they compare to those of ``base`` in the same rounds."""
    more = [own - other for own, other in zip(each.call_us, base.call_us, strict=True)]
    cells = [f"{statistics.median(each.call_us):.0f}", _interval(more, "+.0f")]
    for own, other in ((each.upload_ms, base.upload_ms), (each.speeds, base.speeds)):
        ratios = [first / second for first, second in zip(own, other, strict=True)]
        cells += [f"{statistics.median(own):.0f}", _interval(ratios, ".2f")]
    return " | ".join(cells)


def _interval(values: list[float], form: str) -> str:
    """Return a median with its interval."""
    middle, low, high = (format(each, form) for each in median_interval(values))
    return f"{middle} ({low} to {high})"


if __name__ == "__main__":
    main()
