"""Kills actors of ``tubelet batch --ray`` at random, and counts what is lost, doubled and redone.

    python -m tests.bench.ray_kills FOLDER [--clips 5000] [--kill-every 30] [--jobs 8]

FOLDER gets the clips, each a file with bytes of its own, and the rows. The cluster is a real one on this
machine: a head, and two nodes of one CPU with an actor each. There is no embedding cache. Rows are compared
with those of ``tubelet batch`` in one process, over one clip of each different content. The memory of driver
and actors is sampled; with ``--kill-every 0`` nothing is killed, to see whether it stays flat.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tests.support.batches import committed_rows, doubled, named_parts, part_files
from tests.support.cli_process import TUBELET
from tests.support.ray_cluster import ENVIRONMENT, RayCluster, ray_cluster
from tests.support.sample_clip import panning_clip
from tubelet.service.batch.rows import Row

_CONTENTS = 20
_SAMPLE_S = 10.0


@dataclass(frozen=True, slots=True)
class Kill:
    """An actor that was killed: when, and whether it had videos in progress."""

    at_s: float
    in_flight: bool


def make_clips(folder: Path, count: int) -> None:
    """Write clips; number N has the pictures of number N % 20, and bytes of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [panning_clip(1.0 + 0.1 * number) for number in range(_CONTENTS)]
    for number in range(count):
        name = f"{number}".encode()
        box = (8 + len(name)).to_bytes(4, "big") + b"free" + name  # which players skip
        (folder / f"{number:06}.mp4").write_bytes(pictures[number % _CONTENTS] + box)


def command(clips: str, rows: Path, *options: str) -> list[str]:
    """Return the command of a batch."""
    own = [TUBELET, "batch", clips, "--out", str(rows), "--json"]
    return [*own, *options]


def kill_one(cluster: RayCluster, since_s: float) -> Kill | None:
    """Kill an actor at random; None: there is none."""
    actors = cluster.actors()
    if not actors:
        return None
    actor = random.choice(actors)
    try:
        in_flight = actor.cmdline()[0].endswith(".run")
        actor.kill()
    except psutil.Error:
        return None
    return Kill(time.monotonic() - since_s, in_flight)


def memory_mb(processes: list[psutil.Process]) -> list[float]:
    """Return the resident memory of each process that is still there, in MB."""
    found = []
    for process in processes:
        try:
            found.append(process.memory_info().rss / 1e6)
        except psutil.Error:
            continue
    return found


def differences(rows: list[Row], wanted: list[Row]) -> Iterator[float]:
    """Yield the largest difference of a score of each row to the row of one process with its pictures."""
    by_content = {_number(row): row for row in wanted}
    for row in rows:
        other = by_content[_number(row) % _CONTENTS]
        scores = dict(zip(other["labels"], other["scores"], strict=True))
        assert row["code"] == "OK", row
        yield max(
            abs(score - scores[label]) for label, score in zip(row["labels"], row["scores"], strict=True)
        )


def _number(row: Row) -> int:
    """Return the number of a row's clip."""
    return int(Path(row["uri"]).stem)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--kill-every", type=float, default=30.0)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    clips, rows, alone = (arguments.folder / name for name in ("clips", "rows", "alone"))
    make_clips(clips, arguments.clips)
    environment = os.environ | ENVIRONMENT | {"TUBELET_ENGINE__CACHE_BYTES": "0"}
    pattern = f"{clips}/0000[01]?.mp4"
    subprocess.run(command(pattern, alone, "--top-k", "15"), env=environment, check=True)
    kills: list[Kill] = []
    with ray_cluster(1, 1) as cluster:
        options = (
            "--resume",
            "--ray",
            cluster.address,
            "--jobs",
            str(arguments.jobs),
            "--commit-every",
            "10",
        )
        with subprocess.Popen(
            command(str(clips), rows, "--top-k", "15", *options), env=environment, stdout=subprocess.PIPE
        ) as run:
            since_s = time.monotonic()
            next_kill_s = next_sample_s = since_s + arguments.kill_every
            driver = psutil.Process(run.pid)
            while run.poll() is None:
                time.sleep(0.5)
                now_s = time.monotonic()
                if arguments.kill_every and now_s >= next_kill_s:
                    if (kill := kill_one(cluster, since_s)) is not None:
                        kills.append(kill)
                        print(json.dumps(asdict(kill)), flush=True)
                    next_kill_s = now_s + arguments.kill_every * random.uniform(0.7, 1.3)
                if now_s >= next_sample_s:
                    figures = {"driver_mb": memory_mb([driver]), "actors_mb": memory_mb(cluster.actors())}
                    print(json.dumps({"at_s": now_s - since_s, **figures}), flush=True)
                    next_sample_s = now_s + _SAMPLE_S
            said = json.loads(run.stdout.read()) if run.stdout is not None else {}
    found = committed_rows(rows, "videos")
    off = list(differences(found, committed_rows(alone, "videos")))
    ids = {row["id"] for row in found}
    summary = {
        "videos": arguments.clips,
        "rows": len(found),
        "lost": arguments.clips - len(ids),
        "doubled": len(doubled(found)),
        "parts_without_commit": len(part_files(rows) - named_parts(rows)),
        "kills": len(kills),
        "kills_in_flight": sum(each.in_flight for each in kills),
        "redone": said["redone"],
        "lost_actors": said["lost_actors"],
        "videos_per_s": said["videos_per_s"],
        "largest_difference": max(off),
        "median_difference": statistics.median(off),
    }
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
