"""Measures ``tubelet batch --ray`` beside ``tubelet batch``: same clips, model and cores, after their starts.

    python -m tests.bench.ray_speed FOLDER [--videos 400] [--pairs 15] [--control]

Each round runs both commands over the clips of FOLDER, again and again up to so many videos; the order
changes from round to round. Ray has one actor with the CPUs of this machine, on a cluster of its own that is
there before. The time is from the first video that begins to the last commit, so loading the model does not
count. There is no embedding cache. The control is ``tubelet batch`` against itself.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from tests.bench.costs import median_interval
from tests.support.cli_process import TUBELET
from tests.support.ray_cluster import ENVIRONMENT, ray_cluster

_JOBS = "16"


def write_manifest(file: Path, clips: Sequence[Path], videos: int) -> None:
    """Write a manifest of the clips, in turns, each as a video of its own."""
    rows = ({"uri": str(clips[n % len(clips)].absolute()), "id": f"{n}"} for n in range(videos))
    file.write_text("\n".join(map(json.dumps, rows)))


def rate(manifest: Path, *options: str) -> float:
    """Run the command, and return the videos that it classified in a second."""
    with tempfile.TemporaryDirectory() as folder:
        command = [TUBELET, "batch", str(manifest), "--out", f"{folder}/rows", "--jobs", _JOBS, "--json"]
        environment = os.environ | ENVIRONMENT | {"TUBELET_ENGINE__CACHE_BYTES": "0"}
        done = subprocess.run([*command, *options], env=environment, capture_output=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["videos_per_s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--control", action="store_true")
    arguments = parser.parse_args()
    clips = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    console, rounds = Console(width=140), list[tuple[float, float]]()
    with ExitStack() as stack:
        manifest = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "videos.jsonl"
        write_manifest(manifest, clips, arguments.videos)
        name, options = "batch again", ()
        if not arguments.control:
            cluster = stack.enter_context(ray_cluster(os.cpu_count() or 1))
            name, options = "on Ray", ("--ray", cluster.address)
        for number in range(arguments.pairs):
            if number % 2 == 0:
                other = rate(manifest, *options)
                rounds.append((other, rate(manifest)))
            else:
                own = rate(manifest)
                rounds.append((rate(manifest, *options), own))
            console.print(f"{name} {rounds[-1][0]:.2f}, batch {rounds[-1][1]:.2f} videos/s")
    for each, rates in zip((name, "batch"), zip(*rounds, strict=True), strict=True):
        console.print(f"{each}: median {statistics.median(rates):.2f} videos/s")
    ratio, low, high = median_interval([first / second for first, second in rounds])
    console.print(f"{name} / batch: {ratio:.3f} ({low:.3f} to {high:.3f}), {len(rounds)} rounds")


if __name__ == "__main__":
    main()
