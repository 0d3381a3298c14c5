"""The level ``temporal``: the spatial stage is frozen, the temporal transformer learns from its embeddings.

As in Gowda et al., arXiv 2306.04822, an adapter stands before the temporal transformer, and that does not
start at random. The weights that both start from are tubelet's own choice (``models/training/start.py``): the
base's temporal transformer, or one that computes a mean.
V windows and views of a clip, S units in a window, D width of a unit's embedding, C clips, K classes.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tubelet.models.training.augmentation import make_targets, mix_
from tubelet.models.training.fine_tuning import seed_of
from tubelet.models.training.losses import loss_weights
from tubelet.models.training.processes import own_share
from tubelet.models.training.samples import Batch
from tubelet.models.training.start import TemporalStage, temporal_dims
from tubelet.models.training.trainer import Recipe, Trainer
from tubelet.service.cli.train.data.division import divide
from tubelet.service.cli.train.levels.embeddings import View
from tubelet.service.cli.train.levels.probe import embed_clips
from tubelet.service.cli.train.levels.starting import start_model
from tubelet.service.cli.train.levels.true_labels import true_labels
from tubelet.service.cli.train.levels.tuning import SEED, Material, Run, complete, tune
from tubelet.service.cli.train.new_model import Trained
from tubelet.service.cli.train.prepare import Prepared
from tubelet.service.config.config import Config

VIEWS = (View(0.8, 0.0, "start"), View(0.9, 0.5, "centre", is_mirrored=True), View(0.8, 1.0, "end"))
"""More looks at each training clip, in the order of time."""
RECIPE = Recipe(
    steps=1, batch_size=16, learning_rate=5e-4, average_decay=0.98, dtype=torch.float32, warmup_steps=10
)


@dataclass(frozen=True, slots=True)
class EmbeddingFeed:
    """The windows and views (V, S, D) of each training clip, of which an epoch has one.

    ``labels`` are the clips' classes, (C,), or whether they have each label, (C, K); ``weights`` (K,) are
    those of the labels in the loss.
    """

    windows: Sequence[Tensor] = field(repr=False)
    labels: Tensor
    weights: Tensor
    batch_size: int

    @property
    def clips(self) -> int:
        return len(self.windows)

    @property
    def steps(self) -> int:
        return -(-self.clips // self.batch_size)

    def batches(self, epoch: int, first: int) -> Generator[Batch]:
        """Yield this process's part of each batch of an epoch from number ``first`` on."""
        draw = torch.Generator().manual_seed(seed_of(SEED, epoch))
        order = torch.randperm(self.clips, generator=draw).tolist()
        places = torch.rand(self.clips, generator=draw).tolist()
        for step in range(first, self.steps):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            own = own_share(batch, together=2)
            picked = [self.windows[clip][int(places[clip] * len(self.windows[clip]))] for clip in own]
            units = torch.stack(picked) if picked else torch.zeros(0)
            labels = self.labels[own]
            made = Batch(units, labels, targets=make_targets(labels, self.weights), total=len(batch))
            yield mix_(made, seed_of(SEED, epoch, step))


def train_temporal(prepared: Prepared, run: Run, config: Config) -> Trained:
    """Train the temporal transformer and the head on cached embeddings of windows and views.

    Raises:
        InvalidDataset: too few clips can be decoded.
        CannotTrain: the base has no units that a temporal transformer could read, or the training failed.
        TrainingInterrupted: the user stopped it.
        BrokenModel, MissingExtra: the base cannot be used.
    """
    clips = prepared.checked.survey.clips
    dims = temporal_dims(prepared.base.dims, prepared.sampling.units_per_window)
    found = embed_clips(prepared, config, clips)
    used = tuple(number for number, clip in enumerate(clips) if clip.name in found)
    labels = prepared.label_clips(used)
    division = divide(prepared.checked, used)
    windows = {number: torch.from_numpy(found[clips[number].name]) for number in used}
    model = start_model(prepared, dims, {number: windows[number] for number in division.train}, labels)
    views = tuple(view for view in VIEWS if run.is_mirrored or not view.is_mirrored)
    viewed = embed_clips(prepared, config, [clips[number] for number in division.train], views)
    truth = true_labels(clips, labels)
    own = truth[list(division.train)]
    feed = EmbeddingFeed(
        [_with_views(windows[number], viewed.get(clips[number].name)) for number in division.train],
        own,
        loss_weights(own, len(labels)),
        RECIPE.batch_size,
    )

    @torch.inference_mode()
    def logits(stage: nn.Module, numbers: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        repeats = torch.tensor([len(windows[number]) for number in numbers])
        answers = torch.cat([stage(windows[number]) for number in numbers])
        clip_numbers = torch.tensor(numbers).repeat_interleave(repeats)
        return answers.clone(), truth[clip_numbers], clip_numbers

    trainer = Trainer(TemporalStage(model), None, RECIPE)
    head = f"a temporal transformer and a head on a frozen spatial stage, {len(views)} more looks at a clip"
    tuned = tune(run, Material(division, feed, logits, len(labels), own.ndim == 2), trainer, head)
    trainer.average.give_to_(model)
    return complete(tuned, model, dims, labels, used)


def _with_views(windows: Tensor, views: NDArray[np.float32] | None) -> Tensor:
    """Join the windows and the views of a clip: (W, S, D), (V, S, D)."""
    return windows if views is None else torch.cat((windows, torch.from_numpy(views)))
