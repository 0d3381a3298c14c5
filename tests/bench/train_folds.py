"""The levels of ``tubelet train`` beside plain scripts: five folds by scene, answers pooled over the folds.

python -m tests.bench.train_folds clips.csv --out runs/folds
python -m tests.bench.train_folds clips.csv --out runs/folds --only "tubelet: probe" --fold 0

``clips.csv`` has the columns path, label and group, the scene. All contestants train on the same clips and
answer for the same ones. tubelet's are trained by the command, with the clips of a fold as its test split,
into a store in ``--out``; ``tubelet classify`` answers. Scripts (``plain_scripts``) use nothing of tubelet.
Each answer of a contestant for a fold is a file in ``--out``: what is there is not computed again.
Intervals are bootstraps of 95 % over clips, those of differences are paired. K classes.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tests.bench.plain_scripts import SCRIPTS, Fold, Footage
from tubelet.service.cli.evaluation.measures import difference_interval
from tubelet.service.cli.train.data.clips import Clip, read_clips
from tubelet.service.cli.train.data.scene_clusters import scene_folds

FOLDS = 5
BASE = "efficientnet-lite0"
# Contestant -> options of ``tubelet train``.
COMMANDS = {
    "tubelet: probe": ("--from", BASE, "--level", "probe"),
    "tubelet: temporal": ("--from", BASE, "--level", "temporal", "--epochs", "60"),
    "tubelet: the better of the two": ("--from", BASE, "--epochs", "60"),
    "tubelet: r2plus1d from scratch": ("--from", "none", "--family", "r2plus1d", "--epochs", "4"),
    "tubelet: full": ("--from", BASE, "--level", "full", "--epochs", "1"),
    "tubelet: full on camera-motion": ("--from", "camera-motion", "--level", "full", "--epochs", "8"),
    "tubelet: probe on camera-motion": ("--from", "camera-motion", "--level", "probe"),
    "tubelet: temporal on camera-motion": (
        "--from",
        "camera-motion",
        "--level",
        "temporal",
        "--epochs",
        "60",
    ),
}
_TUBELET = (sys.executable, "-c", "from tubelet.service.cli.command import main; main()")


@dataclass(frozen=True, slots=True)
class Result:
    """A contestant's scores for the clips of a fold, by path and label, and what training took, seconds."""

    scores: dict[str, dict[str, float]]
    wall_s: float
    processor_s: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", action="append", choices=[*COMMANDS, *SCRIPTS])
    parser.add_argument("--fold", action="append", type=int, choices=range(FOLDS))
    parser.add_argument("--budget", type=float, default=240, help="processor time of a fold, seconds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clips = read_clips(arguments.data)
    groups = sorted({clip.group for clip in clips})
    scenes = [groups.index(clip.group) for clip in clips]
    folds = scene_folds(scenes, [clip.label for clip in clips], FOLDS)
    print(f"{len(clips)} clips of {len(groups)} scenes, {np.bincount(folds).tolist()} in the folds")
    for name in arguments.only or ():
        for fold in arguments.fold or range(FOLDS):
            file = result_file(arguments.out, name, fold)
            if not file.exists():
                result = run(name, clips, folds == fold, arguments.out, arguments.budget)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps([result.scores, result.wall_s, result.processor_s]))
                print(f"{name}, fold {fold}: {result.processor_s:.0f} s of processor time", flush=True)
    print_table(arguments.out, clips)


def result_file(out: Path, name: str, fold: int) -> Path:
    """Return the file of a contestant's answers for a fold."""
    return out / "answers" / file_name(name) / f"{fold}.json"


def file_name(name: str) -> str:
    """Return a contestant's name as a file's, and as a model's."""
    return name.replace(": ", "-").replace(" ", "-")


def run(name: str, clips: Sequence[Clip], is_test: np.ndarray, out: Path, budget_s: float) -> Result:
    """Train a contestant on the clips that are not ``is_test``, and let it answer for those that are."""
    if name in COMMANDS:
        return run_tubelet(name, clips, is_test, out)
    labels = sorted({clip.label for clip in clips})
    train = [clip for clip, held_out in zip(clips, is_test, strict=True) if not held_out]
    test = [clip for clip, held_out in zip(clips, is_test, strict=True) if held_out]
    footage = Footage(out / "footage")
    footage.embeddings([Path(clip.video) for clip in clips])  # kept, and not part of the time
    classes = np.array([labels.index(clip.label) for clip in train])
    paths = [[Path(clip.video) for clip in part] for part in (train, test)]
    wall, used = time.monotonic(), time.process_time()
    scores = SCRIPTS[name](Fold(paths[0], classes, paths[1], len(labels), budget_s), footage)
    rows = {
        clip.video: dict(zip(labels, row.tolist(), strict=True))
        for clip, row in zip(test, scores, strict=True)
    }
    return Result(rows, time.monotonic() - wall, time.process_time() - used)


def run_tubelet(name: str, clips: Sequence[Clip], is_test: np.ndarray, out: Path) -> Result:
    """Train by the command, then classify the clips of the test with what it stored."""
    data, model = out / f"{file_name(name)}.csv", file_name(name)
    with data.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("path", "label", "group", "split"))
        for clip, held_out in zip(clips, is_test, strict=True):
            split = "test" if held_out else "train"
            lines.writerow((os.path.abspath(clip.video), clip.label, clip.group, split))
    store = out / "store"
    if not (store / BASE).exists():
        _tubelet(store, "models", "import", BASE)
    wall, used = time.monotonic(), _children_s()
    _tubelet(store, "train", str(data), "--name", model, "--replace", *COMMANDS[name])
    seconds = time.monotonic() - wall, _children_s() - used
    videos = [clip.video for clip, held_out in zip(clips, is_test, strict=True) if held_out]
    answers = _tubelet(store, "classify", "--json", "--top-k", "100", "--model", model, *videos)
    scores = {}
    for line in answers.splitlines():
        answer = json.loads(line)
        scores[answer["video"]] = {each["label"]: each["score"] for each in answer["labels"]}
    return Result(scores, *seconds)


def _tubelet(store: Path, *arguments: str) -> str:
    """Run the command on one thread with the models of ``store``; return its standard output."""
    environment = os.environ | {"TUBELET_MODELS__STORE": str(store.resolve()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*_TUBELET, *arguments], env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    return done.stdout


def _children_s() -> float:
    """Return the processor time of all processes that were started and have ended, seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def print_table(out: Path, clips: Sequence[Clip]) -> None:
    """Print a row for each contestant that has answered for all folds, beside the best script."""
    found = {name: each for name in (*COMMANDS, *SCRIPTS) if (each := _answers(out, name, clips)) is not None}
    scripts = [name for name in SCRIPTS if name in found]
    best = max(scripts, key=lambda name: found[name][0].mean(), default=None)
    print("| contestant | accuracy | minus the best script | training, processor s a fold |")
    print("|---|---:|---:|---:|")
    for name, (is_right, seconds) in sorted(found.items(), key=lambda item: -item[1][0].mean()):
        low, high = difference_interval(int(is_right.sum()), 0, len(is_right))
        difference = ""
        if best is not None and name != best:
            gained = int((is_right & ~found[best][0]).sum())
            lost = int((~is_right & found[best][0]).sum())
            least, most = difference_interval(gained, lost, len(clips))
            difference = f"{(gained - lost) / len(clips):+.3f} [{least:+.3f}, {most:+.3f}]"
        print(f"| {name} | {is_right.mean():.3f} [{low:.3f}, {high:.3f}] | {difference} | {seconds:.0f} |")


def _answers(out: Path, name: str, clips: Sequence[Clip]) -> tuple[np.ndarray, float] | None:
    """Return whether each clip was answered right, and the median processor time; None without all folds."""
    files = [result_file(out, name, fold) for fold in range(FOLDS)]
    if not all(file.exists() for file in files):
        return None
    scores, seconds = {}, []
    for file in files:
        of_fold, _, processor_s = json.loads(file.read_text())
        scores |= of_fold
        seconds.append(processor_s)
    is_right = [max(row, key=row.__getitem__) == clip.label for clip in clips for row in [scores[clip.video]]]
    return np.array(is_right), float(np.median(seconds))


if __name__ == "__main__":
    main()
