"""How many real clips a head over frozen frames needs: their mean, a CNN over time, a temporal transformer.

python -m tests.bench.frozen_frames clips.csv --out runs/folds

``clips.csv`` and ``--out`` are those of ``train_folds``: the same folds by scene, and the frames' embeddings
by efficientnet-lite0, which are kept there. Each head learns from 25, 50 and 100 % of the clips of each label
that are not in a fold, drawn anew by each seed, the same ones for all heads. Both networks take as many
steps, whatever the number of clips. Each answer for a fold is a file in ``--out``: what is there is not
computed again. Intervals are bootstraps of 95 % over clips, of which each counts with its mean over seeds;
those of differences are paired. N clips, T frames, D width of a frame's embedding, W width, K classes.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.bench.plain_scripts import Fold, Footage, FrameTransformer, ridge_of_mean
from tests.bench.train_folds import FOLDS
from tubelet.service.cli.train.data.clips import read_clips
from tubelet.service.cli.train.data.scene_clusters import scene_folds
from tubelet.service.report.line_picture import Line, LinePicture, Mark, draw_lines

SHARES = (0.25, 0.5, 1.0)
SEEDS = 3
STEPS, BATCH, RATE = 200, 16, 5e-4
_RESAMPLES = 10_000
_SEED = 20261130


class FrameCNN(nn.Module):
    """A small CNN over time on the embeddings of frames: (N, T, D) -> (N, K)."""

    def __init__(self, embed_dim: int, num_classes: int, width: int = 128) -> None:
        super().__init__()
        self.adapter = nn.Sequential(nn.LayerNorm(embed_dim), nn.Dropout(0.3), nn.Linear(embed_dim, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, width),
                nn.Conv1d(width, width, 3, padding=1),
                nn.GELU(),
                nn.Dropout(0.1),
                nn.Conv1d(width, width, 3, padding=1),
            )
            for _ in range(2)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, num_classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits of the mean over time."""
        features = self.adapter(frames).transpose(1, 2)  # (N, W, T)
        for block in self.blocks:
            features = features + block(features)
        return self.head(self.norm(features.mean(dim=2)))


def train_network(build: Callable[[int, int], nn.Module], fold: Fold, footage: Footage) -> NDArray:
    """Train a network on the embeddings of frames; return the scores of the test clips: (N, K)."""
    inputs, labels = footage.embeddings(fold.train), torch.from_numpy(fold.classes)
    model = build(inputs.shape[2], fold.num_classes)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    order = torch.randperm(0)
    for _ in range(STEPS):
        if not len(order):
            order = torch.randperm(len(labels))
        chosen, order = order[:BATCH], order[BATCH:]
        loss = F.cross_entropy(model(inputs[chosen]), labels[chosen], label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()
    with torch.inference_mode():
        return model(footage.embeddings(fold.test)).softmax(dim=1).double().numpy()


HEADS: dict[str, Callable[[Fold, Footage], NDArray]] = {
    "mean of the frames, ridge": ridge_of_mean,
    "CNN over time": lambda fold, footage: train_network(FrameCNN, fold, footage),
    "temporal transformer": lambda fold, footage: train_network(FrameTransformer, fold, footage),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clips = read_clips(arguments.data)
    names, groups = sorted({clip.label for clip in clips}), sorted({clip.group for clip in clips})
    labels = np.array([names.index(clip.label) for clip in clips])
    scenes = [groups.index(clip.group) for clip in clips]
    folds = scene_folds(scenes, [clip.label for clip in clips], FOLDS)
    footage = Footage(arguments.out / "footage")
    videos = [Path(clip.video) for clip in clips]
    started, done = time.monotonic(), 0
    runs = list(product(HEADS, SHARES, range(SEEDS), range(FOLDS)))
    for number, (head, share, seed, part) in enumerate(runs):
        file = answer_file(arguments.out, head, share, seed, part)
        if file.exists():
            continue
        chosen = subset(labels, folds != part, share, seed)
        test = [video for video, of_fold in zip(videos, folds, strict=True) if of_fold == part]
        fold = Fold([videos[each] for each in chosen], labels[chosen], test, len(names), 0)
        torch.manual_seed(seed)
        found = HEADS[head](fold, footage).argmax(axis=1).tolist()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dict(zip(map(str, test), found, strict=True))))
        done += 1
        left_s = (time.monotonic() - started) / done * (len(runs) - number - 1)
        print(f"{head}, {share:.0%}, seed {seed}, fold {part}; at most {left_s:.0f} s left", flush=True)
    names_of = [str(video) for video in videos]
    right = {each: read_right(arguments.out, *each, names_of, labels) for each in product(HEADS, SHARES)}
    print_table(right)
    picture = arguments.out / "accuracy-by-clips.svg"
    picture.write_text(draw(right, len(clips), 1 / len(names)))
    print(f"the picture is {picture}")


def answer_file(out: Path, head: str, share: float, seed: int, part: int) -> Path:
    """Return the file of a head's answers for the clips of a fold."""
    return out / "frozen" / head.replace(" ", "-").replace(",", "") / f"{share:.0%}-{seed}-{part}.json"


def subset(labels: NDArray, is_train: NDArray, share: float, seed: int) -> NDArray:
    """Return the numbers of a share of the training clips of each label, drawn by ``seed``."""
    draw = np.random.default_rng((_SEED, seed))
    chosen = []
    for label in np.unique(labels):
        order = draw.permutation(np.flatnonzero(labels == label))
        own = order[is_train[order]]
        chosen.append(own[: round(share * len(own))])
    return np.sort(np.concatenate(chosen))


def print_table(right: dict[tuple[str, float], NDArray[np.float64]]) -> None:
    """Print the accuracy of each head at each share, and how much better it is than the mean."""
    simplest = next(iter(HEADS))
    print("| head |" + "".join(f" {share:.0%} of the clips | minus the mean |" for share in SHARES))
    print("|---|" + "---:|---:|" * len(SHARES))
    for head in HEADS:
        cells = []
        for share in SHARES:
            own = right[head, share]
            cells.append(_with_interval(own, ""))
            cells.append("" if head == simplest else _with_interval(own - right[simplest, share], "+"))
        print(f"| {head} | {' | '.join(cells)} |")


def draw(right: dict[tuple[str, float], NDArray[np.float64]], clips: int, chance: float) -> str:
    """Draw the accuracies over the number of clips that a head learns from, as SVG."""
    trained = clips * (FOLDS - 1) / FOLDS
    lines = [
        Line(
            head,
            tuple(
                Mark(round(share * trained), right[head, share].mean(), *_interval(right[head, share]))
                for share in SHARES
            ),
        )
        for head in HEADS
    ]
    title = "Accuracy by clips: three heads on frozen frames"
    return draw_lines(
        LinePicture(title, "clips to learn from", "accuracy on unknown scenes", tuple(lines), chance)
    )


def read_right(
    out: Path, head: str, share: float, videos: Sequence[str], labels: NDArray
) -> NDArray[np.float64]:
    """Return the share of seeds with which each clip is answered right: (N,)."""
    of_seeds = []
    for seed in range(SEEDS):
        found: dict[str, int] = {}
        for part in range(FOLDS):
            found |= json.loads(answer_file(out, head, share, seed, part).read_text())
        of_seeds.append(np.array([found[video] for video in videos]) == labels)
    return np.mean(of_seeds, axis=0)


def _with_interval(values: NDArray[np.float64], sign: str) -> str:
    """Format the mean of the clips' values with its interval."""
    low, high = _interval(values)
    return f"{values.mean():{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the bootstrap interval of the mean of the clips' values."""
    draw = np.random.default_rng(_SEED).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.quantile(values[draw].mean(axis=1), (0.025, 0.975)).tolist()
    return low, high


if __name__ == "__main__":
    main()
