"""Measures the latency of a short clip behind long videos, in real time.

    python -m tests.bench.fair [--seconds 20] [--long 1,2,4]

A clip of five seconds is classified again and again, in the default model's windows of one second: alone,
then while ``--long`` videos of two hours are in flight, all sent before it. There is no embedding cache.
"""

import argparse
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.footage import SHORT_360P, rendered
from tests.bench.serve import started
from tubelet.service.client import Client
from tubelet.service.types.result import Progress

SHORT_S, LONG_S, LOOP_S = 5, 7200, 10


def made(folder: Path) -> tuple[Path, Path]:
    """Make the short clip, and the long one, which repeats ten seconds; return their paths."""
    loop, short, long = (folder / name for name in ("loop.mp4", "short.mp4", "long.mp4"))
    small = ["-vf", "scale=320:-2", "-crf", "36", "-an"]
    _ffmpeg("-i", str(rendered(SHORT_360P)), *small, "-t", str(LOOP_S), str(loop))
    _ffmpeg("-i", str(rendered(SHORT_360P)), *small, "-t", str(SHORT_S), str(short))
    _ffmpeg("-stream_loop", str(LONG_S // LOOP_S - 1), "-i", str(loop), "-c", "copy", str(long))
    return short, long


def _ffmpeg(*arguments: str) -> None:
    subprocess.run(["ffmpeg", "-v", "error", *arguments], check=True)


@contextmanager
def under_way(address: str, file: Path) -> Iterator[None]:
    """Keep a video in flight, from its first progress event until the context ends."""
    runs, stops = threading.Event(), threading.Event()

    def ask() -> None:
        try:
            with Client(address, retries=False) as client:
                for event in client.stream(file):
                    if isinstance(event, Progress):
                        runs.set()
                    if stops.is_set():
                        return
        finally:
            runs.set()

    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(ask)
        try:
            runs.wait()
            yield
        finally:
            has_ended = asking.done()
            stops.set()
            asking.result()
            if has_ended:
                raise SystemExit("a long video was answered meanwhile: let it be longer")


def latencies_s(client: Client, clip: Path, seconds: float) -> list[float]:
    found, end_s = [], time.monotonic() + seconds
    while time.monotonic() < end_s:
        start_s = time.monotonic()
        client.classify(clip)
        found.append(time.monotonic() - start_s)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--long", default="1,2,4", help="how many at the same time, with commas between")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, started() as server:
        short, long = made(Path(folder))
        address = f"127.0.0.1:{server.port}"
        with Client(address, retries=False) as client:
            latencies_s(client, short, 2)
            alone_s = statistics.median(latencies_s(client, short, arguments.seconds))
            print(f"alone: {alone_s * 1000:.0f} ms")
            for count in map(int, arguments.long.split(",")):
                with ExitStack() as stack:
                    for _ in range(count):
                        stack.enter_context(under_way(address, long))
                    found = latencies_s(client, short, arguments.seconds)
                middle_s = statistics.median(found)
                print(
                    f"behind {count} of two hours: {middle_s * 1000:.0f} ms, {middle_s / alone_s:.2f} times "
                    f"as long; {max(found) * 1000:.0f} ms at most, of {len(found)}"
                )


if __name__ == "__main__":
    main()
