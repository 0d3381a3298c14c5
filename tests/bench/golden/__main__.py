"""Checks that two commits give the same answers: every clip, every kind of request, the order of events.

    python -m tests.bench.golden OLD NEW [--videos ../shared/videos] [--every 10] [--no-messages]

Checks OLD and NEW out, starts a server of each (float32, one thread, no embedding cache), and sends both the
same requests, one at a time: uploads, streams and ``file:`` URIs, with each option of windowing, ranges and
``fast``. Then come calls that fail: bad options, cancellation, overload, deadlines; and model reloads by
SIGHUP. Times, labels, codes, reasons and events must be equal, scores to 1e-5. Exit status 1 where something
differs. ``--every N`` asks only every N-th of the labelled clips. ``--no-messages`` compares no sentences,
only their reasons."""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from rich.progress import track

from tests.bench.golden.calls import by_uri, stream, upload
from tests.bench.golden.comparison import compare
from tests.bench.golden.scenarios import SCENARIOS, duration
from tests.bench.golden.servers import ROOT, serving
from tubelet.v1 import classification_pb2 as pb


def main() -> None:
    arguments = _arguments()
    clips = _clips(arguments.videos, arguments.every)
    with ExitStack() as stack:
        commits = (arguments.old, arguments.new)
        old, new = (stack.enter_context(serving(each, arguments.videos)) for each in commits)
        differences, asked = [], 0
        for clip in track(clips, "clips"):
            for case, options in _cases().items():
                for way, ask in (("upload", upload), ("streaming", stream), ("file", by_uri)):
                    asked += 1
                    differences += compare(
                        f"{clip.relative_to(arguments.videos)}, {case}, {way}",
                        *(ask(server, clip, options) for server in (old, new)),
                        messages=arguments.messages,
                    )
        for name, scenario in SCENARIOS.items():
            asked += 1
            outcomes = [scenario(server, clips[0]) for server in (old, new)]
            differences += compare(name, *outcomes, messages=arguments.messages)
    for difference in differences:
        print(difference)
    print(f"{asked} asked of each, {len(clips)} clips, {len(differences)} differences")
    sys.exit(1 if differences else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", help="a commit")
    parser.add_argument("new", help="another one")
    parser.add_argument("--videos", type=Path, default=ROOT.parent / "shared" / "videos")
    parser.add_argument("--every", type=int, default=10, help="every N-th of the labelled clips")
    parser.add_argument("--no-messages", dest="messages", action="store_false")
    return parser.parse_args()


def _clips(videos: Path, every: int) -> list[Path]:
    def files(folder: str) -> list[Path]:
        return sorted(
            each for each in (videos / folder).rglob("*") if each.is_file() and each.suffix != ".json"
        )

    return [*files("real"), *files("odd"), *files("labelled")[::every]]


def _cases() -> dict[str, pb.ClassifyOptions]:
    seconds = duration
    return {
        "sliding": pb.ClassifyOptions(top_k=10),
        "dense": pb.ClassifyOptions(sliding=pb.Sliding(window=seconds(1), stride=seconds(0.25)), top_k=3),
        "whole": pb.ClassifyOptions(whole_video=pb.WholeVideo(), top_k=10),
        "views": pb.ClassifyOptions(views=pb.Views(clips=3, crops=3), top_k=10),
        "ranges": pb.ClassifyOptions(ranges=[pb.TimeRange(start=seconds(0.3), end=seconds(1.4))], top_k=10),
        "fast": pb.ClassifyOptions(fast=True, top_k=10),
    }


if __name__ == "__main__":
    main()
