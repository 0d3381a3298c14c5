"""Measures what a cancelled request costs the server, beside one that is answered.

    python -m tests.bench.cancelled [--rounds 10] [--only NAME]

A client sends 100 s of video for dense labels, and cancels after several times, without a deadline that would
tell the server in advance. The processor time of the server until it is idle again is divided by that of the
same request when it is answered. Peers compute one window for each video, and are asked for that.
"""

import argparse
import asyncio
import http.client
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import grpc
from rich.console import Console
from rich.table import Table

from tests.bench.footage import Clip, rendered
from tests.bench.peers.plain import METHOD
from tests.bench.targets import SERVERS, Target, write_model
from tubelet.service.client import AsyncClient
from tubelet.service.types.request import Options, Sliding
from tubelet.service.types.video import NS_PER_S

CLIP = Clip("100 s 360p", 640, 360, 800, 250, shots=10, repeats=2)
DENSE = Options(windowing=Sliding(4 * NS_PER_S, NS_PER_S // 2))
AFTER_S = (0.05, 0.2, 0.5)
_REST_S = 0.5
_RESTING_CPU_S = 0.02  # of processor in that time


Leave = Callable[[Path, float], None]
"""Send a video and go after so many seconds."""


@contextmanager
def leaving_tubelet(target: Target) -> Iterator[Leave]:
    async def leave(clip: Path, after_s: float) -> None:
        async with AsyncClient(target.address, retries=False) as client:
            with suppress(TimeoutError):
                await asyncio.wait_for(client.classify(clip, DENSE), after_s)

    yield lambda clip, after_s: asyncio.run(leave(clip, after_s))


@contextmanager
def leaving_plain(target: Target) -> Iterator[Leave]:
    with grpc.insecure_channel(target.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        send = channel.unary_unary(METHOD)

        def leave(clip: Path, after_s: float) -> None:
            call = send.future(clip.read_bytes())
            with suppress(grpc.FutureTimeoutError):
                call.result(after_s)
            call.cancel()

        yield leave


@contextmanager
def leaving_litserve(target: Target) -> Iterator[Leave]:
    def leave(clip: Path, after_s: float) -> None:
        connection = http.client.HTTPConnection(target.address, timeout=after_s)
        headers = {"Content-Type": "application/octet-stream"}
        with suppress(TimeoutError):
            connection.request("POST", "/predict", clip.read_bytes(), headers)
            connection.getresponse().read()
        connection.close()

    yield leave


LEAVING = {"tubelet": leaving_tubelet, "plain": leaving_plain, "litserve": leaving_litserve}


def cost_s(target: Target, act: Callable[[], None]) -> float:
    """Return the processor seconds that the server's processes take for ``act``, until they are idle."""
    before = sum(target.cpu_s().values())
    act()
    last = before
    while True:
        time.sleep(_REST_S)
        now = sum(target.cpu_s().values())
        if now - last <= _RESTING_CPU_S:
            return now - before
        last = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", default="", help="a part of a server's name")
    arguments = parser.parse_args()
    clip = rendered(CLIP)
    shown = Table("", "answered", *(f"left after {after_s:g} s" for after_s in AFTER_S), box=None)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = Path(folder)
        write_model(store)
        for server in SERVERS:
            if arguments.only not in server.__name__:
                continue
            target = stack.enter_context(server(store))
            leave = stack.enter_context(LEAVING[server.__name__](target))
            leave(clip, 600)
            times = (600.0, *AFTER_S)
            costs: dict[float, list[float]] = {after_s: [] for after_s in times}
            for _ in range(arguments.rounds):
                for after_s in times:
                    costs[after_s].append(cost_s(target, partial(leave, clip, after_s)))
            whole_s, *early_s = (statistics.median(found) for found in costs.values())
            cells = (f"{each:.2f} CPU-s, {each / whole_s:.0%}" for each in early_s)
            shown.add_row(target.name, f"{whole_s:.2f} CPU-s", *cells)
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
