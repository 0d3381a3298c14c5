"""How fast a server takes uploads in, by the size of their chunks.

    python -m tests.bench.upload [--megabytes 400] [--rounds 3]

Uploads bytes that are no video, as a whole-video request, so that nothing happens but the upload, over
loopback to a real server; interleaved over the sizes, medians. The client runs on the same cores: what counts
is the server's own processor time.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress

import grpc

from tests.bench.serve import Server, started
from tubelet.v1 import classification_pb2
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

SIZES = (16 << 10, 64 << 10, 256 << 10, 1 << 20, 3 << 20)


def upload(server: Server, stub: VideoClassifierStub, size: int, total: int) -> tuple[float, float]:
    """Wall seconds, and processor seconds of the server."""

    def messages() -> Iterator[pb.ClassifyRequest]:
        options = classification_pb2.ClassifyOptions(whole_video=classification_pb2.WholeVideo())
        yield pb.ClassifyRequest(options=options)
        message = pb.ClassifyRequest(chunk=bytes(size))
        for _ in range(total // size):
            yield message

    before, start = server.process.cpu_times(), time.perf_counter()
    with suppress(grpc.RpcError):  # it is no video
        stub.Classify(messages(), timeout=600)
    wall_s, after = time.perf_counter() - start, server.process.cpu_times()
    return wall_s, after.user + after.system - before.user - before.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    total = arguments.megabytes << 20
    costs: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
    with started() as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = VideoClassifierStub(channel)
        for _ in range(arguments.rounds):
            for size, found in costs.items():
                found.append(upload(server, stub, size, total))
    for size, found in costs.items():
        wall_s, cpu_s = (statistics.median(each) for each in zip(*found, strict=True))
        print(
            f"chunks of {size >> 10:5} KiB: {total / wall_s / 1e9:.2f} GB/s, "
            f"{total / cpu_s / 1e9:.2f} GB for a second of one core of the server"
        )


if __name__ == "__main__":
    main()
