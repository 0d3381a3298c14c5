"""Measures the speed of uploads by the size of their chunks, and the memory of many uploads at once.

    python -m tests.bench.upload [--megabytes 400] [--rounds 3] [--at-once 64] [--each-megabytes 40]

Uploads bytes that are no video over loopback to a real server, so that nothing else is measured. The sizes
take turns; the table has medians. The client runs on the same cores, so the processor time of the server is
what counts; beside it stands that of a server which drops all messages (``tests.bench.peers.sink``). Then
``--at-once`` clients each hold an upload just before its end, to measure the memory that they take.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event, Semaphore

import grpc
import psutil

from tests.bench.serve import MIB, Server, started
from tests.bench.targets import free_port, running
from tubelet.v1 import classification_pb2
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

SIZES = (16 << 10, 64 << 10, 256 << 10, 1 << 20, 3 << 20)


def messages(size: int, total: int) -> Iterator[pb.ClassifyRequest]:
    options = classification_pb2.ClassifyOptions(whole_video=classification_pb2.WholeVideo())
    yield pb.ClassifyRequest(options=options)
    message = pb.ClassifyRequest(chunk=bytes(size))
    for _ in range(total // size):
        yield message


def upload(process: psutil.Process, stub: VideoClassifierStub, size: int, total: int) -> tuple[float, float]:
    """Upload ``total`` bytes in chunks of ``size``; return the wall and processor seconds of the server."""
    before, start = process.cpu_times(), time.perf_counter()
    with suppress(grpc.RpcError):  # it is no video
        stub.Classify(messages(size, total), timeout=600)
    wall_s, after = time.perf_counter() - start, process.cpu_times()
    return wall_s, after.user + after.system - before.user - before.system


def bytes_held(server: Server, stub: VideoClassifierStub, at_once: int, total: int) -> int:
    """Return the memory above idle while ``at_once`` uploads are in flight, all but their last chunks."""
    idle, sent, end = server.memory_bytes(), Semaphore(0), Event()

    def held_back() -> Iterator[pb.ClassifyRequest]:
        yield from messages(1 << 20, total)
        sent.release()
        end.wait()

    def one() -> None:
        with suppress(grpc.RpcError):
            stub.Classify(held_back(), timeout=600)

    with ThreadPoolExecutor(at_once) as threads:
        for _ in range(at_once):
            threads.submit(one)
        for _ in range(at_once):
            sent.acquire()
        time.sleep(1)  # what was sent arrives
        held = server.memory_bytes() - idle
        end.set()
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--each-megabytes", type=int, default=40)
    arguments = parser.parse_args()
    total = arguments.megabytes << 20
    costs: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
    bare_s: dict[int, list[float]] = {size: [] for size in SIZES}
    address = f"127.0.0.1:{free_port()}"
    with (
        started() as server,
        running([sys.executable, "-m", "tests.bench.peers.sink", address]) as sink,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        grpc.insecure_channel(address) as to_sink,
    ):
        sink.stdout.readline()
        stub, bare = VideoClassifierStub(channel), VideoClassifierStub(to_sink)
        for _ in range(arguments.rounds):
            for size, found in costs.items():
                found.append(upload(server.process, stub, size, total))
                bare_s[size].append(upload(sink, bare, size, total)[1])
        held = bytes_held(server, stub, arguments.at_once, arguments.each_megabytes << 20)
    for size, found in costs.items():
        wall_s, cpu_s = (statistics.median(each) for each in zip(*found, strict=True))
        print(
            f"chunks of {size >> 10:5} KiB: {total / wall_s / 1e9:.2f} GB/s, "
            f"{total / cpu_s / 1e9:.2f} GB for a second of one core of the server; "
            f"gRPC alone {total / statistics.median(bare_s[size]) / 1e9:.2f}"
        )
    print(
        f"{arguments.at_once} uploads of {arguments.each_megabytes} MiB in flight: "
        f"{held / MIB:.0f} MiB above idle"
    )


if __name__ == "__main__":
    main()
