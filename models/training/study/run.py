"""One run of the study: train a model on some of the windows, measure it on windows of other scenes.

N windows, B windows in a batch, D embedding width, K classes.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tubelet.models.costs import window_processor_s
from tubelet.models.families.channel_stack import ChannelStack
from tubelet.models.families.factorised import Factorised
from tubelet.models.families.registry import build_model
from tubelet.models.spec import Sampling
from tubelet.models.training.init import sine_positions_
from tubelet.models.training.samples import Batch
from tubelet.models.training.simulation.camera_path import LABELS
from tubelet.models.training.study.design import FRAMES, MODELS, PREPROCESSING, SIDE, WINDOW_S, Design, Run
from tubelet.models.training.study.results import Result
from tubelet.models.training.study.windows import Windows, read_windows
from tubelet.models.training.trainer import Recipe, Trainer, save_atomically
from tubelet.models.video_model import VideoModel

_EVALUATED_TOGETHER = 100  # windows
_WARMUP_SHARE = 1 / 30  # of the steps

OnSteps = Callable[[int], object]
"""Is told how many steps of a run are done."""


@dataclass(frozen=True, slots=True)
class Order:
    """The order in which a run sees its windows: all in each epoch, shuffled by the seed and the epoch."""

    first: int
    windows: int
    seed: int

    def batch(self, step: int, size: int) -> NDArray[np.int64]:
        """Return the numbers of the windows of a step: -> (B,)."""
        positions = np.arange(step * size, (step + 1) * size)
        epochs = positions // self.windows
        shuffled = {epoch: self._epoch(epoch) for epoch in np.unique(epochs).tolist()}
        return np.array(
            [
                shuffled[epoch][position % self.windows]
                for epoch, position in zip(epochs, positions, strict=True)
            ]
        )

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of an epoch: -> (N,)."""
        return self.first + np.random.default_rng((self.seed, epoch)).permutation(self.windows)


def train_run(run: Run, rate: float, design: Design, folder: Path, on_steps: OnSteps) -> Result:
    """Train a run at a learning rate ``rate`` and measure it; it resumes its last checkpoint, if
    that is of the same steps, rate and windows.

    ``folder`` is that of the study: it has the windows. On one kind of processor, a run repeats exactly.
    """
    windows = read_windows("training", folder / "windows")
    checkpoint = folder / "checkpoints" / f"{run.name}.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    steps = design.steps_of(run)
    trainer, used_s = start(run, rate, steps), 0.0
    state = torch.load(checkpoint, weights_only=True) if checkpoint.is_file() else {}
    design_of = {"steps": steps, "rate": rate, "digest": windows.digest}
    if design_of.items() <= state.items():  # else it is another design's
        trainer.restore(state)
        used_s = state["processor_s"]
    on_steps(trainer.step)
    start_s = time.process_time() - used_s
    for batch in batches(run, design, windows, trainer.step, steps):
        trainer.train_step(batch)
        if trainer.step % design.checkpoint_steps == 0:
            processor_s = time.process_time() - start_s
            save_atomically(trainer.state() | design_of | {"processor_s": processor_s}, checkpoint)
        on_steps(trainer.step)
    processor_s = time.process_time() - start_s
    parts = {part: read_windows(part, folder / "windows") for part in ("validation", "test")}
    answers = {part: predict(trainer.average, run.model, each) for part, each in parts.items()}
    right = {
        part: int((answers[part] == each.labels).sum()) / len(each.labels) for part, each in parts.items()
    }
    checkpoint.unlink(missing_ok=True)
    return Result(
        run=run,
        rate=rate,
        steps=steps,
        parameters=sum(each.numel() for each in trainer.model.parameters()),
        processor_s=processor_s,
        validation_accuracy=right["validation"],
        accuracy=right["test"],
        answers=answers["test"].tolist(),
        digest=windows.digest + parts["validation"].digest + parts["test"].digest,
    )


def start(run: Run, rate: float, steps: int) -> Trainer[VideoModel]:
    """Return a trainer at step 0, always with the same weights for a run."""
    torch.manual_seed(run.seed)
    model = build_model(MODELS[run.model].dims, PREPROCESSING, len(LABELS))
    initialise_(model)
    recipe = Recipe(
        steps=steps,
        learning_rate=rate,
        warmup_steps=max(1, round(_WARMUP_SHARE * steps)),
        average_decay=0.998,
    )
    return Trainer(model, None, recipe)


@torch.no_grad()
def initialise_(model: VideoModel) -> None:
    """Draw the weights of a transformer as Glorot and Bengio do, its positions are sinusoids.

    Nothing of them knows motion. A CNN keeps the weights of He et al.; ViT's weights of a standard deviation
    of 0.02 are too small for narrow transformers, which then do not begin to learn.
    """
    if not isinstance(model, Factorised | ChannelStack):
        return
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
    rows = math.isqrt(model.spatial.pos_embed.shape[1])  # one position more is the class token's
    sine_positions_(model.spatial, rows, rows)
    if isinstance(model, Factorised):
        sine_positions_(model.temporal, 1, model.temporal.pos_embed.shape[1] - 1)


def batches(run: Run, design: Design, windows: Windows, first: int, end: int) -> Iterator[Batch]:
    """Yield the batches of a run from step ``first`` to ``end``."""
    order = Order(design.offset(run.seed), run.windows, run.seed)
    frames = MODELS[run.model].frames_per_unit
    for step in range(first, end):
        numbers = order.batch(step, design.batch_size)
        yield Batch(windows.units(numbers, frames), windows.labels[numbers])


@torch.inference_mode()
def predict(model: VideoModel, name: str, windows: Windows) -> Tensor:
    """Return the label with the highest score of all windows: -> (N,)."""
    frames = MODELS[name].frames_per_unit
    groups = np.array_split(np.arange(len(windows.labels)), -(-len(windows.labels) // _EVALUATED_TOGETHER))
    return torch.cat([model(windows.units(group, frames)).argmax(dim=1) for group in groups])


def processor_s_per_window(model: str) -> float:
    """Measure the processor time of classifying a window with a model of the study, seconds."""
    frames = MODELS[model].frames_per_unit
    sampling = Sampling(frames, FRAMES // frames, WINDOW_S, WINDOW_S, WINDOW_S, WINDOW_S)
    return window_processor_s(build_model(MODELS[model].dims, PREPROCESSING, len(LABELS)), sampling)


def seconds_per_step(model: str, design: Design, steps: int = 8) -> float:
    """Measure the processor time of a step of a model, on random pixels."""
    frames = MODELS[model].frames_per_unit
    trainer = start(Run(model, 1, 0), 1e-3, steps + 2)
    pixels = torch.randint(0, 256, (design.batch_size, FRAMES // frames, frames, SIDE, SIDE, 3)).byte()
    batch = Batch(pixels, torch.arange(design.batch_size) % len(LABELS))
    for _ in range(2):  # the first steps allocate
        trainer.train_step(batch)
    start_s = time.process_time()
    for _ in range(steps):
        trainer.train_step(batch)
    return (time.process_time() - start_s) / steps
