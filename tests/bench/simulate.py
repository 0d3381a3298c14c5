"""Predicts throughput, latency and goodput from measured stage costs: here, by policy, and on up to 64 GPUs.

    python -m tests.bench.simulate ../shared/videos/real [--seconds 15] [--parts machine,policies,gpus]

The scheduler, the fair queues and admission control are the server's own (``tests.simulation``); the clock
and the work are simulated. ``--parts`` chooses the parts. *machine*: measures the stages alone, and the other
costs of a video under one client. Every other row is then predicted, and measured with ``tests.bench.load``
right after. *policies*: compares scheduling policies on a mix of short and long videos. *gpus*: simulates the
traffic of a day, compressed to a given number of videos, on 1 to 64 GPUs with ``--decoders`` cores each.
Decoding costs what was measured here. The cost of a unit on a GPU is an assumption: give what
``tests.bench.device`` measures with ``--unit-us`` and ``--batch-us`` (ViViT-B on an H100: 84 and 590; there
decoders are the bottleneck).
"""

import argparse
import asyncio
import math
import os
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from tests.bench.load import ARRIVALS, CLIENTS_WITH_DEADLINE, DEADLINE_S, Load, drive, endlessly
from tests.bench.stages import ClipCost, StageCosts, measure_stages
from tests.bench.targets import MODEL, WHOLE, tubelet, write_model
from tests.simulation.clock import Clock
from tests.simulation.policies import POLICIES
from tests.simulation.server import Server
from tests.simulation.videos import DeviceCosts, Machine, Video
from tubelet.service.config.config import ServerConfig
from tubelet.service.fair_queue import FairQueue

_RETRY_S = 0.1
_BURST_AT, _BURST_FOR = 20 / 24, 0.5 / 24  # of a day


@dataclass(frozen=True, slots=True)
class Seen:
    """What clients measured over some time; ``device_s`` is the mean time of a device for a video."""

    rate: float
    p50_s: float
    p99_s: float
    device_s: float

    @classmethod
    def of(cls, latencies_s: Sequence[float], wall_s: float, busy_s: float = 0.0) -> "Seen":
        """Sum up ``latencies_s`` of answered videos over ``wall_s``; devices computed for ``busy_s``."""
        ranked = sorted(latencies_s)
        if not ranked:
            return cls(0.0, math.nan, math.nan, math.nan)
        p50_s, p99_s = (ranked[min(len(ranked) - 1, int(part * len(ranked)))] for part in (0.5, 0.99))
        return cls(len(ranked) / wall_s, p50_s, p99_s, busy_s / len(ranked))


@dataclass(frozen=True, slots=True)
class Traffic:
    """The load that ``tests.bench.load.drive`` makes: a number of clients in a loop, or videos a second."""

    clients: int = 0
    rate: float | None = None
    deadline_s: float | None = None


def predict(machine: Machine, costs: StageCosts, other_s: float, traffic: Traffic, seconds: float) -> Seen:
    """Simulate ``traffic`` for ``seconds``, on a server that has already learnt the costs of videos."""
    chance = random.Random(0)
    order = endlessly(costs.clips, chance)
    clock = Clock()
    server = Server(clock, machine, costs.device)
    for clip in costs.clips:
        server.submit(_video(clip, costs, other_s, clock.now, None))
        clock.run()
    began_s, busy_s = clock.now, server.device_busy_s
    videos: list[Video] = []

    def new(arrival_s: float) -> Video:
        videos.append(_video(next(order), costs, other_s, arrival_s, traffic.deadline_s))
        return videos[-1]

    def again(video: Video) -> None:
        """Send the next video of the same client."""
        pause_s = 0.0 if video.answered_s is not None else _pause_s(video)
        if clock.now + pause_s < began_s + seconds:
            ask(clock.now + pause_s)

    def ask(arrival_s: float) -> None:
        video = new(arrival_s)
        server.submit(video, lambda: again(video))

    if traffic.rate is None:
        for _ in range(traffic.clients):
            ask(began_s)
    else:
        arrivals, arrival_s = random.Random(ARRIVALS), began_s
        while (arrival_s := arrival_s + arrivals.expovariate(traffic.rate)) < began_s + seconds:
            server.submit(new(arrival_s))
    clock.run()
    server.close()
    latencies_s = [video.latency_s for video in videos if video.latency_s is not None]
    return Seen.of(latencies_s, max(clock.now - began_s, seconds), server.device_busy_s - busy_s)


def _pause_s(video: Video) -> float:
    return _RETRY_S if video.retry_after_s is None else video.retry_after_s


def _video(
    clip: ClipCost, costs: StageCosts, other_s: float, arrival_s: float, deadline_s: float | None
) -> Video:
    windows = max(1, round(clip.units / costs.units_per_window))
    units = windows * costs.units_per_window
    return Video(arrival_s, windows, costs.units_per_window, clip.decode_s / units, other_s, deadline_s)


def _poisson(
    rate: Callable[[float], float], peak: float, seconds: float, chance: random.Random
) -> Iterator[float]:
    """Return arrival times of a Poisson process with a varying ``rate``, by thinning."""
    time_s = 0.0
    while (time_s := time_s + chance.expovariate(peak)) < seconds:
        if chance.random() * peak < rate(time_s):
            yield time_s


def show_machine(store: Path, clips: list[Path], costs: StageCosts, seconds: float, console: Console) -> None:
    cores = len(os.sched_getaffinity(0))
    machine = Machine(
        cores, cores, cores // (costs.threads or cores), costs.threads, max_batch_units=costs.max_batch_units
    )
    shown = Table("", "videos/s", "predicted", "off", "p50 ms", "predicted", "p99 ms", "predicted", box=None)
    with tubelet(store) as target:
        drive(target, clips, 3, clients=2)
        client_s = _own_s()
        alone = drive(target, clips, seconds, clients=1)
        client_s = _own_s() - client_s
        videos = len(alone.latencies_s)
        # Batches of one client are small, which makes them dear: that is the schedule's, not the video's.
        device_s = predict(machine, costs, 0.0, Traffic(clients=1), seconds).device_s
        stages_s = costs.decode_s + (costs.threads or 1) * device_s
        other_s = max(0.0, (sum(alone.cpu_s.values()) + client_s) / videos - stages_s)
        console.print(
            f"a video costs {other_s * 1000:.0f} CPU-ms beside decoding and computing, clients included"
        )
        limit = costs.limit(cores)
        rows: list[tuple[str, Traffic]] = [
            ("closed loop, 4", Traffic(clients=4)),
            ("closed loop, 16", Traffic(clients=16)),
            ("open loop, 60 %", Traffic(rate=0.6 * limit)),
            (
                f"{CLIENTS_WITH_DEADLINE} clients, {DEADLINE_S:g} s",
                Traffic(clients=CLIENTS_WITH_DEADLINE, deadline_s=DEADLINE_S),
            ),
        ]
        _compare(
            shown, "closed loop, 1", predict(machine, costs, other_s, Traffic(clients=1), seconds), alone
        )
        for name, traffic in rows:
            predicted = predict(machine, costs, other_s, traffic, seconds)
            load = drive(
                target,
                clips,
                seconds,
                clients=traffic.clients,
                rate=traffic.rate,
                deadline_s=traffic.deadline_s or 600.0,
            )
            _compare(shown, name, predicted, load)
    console.print(shown)


def _own_s() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system


def _compare(shown: Table, name: str, predicted: Seen, load: Load) -> None:
    found = Seen.of(load.latencies_s, load.wall_s)
    shown.add_row(
        name,
        f"{found.rate:.2f}",
        f"{predicted.rate:.2f}",
        f"{predicted.rate / found.rate - 1:+.0%}" if found.rate else "",
        *(f"{each_s * 1000:.0f}" for each_s in (found.p50_s, predicted.p50_s, found.p99_s, predicted.p99_s)),
    )


def show_policies(costs: StageCosts, gpu: DeviceCosts, decoders: int, console: Console) -> None:
    """Compare policies on a GPU at 85 %: 97 of 100 videos have one window, 3 have 150, most of the work."""
    short, long, share = 1, 150, 0.03
    machine = Machine(decoders, decoders, max_batch_units=32)
    per_window = costs.units_per_window
    unit_decode_s = costs.decode_s / statistics.mean(clip.units for clip in costs.clips)
    mean_windows = short * (1 - share) + long * share
    rate = 0.85 * _videos_a_second(
        gpu, machine, mean_windows * per_window, mean_windows * per_window * unit_decode_s
    )
    shown = Table("policy", "short p50 ms", "p99", "long p50 ms", "p99", "in 2 s", "GPU busy", box=None)
    for name, policy in POLICIES.items():
        chance = random.Random(0)
        videos = [
            Video(arrival_s, long if chance.random() < share else short, per_window, unit_decode_s)
            for arrival_s in _poisson(lambda _: rate, rate, 4000 / rate, chance)
        ]
        seconds, busy_s = _serve(machine, gpu, policy, videos)
        cells: list[str] = []
        for windows in (short, long):
            seen = Seen.of(
                [each.latency_s or math.inf for each in videos if each.windows == windows], seconds
            )
            cells += [f"{seen.p50_s * 1000:.0f}", f"{seen.p99_s * 1000:.0f}"]
        in_time = sum((each.latency_s or math.inf) <= DEADLINE_S for each in videos) / len(videos)
        shown.add_row(name, *cells, f"{in_time:.1%}", f"{busy_s / seconds:.0%}")
    console.print(
        f"one GPU, {decoders} decoders, {rate:.1f} videos/s, of which {share:.0%} are {long} windows long"
    )
    console.print(shown)


def show_gpus(costs: StageCosts, gpu: DeviceCosts, decoders: int, videos: int, console: Console) -> None:
    columns = ("GPUs", "capacity/s", "peak/s", "answered in time", "refused", "p50 ms", "p99 ms", "GPUs busy")
    shown = Table(*columns, box=None)
    units = statistics.mean(clip.units for clip in costs.clips)
    for gpus in (1, 2, 4, 8, 16, 32, 64):
        machine = Machine(gpus * decoders, gpus * decoders, gpus)
        capacity = _videos_a_second(gpu, machine, units, costs.decode_s)
        day = _a_day(costs, capacity, videos)
        seconds, busy_s = _serve(machine, gpu, FairQueue, day)
        seen = Seen.of([each.latency_s for each in day if each.latency_s is not None], seconds)
        answered = sum(each.answered_s is not None for each in day) / len(day)
        refused = sum(each.is_refused for each in day) / len(day)
        rates = (f"{each:.0f}" for each in (gpus, capacity, 1.35 * capacity))
        times = (f"{each_s * 1000:.0f}" for each_s in (seen.p50_s, seen.p99_s))
        shown.add_row(*rates, f"{answered:.1%}", f"{refused:.1%}", *times, f"{busy_s / seconds / gpus:.0%}")
    console.print(
        f"a day of {videos} videos with a deadline of {DEADLINE_S:g} s: little by night, 90 % of what can be "
        f"done by day, 135 % for an hour; {decoders} decoders a GPU, {gpu.unit_s * 1e6:.0f} us a unit"
    )
    console.print(shown)


def _videos_a_second(gpu: DeviceCosts, machine: Machine, units: float, decode_s: float) -> float:
    """Return the capacity in videos a second: the lower one of devices and decoders."""
    unit_s = gpu.unit_s + gpu.encode_batch_s / machine.max_batch_units
    return min(machine.devices / (units * unit_s), machine.decoders / decode_s)


def _a_day(costs: StageCosts, capacity: float, videos: int) -> list[Video]:
    """Return a day's traffic as a number of ``videos``: with a larger ``capacity``, the day is shorter."""
    chance = random.Random(0)
    order = endlessly(costs.clips, chance)
    day_s = videos / (0.5 * capacity)

    def rate(time_s: float) -> float:
        part = time_s / day_s
        in_burst = abs(part - _BURST_AT) < _BURST_FOR / 2
        return capacity * (1.35 if in_burst else 0.5 - 0.4 * math.cos(2 * math.pi * part))

    arrivals = _poisson(rate, 1.35 * capacity, day_s, chance)
    return [_video(next(order), costs, 0.0, arrival_s, DEADLINE_S) for arrival_s in arrivals]


def _serve(
    machine: Machine, gpu: DeviceCosts, policy: Callable[[], FairQueue[Any]], videos: Sequence[Video]
) -> tuple[float, float]:
    """Serve ``videos`` until all are answered; return how long that took, and how long devices were busy."""
    clock = Clock()
    server = Server(clock, machine, gpu, policy, ServerConfig(max_videos_in_flight=100_000))
    for video in videos:
        server.submit(video)
    clock.run()
    server.close()
    return clock.now, server.device_busy_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--parts", default="machine,policies,gpus")
    parser.add_argument("--unit-us", type=float, default=600.0, help="of a GPU, for a unit: an assumption")
    parser.add_argument("--batch-us", type=float, default=500.0, help="of a GPU, for a batch, besides")
    parser.add_argument("--decoders", type=int, default=16, help="cores that decode for a GPU")
    parser.add_argument("--videos", type=int, default=20_000, help="of a day")
    arguments = parser.parse_args()
    console = Console(width=128)
    clips = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    gpu = DeviceCosts(arguments.batch_us / 1e6, arguments.unit_us / 1e6, 1e-4, 1e-5)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        write_model(store)
        costs = asyncio.run(measure_stages(store, MODEL, clips, WHOLE))
        device = costs.device
        console.print(
            f"{len(clips)} clips: one costs {costs.decode_s:.3f} CPU-s to decode and {costs.compute_s:.3f} "
            f"to compute; {costs.max_batch_units} units a batch, {device.encode_batch_s * 1000:.1f} ms and "
            f"{device.unit_s * 1000:.1f} ms a unit"
        )
        if "machine" in arguments.parts:
            show_machine(store, clips, costs, arguments.seconds, console)
    if "policies" in arguments.parts:
        show_policies(costs, gpu, arguments.decoders, console)
    if "gpus" in arguments.parts:
        show_gpus(costs, gpu, arguments.decoders, arguments.videos, console)


if __name__ == "__main__":
    main()
