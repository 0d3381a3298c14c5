"""What ``fast`` saves, and what it costs in labels, over real clips with the default model.

    python -m tests.bench.fast ../shared/videos/real

Sends every clip below the folder to a real server twice, exact and fast, one after the other, as sliding
windows and as a whole, and prints the decoder's time and work beside the agreement of the labels.
"""

import argparse
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.serve import Server, started
from tubelet.service.client import Client
from tubelet.service.types.request import Options, Sliding, WholeVideo
from tubelet.service.types.result import Classification
from tubelet.service.types.video import NS_PER_S

_FRAMES = "tubelet_frames_decoded_total"


@dataclass(slots=True)
class Side:
    """The sums of one kind of request, over all clips and rounds."""

    answers: list[Classification] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)
    frames: float = 0.0


def ask(
    server: Server, client: Client, clip: Path, windowing: Sliding | WholeVideo, side: Side, *, fast: bool
) -> None:
    before = server.metric(_FRAMES)
    answer = client.classify(clip, Options(windowing=windowing, fast=fast, top_k=20))
    side.frames += server.metric(_FRAMES) - before
    side.answers.append(answer)
    side.decode_s.append(answer.stage_seconds["decode"])


def row(name: str, exact: Side, fast: Side) -> tuple[str, ...]:
    pairs = list(zip(exact.answers, fast.answers, strict=True))
    segments = [
        (one.labels[0].name, other.labels[0].name)
        for exact_answer, fast_answer in pairs
        for one, other in zip(exact_answer.segments, fast_answer.segments, strict=True)
    ]
    saved = [one / other for one, other in zip(exact.decode_s, fast.decode_s, strict=True)]
    return (
        name,
        f"{sum(exact.decode_s):.2f}",
        f"{sum(fast.decode_s):.2f}",
        f"{statistics.median(saved):.2f}",
        f"{exact.frames:.0f}",
        f"{fast.frames:.0f}",
        f"{statistics.mean(a == b for a, b in segments):.3f} of {len(segments)}",
        f"{statistics.mean(a.labels[0].name == b.labels[0].name for a, b in pairs):.3f} of {len(pairs)}",
        f"{max(answer.max_frame_offset_ns for answer in fast.answers) / NS_PER_S:.2f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    clips = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    columns = (
        "windows",
        "exact s",
        "fast s",
        "x median",
        "frames",
        "fast",
        "same segment",
        "same video",
        "off s",
    )
    shown = Table(*columns, box=None)
    with started() as server, Client(f"127.0.0.1:{server.port}") as client:
        for name, windowing in (("sliding", Sliding()), ("whole video", WholeVideo())):
            exact, fast = Side(), Side()
            for _ in range(arguments.rounds):
                for clip in clips:
                    ask(server, client, clip, windowing, exact, fast=False)
                    ask(server, client, clip, windowing, fast, fast=True)
            shown.add_row(*row(name, exact, fast))
    Console(width=128).print(shown)


if __name__ == "__main__":
    main()
