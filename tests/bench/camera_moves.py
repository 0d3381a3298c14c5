"""Renders labelled camera moves with ffmpeg's crop, zoompan and rotate, not with the code of the training.

    python -m tests.bench.camera_moves --videos ../shared/videos --out runs/moves-test --split test

Writes clips of five seconds, encoded with x264, and ``labels.csv`` with their labels. Moving pictures come
from videos whose camera is static, still pictures from any video. Moves are so fast that every window of one
second or more shows them. The unit of lengths is a side: the shorter side of the picture.
"""

import argparse
import csv
import math
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tubelet.models.training.simulation.camera_path import LABELS
from tubelet.models.training.simulation.sources import Source
from tubelet.service.cli.training.scene_split import scene_of
from tubelet.service.cli.training.sources import load_sources
from tubelet.service.config.config import load_config

DURATION_S = 5.0
SIZES = ((320, 240), (426, 240), (640, 360), (256, 256), (240, 320), (480, 270), (360, 640))
RATES = ("24", "25", "30", "30000/1001")
SHIFT_PER_S = (0.08, 0.35)  # sides
ZOOM_PER_S = (0.09, 0.22)  # natural logarithm of the ratio of sizes
ROLL_PER_S = (6.0, 35.0)  # degrees
SHAKE_RMS = (0.016, 0.05)  # sides
SHAKE_HZ = (2.0, 7.0)
UNEVEN = 0.25  # how much faster and slower than on average a move may run
SEED = 1


@dataclass(frozen=True, slots=True)
class Shot:
    """One clip to render: ``speed`` in the unit of its label's bounds above."""

    file: str
    label: str
    source: Source
    seed: int


def plan(sources: list[Source], per_class: int, seed: int) -> list[Shot]:
    """Plan ``per_class`` shots of every label, over as many scenes as there are."""
    rng = random.Random(seed)
    still = [source for source in sources if not source.moving]
    moving = [source for source in sources if source.moving]
    shots = []
    for label in LABELS:
        # A static camera is only told from a still picture by what moves before it.
        share_moving = 0.8 if label == "static" else 0.5
        for number in range(per_class):
            pool = moving if number < share_moving * per_class else still
            source = pool[(number * 7 + rng.randrange(len(pool))) % len(pool)]
            shots.append(Shot(f"{label}-{number:03d}.mp4", label, source, rng.randrange(2**31)))
    return shots


def command(shot: Shot, videos: Path, out: Path) -> list[str]:
    """Return the ffmpeg command line that renders ``shot``."""
    rng = random.Random(shot.seed)
    width, height = rng.choice(SIZES)
    rate = rng.choice(RATES)
    path = videos / shot.source.name
    if shot.source.moving:
        # There and back again: as long as needed, and nothing jumps.
        first = f"fps={rate},split[a][b];[b]reverse[r];[a][r]concat,loop=-1:size=600,setpts=N/({rate})/TB,"
        read = ["-t", f"{DURATION_S}", "-i", str(path)]
    else:
        # The most typical of the first frames: the very first one may be black, and there may be no other.
        first = f"thumbnail=n=20,select='eq(n,0)',loop=-1:size=1,fps={rate},setpts=N/({rate})/TB,"
        read = ["-i", str(path)]
    chain = _move(shot.label, width, height, rate, rng)
    graph = f"[0:v:0]{first}format=yuv444p,{chain},setsar=1,format=yuv420p[v]"
    quality = str(rng.randrange(19, 33))
    return [
        *("ffmpeg", "-v", "error", "-nostdin", "-y", "-threads", "1", *read),
        *("-filter_complex", graph, "-map", "[v]", "-t", f"{DURATION_S}", "-r", rate),
        *("-c:v", "libx264", "-preset", "veryfast", "-crf", quality, "-threads", "1", str(out / shot.file)),
    ]


def _move(label: str, width: int, height: int, rate: str, rng: random.Random) -> str:
    """Return the filters that move a window of ``width`` x ``height`` over a canvas."""
    side = min(width, height)
    kind, _, way = label.partition("_")
    sign = -1 if way in ("left", "up", "ccw", "out") else 1
    margin = rng.uniform(1.02, 1.3)
    # Time that runs unevenly, from 0 to about the duration.
    hz, phase = rng.uniform(0.1, 0.6), rng.uniform(0, 2 * math.pi)
    uneven = rng.uniform(0, UNEVEN) / (2 * math.pi * hz)
    time = f"({{t}}+{uneven:.5f}*(sin(2*PI*{hz:.4f}*{{t}}+{phase:.4f})-{math.sin(phase):.5f}))"
    match kind:
        case "pan" | "tilt":
            speed = sign * _log_uniform(SHIFT_PER_S, rng) * side
            way_px = abs(speed) * DURATION_S * 1.08 + 4
            along = f"(({{size}}-{{out}})/2-{speed * DURATION_S / 2:.4f}+{speed:.4f}*{time.format(t='t')})"
            x = along.format(size="iw", out="ow") if kind == "pan" else "(iw-ow)/2"
            y = along.format(size="ih", out="oh") if kind == "tilt" else "(ih-oh)/2"
            room = (way_px, 0.0) if kind == "pan" else (0.0, way_px)
            return (
                f"{_canvas(width + room[0], height + room[1], margin)},crop={width}:{height}:x='{x}':y='{y}'"
            )
        case "zoom":
            speed = _log_uniform(ZOOM_PER_S, rng)
            at = time.format(t=f"(on/({rate}))")
            run = at if sign > 0 else f"({DURATION_S * 1.04}-{at})"
            # zoompan moves in whole pixels of its input: a large canvas keeps it from trembling.
            return (
                f"{_canvas(3 * width, 3 * height, margin)},crop={3 * width}:{3 * height},"
                f"zoompan=z='exp({speed:.5f}*{run})':x='iw/2-iw/zoom/2':y='ih/2-ih/zoom/2'"
                f":d=1:s={width}x{height}:fps={rate}"
            )
        case "roll":
            # The rotate filter turns the picture, so a camera that turns clockwise is a negative angle.
            speed = -sign * math.radians(_log_uniform(ROLL_PER_S, rng))
            start = rng.uniform(-0.2, 0.2)
            diagonal = math.hypot(width, height) + 4
            angle = f"{start:.4f}+{speed:.5f}*{time.format(t='t')}"
            return (
                f"{_canvas(diagonal, diagonal, margin)},rotate=a='{angle}':ow={width}:oh={height}:bilinear=1"
            )
        case "shake":
            rms = _log_uniform(SHAKE_RMS, rng) * side
            x, y = (_tremble(rms * strength, rng) for strength in (1.0, rng.uniform(0.3, 1.0)))
            room = 8 * rms
            return (
                f"{_canvas(width + room, height + room, margin)},"
                f"crop={width}:{height}:x='(iw-ow)/2+{x}':y='(ih-oh)/2+{y}'"
            )
    return f"{_canvas(width, height, margin)},crop={width}:{height}"


def _canvas(width: float, height: float, margin: float) -> str:
    """Scale the source, keeping its shape, until it covers width x height times ``margin``."""
    size = f"{math.ceil(width * margin)}:{math.ceil(height * margin)}"
    return f"scale={size}:force_original_aspect_ratio=increase:flags=bicubic"


def _tremble(rms: float, rng: random.Random) -> str:
    """Return a sum of three sines with the root mean square ``rms``, as an ffmpeg expression of t."""
    waves = [(rng.uniform(*SHAKE_HZ), rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 1)) for _ in range(3)]
    total = math.sqrt(sum(strength**2 / 2 for _, _, strength in waves))
    return "+".join(f"{rms * s / total:.4f}*sin(2*PI*{hz:.4f}*t+{p:.4f})" for hz, p, s in waves)


def _log_uniform(bounds: tuple[float, float], rng: random.Random) -> float:
    return math.exp(rng.uniform(*map(math.log, bounds)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--videos", type=Path, required=True, help="the folder that the models were trained on"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/sources"), help="the training's decoded sources"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--per-class", type=int, default=30)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    config = load_config().decode
    sources = load_sources(arguments.videos, arguments.cache, config, test=arguments.split == "test")
    arguments.out.mkdir(parents=True, exist_ok=True)
    shots = plan(sources, arguments.per_class, arguments.seed)

    def render(shot: Shot) -> str:
        done = subprocess.run(
            command(shot, arguments.videos, arguments.out), capture_output=True, text=True, check=False
        )
        return done.stderr.strip() if done.returncode else ""

    with ThreadPoolExecutor(arguments.jobs) as pool:
        failures = list(pool.map(render, shots))
    with (arguments.out / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "label", "source", "scene"))
        for shot, failure in zip(shots, failures, strict=True):
            if failure:
                print(f"{shot.file} not rendered from {shot.source.name}: {failure.splitlines()[-1]}")
            else:
                scene = scene_of(arguments.videos / shot.source.name, arguments.videos)
                table.writerow((shot.file, shot.label, shot.source.name, scene))
    print(f"{failures.count('')} of {len(shots)} clips in {arguments.out}")


if __name__ == "__main__":
    main()
