"""Measures ``tubelet batch --ray`` beside ``tubelet batch`` and Ray Data: same clips, weights and cores.

    python -m tests.bench.ray_speed FOLDER [--videos 400] [--rounds 15] [--keep FILE.jsonl]
    python -m tests.bench.ray_speed FOLDER --kill

Each round runs all of them over the clips of FOLDER, again and again up to so many videos; the order changes
from round to round. Ray has the CPUs of this machine, on a cluster of its own that is there before; tubelet
has one actor there. ``peers/ray_data.py`` says what Ray Data does. The time is from the first video that
begins to the last commit, so loading the model does not count. There is no embedding cache. As the control,
each round runs ``tubelet batch`` twice. With ``--keep``, the rounds are added to those in a file.

With ``--kill``, each of those on Ray runs twice: once as it is, where the memory is sampled (PSS of its
driver and of all processes of the cluster), and once with the process that has the model killed half-way.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import pyarrow.parquet
from rich.console import Console

from tests.bench.costs import keep_rounds, kept_rounds, median_interval
from tests.support.batches import committed_rows
from tests.support.cli_process import TUBELET
from tests.support.ray_cluster import ENVIRONMENT, RayCluster, ray_cluster
from tubelet.models.repository.repository import ZOO
from tubelet.service.process_memory import read_memory

_JOBS = "16"
_MODEL = "camera-motion"
_SAMPLE_S = 1.0
_TITLES = {"tubelet on Ray": "ray::BatchActor.run", "Ray Data": "ray::MapWorker(MapBatches(Classify)).submit"}
"""Of the process that has the model while it works, as Ray names it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run on Ray did: its time and memory; rows that are lost and doubled, and work done again."""

    elapsed_s: float
    peak_pss_mb: float
    lost_videos: int
    doubled_rows: int
    redone_videos: int
    redone_windows: int | None  # None: tubelet computes all windows of its videos again, and no others


def write_manifest(file: Path, clips: Sequence[Path], videos: int) -> None:
    """Write a manifest of the clips, in turns, each as a video of its own."""
    rows = ({"uri": str(clips[n % len(clips)].absolute()), "id": f"{n}"} for n in range(videos))
    file.write_text("\n".join(map(json.dumps, rows)))


def command(name: str, manifest: Path, out: Path, address: str) -> list[str]:
    """Return the command of a contender."""
    if name == "Ray Data":
        module = [sys.executable, "-m", "tests.bench.peers.ray_data"]
        return [*module, address, str(manifest), str(out), str(ZOO), _MODEL]
    own = [TUBELET, "batch", str(manifest), "--out", str(out), "--jobs", _JOBS, "--json"]
    return [*own, "--ray", address] if name == "tubelet on Ray" else own


def environment() -> dict[str, str]:
    """Return the environment of all contenders."""
    return os.environ | ENVIRONMENT | {"TUBELET_ENGINE__CACHE_BYTES": "0", "TUBELET_MODELS__DEFAULT": _MODEL}


def rate(name: str, manifest: Path, address: str) -> float:
    """Run a contender, and return the videos that it classified in a second."""
    with tempfile.TemporaryDirectory() as folder:
        own = command(name, manifest, Path(folder) / "rows", address)
        done = subprocess.run(own, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["videos_per_s"]


def worker(name: str, cluster: RayCluster) -> psutil.Process | None:
    """Return the process that has the model, if it works."""
    for process in cluster.holder.children(recursive=True):
        try:
            title = process.cmdline()[:1]
        except psutil.Error:  # it has ended
            continue
        if title and title[0].startswith(_TITLES[name]):
            return process
    return None


def watched(name: str, manifest: Path, cluster: RayCluster, kill_after_s: float | None) -> Outcome:
    """Run a contender on Ray, and sample its memory; or kill the process with the model once."""
    with tempfile.TemporaryDirectory() as folder:
        out, peak, working_since = Path(folder) / "rows", 0, 0.0
        own = command(name, manifest, out, cluster.address)
        with subprocess.Popen(own, env=environment(), stdout=subprocess.PIPE, text=True) as run:
            driver = psutil.Process(run.pid)
            while run.poll() is None:
                time.sleep(_SAMPLE_S if kill_after_s is None else 0.1)
                if kill_after_s is None:
                    tree = [driver, cluster.holder, *cluster.holder.children(recursive=True)]
                    peak = max(peak, read_memory([process.pid for process in tree]).total_bytes)
                elif (process := worker(name, cluster)) is not None:
                    working_since = working_since or time.monotonic()
                    if time.monotonic() - working_since >= kill_after_s:
                        process.kill()
                        kill_after_s = float("inf")
            assert run.stdout is not None
            said = json.loads(run.stdout.read().splitlines()[-1])
        assert kill_after_s in (None, float("inf")), "nothing was killed"
        wanted = {json.loads(line)["id"] for line in manifest.read_text().splitlines()}
        if name == "Ray Data":
            begun = (out / "begun.txt").read_text().splitlines()
            rows = pyarrow.parquet.read_table(out / "rows").select(["id", "window"]).to_pylist()
            counts = Counter((row["id"], row["window"]) for row in rows)
            ids, redone = {row["id"] for row in rows}, len(begun) - len(wanted)
            computed = sum(map(int, (out / "computed.txt").read_text().split()))
            windows = computed - len(rows)
        else:
            counts = Counter(row["id"] for row in committed_rows(out, "videos"))
            ids, redone, windows = set(counts), said["redone"], None
    doubled = sum(count - 1 for count in counts.values())
    return Outcome(said["elapsed_s"], peak / 1e6, len(wanted - ids), doubled, redone, windows)


def print_kills(manifest: Path, cluster: RayCluster, console: Console) -> None:
    """Run each contender on Ray with and without a kill, and print what they did."""
    idle = [cluster.holder, *cluster.holder.children(recursive=True)]
    idle_mb = read_memory([process.pid for process in idle]).total_bytes / 1e6
    console.print(f"the cluster alone: {idle_mb:.0f} MB")
    for name in _TITLES:
        whole = watched(name, manifest, cluster, None)
        console.print(f"{name}: {json.dumps(asdict(whole))}")
        killed = watched(name, manifest, cluster, whole.elapsed_s / 2)
        console.print(f"{name}, one kill: {json.dumps(asdict(killed))}")


def print_summary(names: Sequence[str], rounds: Sequence[dict[str, float]], console: Console) -> None:
    """Print the median of each contender, and the ratios to ``tubelet batch``."""
    for name in names:
        console.print(f"{name}: median {statistics.median(each[name] for each in rounds):.2f} videos/s")
    for name in names[1:]:
        ratio, low, high = median_interval([each[name] / each[names[0]] for each in rounds])
        console.print(f"{name} / {names[0]}: {ratio:.3f} ({low:.3f} to {high:.3f}), {len(rounds)} rounds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--kill", action="store_true")
    arguments = parser.parse_args()
    clips = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    console = Console(width=140)
    rounds = kept_rounds(arguments.keep)
    names = ["batch", *_TITLES, "batch again"]
    with ExitStack() as stack:
        manifest = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "videos.jsonl"
        write_manifest(manifest, clips, arguments.videos)
        cluster = stack.enter_context(ray_cluster(os.cpu_count() or 1))
        if arguments.kill:
            print_kills(manifest, cluster, console)
            return
        for _ in range(arguments.rounds):
            order = names[:: 1 if len(rounds) % 2 == 0 else -1]
            rounds.append({name: rate(name, manifest, cluster.address) for name in order})
            console.print(", ".join(f"{name} {rounds[-1][name]:.2f}" for name in names), "videos/s")
            keep_rounds(arguments.keep, rounds)
    print_summary(names, rounds, console)


if __name__ == "__main__":
    main()
