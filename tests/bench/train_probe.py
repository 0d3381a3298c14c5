"""The probe of ``tubelet train`` beside plain scripts, on the same clips, embeddings and parts of scenes.

python -m tests.bench.train_probe clips.csv --base efficientnet-lite0

All contestants see the same embeddings, of the same windows, and are measured on five parts of the scenes,
each left out in turn. Each script is a ridge regression on labels of +1 and -1, one for each class, whose
strength is chosen on the four other parts: on the mean of a window's units, and on its units in their order.
Accuracies have Wilson's interval of 95 %, differences to the probe the paired bootstrap's.
W windows of all clips, S units in a window, D width of a unit's embedding, K classes.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.runtime.precision import choose_dtype
from tubelet.models.training.probe_fit import ProbeData, estimate, mean_by_clip
from tubelet.models.training.probe_model import build_probe, probe_dims
from tubelet.service.cli.evaluation.measures import difference_interval, wilson_interval
from tubelet.service.cli.train.data.checked_clips import check_clips
from tubelet.service.cli.train.data.clips import read_clips
from tubelet.service.cli.train.data.scene_clusters import scene_folds
from tubelet.service.cli.train.levels.embeddings import Embedder
from tubelet.service.cli.train.levels.probe import default_cache
from tubelet.service.cli.train.prepare import window_sampling
from tubelet.service.config.config import load_config

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--base", default="efficientnet-lite0")
    arguments = parser.parse_args()
    config = load_config()
    base = ModelStore(ZOO, config.models.store).find(arguments.base)
    checked = check_clips(read_clips(arguments.data), config.decode)
    clips = checked.survey.clips
    sampling = window_sampling(base, checked.survey.lengths_s, None)
    dtype = choose_dtype("auto", torch.device("cpu"))
    embedder, started = Embedder(base, sampling, dtype, default_cache()), time.monotonic()
    found = embedder.embed(clips, checked.survey.digests, config.decode, lambda: None, lambda *_: None)
    seconds, scenes = time.monotonic() - started, len(set(checked.scenes))
    print(f"{len(clips)} clips of {scenes} scenes embedded in {seconds:.1f} s")
    names = sorted({clip.label for clip in clips})
    repeats = torch.tensor([len(found[clip.name]) for clip in clips])
    windows = torch.cat([torch.from_numpy(found[clip.name]) for clip in clips])
    labels = torch.tensor([names.index(clip.label) for clip in clips]).repeat_interleave(repeats)
    folds = scene_folds(checked.scenes.tolist(), [clip.label for clip in clips], FOLDS)
    state = base.load().state_dict()
    models = {
        name: build_probe(dims, base.dims, state, base.spec.preprocessing, len(names))
        for name, dims in probe_dims(base.dims).items()
    }
    with torch.no_grad():
        vectors = {name: model.pool(windows) for name, model in models.items()}
    numbers = torch.arange(len(clips)).repeat_interleave(repeats)
    data = ProbeData(vectors, labels, numbers, torch.tensor(folds).repeat_interleave(repeats), len(names))
    truth = np.array([names.index(clip.label) for clip in clips])
    started = time.monotonic()
    probe = _right(estimate(data)[0], data, truth)
    print(f"probe: {_figures(probe)}, {time.monotonic() - started:.1f} s for all parts")
    for name, features in {"mean": windows.mean(dim=1), "order": windows.flatten(1)}.items():
        script = _right(_ridge_estimate(features.double(), data), data, truth)
        gained, lost = int((probe & ~script).sum()), int((script & ~probe).sum())
        low, high = difference_interval(gained, lost, len(clips))
        difference = f"{(gained - lost) / len(clips):+.3f} ({low:+.3f} to {high:+.3f})"
        print(f"{name} + ridge: {_figures(script)}; probe - script {difference}")


def _ridge_estimate(features: Tensor, data: ProbeData) -> Tensor:
    """Return each window's scores by a ridge that does not know its part; strengths are chosen without it."""
    scores = torch.zeros(len(features), data.num_classes, dtype=torch.float64)
    for fold in data.folds.unique():
        others = data.folds != fold
        inner = data.folds[others]
        errors = {}
        for strength in STRENGTHS:
            held_out = torch.zeros(int(others.sum()), data.num_classes, dtype=torch.float64)
            for part in inner.unique():
                train, test = features[others][inner != part], features[others][inner == part]
                held_out[inner == part] = _ridge(
                    train, data.labels[others][inner != part], test, data, strength
                )
            errors[strength] = float((held_out.argmax(1) != data.labels[others]).double().mean())
        best = min(errors, key=lambda strength: errors[strength])
        scores[~others] = _ridge(features[others], data.labels[others], features[~others], data, best)
    return scores


def _ridge(train: Tensor, labels: Tensor, test: Tensor, data: ProbeData, strength: float) -> Tensor:
    """Fit a ridge regression on standardised features, in its dual form; return the scores of ``test``."""
    mean, std = train.mean(dim=0), train.std(dim=0) + 1e-6
    train, test = (train - mean) / std, (test - mean) / std
    targets = 2.0 * torch.nn.functional.one_hot(labels, data.num_classes).double() - 1
    centre = targets.mean(dim=0)
    kernel = train @ train.T + strength * len(train) * torch.eye(len(train), dtype=torch.float64)
    return test @ (train.T @ torch.linalg.solve(kernel, targets - centre)) + centre


def _right(scores: Tensor, data: ProbeData, truth: np.ndarray) -> np.ndarray:
    """Return whether the mean of each clip's windows is right: (W, K) -> (C,) bool."""
    means, _ = mean_by_clip(scores.float(), data.clips)
    return means.argmax(dim=1).numpy() == truth


def _figures(is_right: np.ndarray) -> str:
    """Format the accuracy and its interval."""
    low, high = wilson_interval(int(is_right.sum()), len(is_right))
    return f"{is_right.mean():.3f} ({low:.3f} to {high:.3f}) of {len(is_right)} clips"


if __name__ == "__main__":
    main()
