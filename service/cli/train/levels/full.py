"""The level ``full``: all of a model learns, from frames that are decoded anew in each epoch."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tubelet.models.families.registry import Dims
from tubelet.models.runtime.host_memory import free_bytes
from tubelet.models.training.augmentation import Augmentation, make_targets
from tubelet.models.training.checkpointing import checkpoint_blocks_
from tubelet.models.training.drop_path import set_drop_path_
from tubelet.models.training.losses import loss_weights
from tubelet.models.training.processes import size, started
from tubelet.models.training.samples import Batch
from tubelet.models.training.start import full_dims, set_frequencies_, trains_in_bf16
from tubelet.models.training.trainer import Recipe, Trainer
from tubelet.models.video_model import VideoModel
from tubelet.service.cli.train.base import Untrained
from tubelet.service.cli.train.data.checked_clips import notes
from tubelet.service.cli.train.data.division import Division, divide
from tubelet.service.cli.train.levels.frames import FrameFeed, Reader, frame_logits
from tubelet.service.cli.train.levels.probe import embed_clips, training_dtype
from tubelet.service.cli.train.levels.starting import start_model
from tubelet.service.cli.train.levels.true_labels import true_labels
from tubelet.service.cli.train.levels.tuning import Material, Run, complete, tune
from tubelet.service.cli.train.new_model import Trained
from tubelet.service.cli.train.prepare import Prepared
from tubelet.service.cli.training.feed import start_decoders
from tubelet.service.config.config import Config

_BATCH = 8
_TUNING = Recipe(steps=1, batch_size=_BATCH, learning_rate=2e-4, average_decay=0.98, first_layer_share=0.1)
"""Of a model that was trained before: its first layers change least."""
_FROM_SCRATCH = Recipe(steps=1, batch_size=_BATCH, learning_rate=1e-3, average_decay=0.99)
_LARGEST_SHARE = 0.7
"""Share of the free memory that a step may keep for its backward pass."""


def train_full(prepared: Prepared, run: Run, config: Config) -> Trained:
    """Train all of a model on frames from the decode workers.

    Raises:
        InvalidDataset: too few clips can be decoded.
        CannotTrain: the training failed.
        TrainingInterrupted: the user stopped it.
        BrokenModel, MissingExtra: the base cannot be used.
    """
    base, clips = prepared.base, prepared.checked.survey.clips
    used = tuple(range(len(clips)))
    labels = prepared.label_clips(used)
    division = divide(prepared.checked, used)
    dims = base.dims
    if not isinstance(base, Untrained):
        dims = full_dims(base.dims, prepared.sampling.units_per_window)
    truth = true_labels(clips, labels)
    own = truth[list(division.train)]
    model = _start(prepared, dims, division, labels, config)
    if isinstance(base, Untrained) and own.ndim == 2:
        set_frequencies_(model, own)
    dtype = training_dtype(config) if trains_in_bf16(model) else torch.float32
    how = Augmentation(mirror=run.is_mirrored)
    recipe = _FROM_SCRATCH if isinstance(base, Untrained) else _TUNING
    with start_decoders(config.decode) as decoders:
        reader = Reader(prepared.sampling, base.spec.preprocessing, decoders)
        feed = FrameFeed(
            [clips[number] for number in division.train],
            own,
            loss_weights(own, len(labels)),
            reader,
            how,
            _BATCH,
        )

        def logits(model: nn.Module, numbers: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
            assert isinstance(model, VideoModel)
            found, of_clip = frame_logits(model, reader, clips, numbers, dtype)
            return found, truth[of_clip], of_clip

        trainer = Trainer(model, None, replace(recipe, dtype=dtype, warmup_steps=max(1, feed.steps // 2)))
        set_drop_path_(trainer.model, how.drop_path)
        _save_memory_(trainer, feed)
        material = Material(division, feed, logits, len(labels), own.ndim == 2)
        tuned = tune(run, material, trainer, "all of the model")
    return complete(tuned, trainer.average, dims, labels, used)


def _save_memory_(trainer: Trainer[VideoModel], feed: FrameFeed) -> None:
    """Let blocks be computed again in the backward pass if a step would keep too much of the free memory."""
    sampling, pixels = feed.reader.sampling, feed.reader.preprocessing
    units = torch.zeros(
        (2, sampling.units_per_window, sampling.frames_per_unit, pixels.height, pixels.width, 3),
        dtype=torch.uint8,
    )
    labels = feed.labels[[0, 0]]
    two = Batch(units, labels, targets=make_targets(labels, feed.weights))
    wanted = trainer.saved_bytes(two) * min(feed.batch_size, feed.clips) / 2 / size()
    free = free_bytes() / started(here=True)
    if wanted > _LARGEST_SHARE * free:
        checkpoint_blocks_(trainer.model)
        notes.print(
            f"a step would keep {wanted / 1e9:.1f} GB for its backward pass, and {free / 1e9:.1f} GB are "
            "free: blocks keep their inputs alone, and are computed twice"
        )


def _start(
    prepared: Prepared, dims: Dims, division: Division, labels: Sequence[str], config: Config
) -> VideoModel:
    """Return the model of ``dims`` to start from: random weights, or a linear probe on the base."""
    if isinstance(prepared.base, Untrained):
        return prepared.base.build(len(labels))
    clips = prepared.checked.survey.clips
    found = embed_clips(prepared, config, [clips[number] for number in division.train])
    windows = {
        number: torch.from_numpy(found[clips[number].name])
        for number in division.train
        if clips[number].name in found
    }
    model = start_model(prepared, dims, windows, labels)
    return model.requires_grad_()
