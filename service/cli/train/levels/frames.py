"""Frames of clips to train all of a model on, from the sandboxed decode workers: each epoch another window.

B windows in a batch, S units in a window, t frames in a unit, W windows of all clips, K classes.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tubelet.models.spec import Preprocessing, Sampling
from tubelet.models.training.augmentation import Augmentation, augment, make_targets, mix_
from tubelet.models.training.fine_tuning import seed_of
from tubelet.models.training.probes import few_threads
from tubelet.models.training.processes import own_share
from tubelet.models.training.samples import Batch, Sample
from tubelet.models.video_model import VideoModel
from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.levels.embeddings import View, plan_clip, plan_views
from tubelet.service.cli.train.levels.tuning import SEED
from tubelet.service.cli.training.feed import Decoders
from tubelet.service.report.text import counted
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import CROPS, VideoMetadata

_SHORTEST = 0.8  # of a window's length, in training
_CLOSEST = 1.25  # times the size of the whole picture, of which a window shows a part
_AUGMENTED = 1  # distinguishes seeds


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads windows of ``sampling`` and ``preprocessing`` from clips that ``decoders`` decode."""

    sampling: Sampling
    preprocessing: Preprocessing
    decoders: Decoders

    def windows(self, clips: Sequence[Clip]) -> Generator[Sample]:
        """Yield all windows of clips, as in serving."""
        return self.decoders.read(clips, partial(plan_clip, self.sampling, self.preprocessing))

    def random_windows(self, clips: Sequence[Clip], seeds: dict[str, int], ahead: int) -> Generator[Sample]:
        """Yield a window of each clip, with the time and the part of the picture that its seed decides.

        ``ahead`` more clips than workers are decoded before they are asked for.
        """
        return self.decoders.read(clips, partial(self._plan, seeds), ahead=ahead)

    def _plan(self, seeds: dict[str, int], clip: Clip, metadata: VideoMetadata) -> tuple[Plan, Preprocessing]:
        draw = np.random.default_rng(seeds[clip.name])
        length, place, zoom = draw.uniform(_SHORTEST, 1), draw.uniform(), draw.uniform(1, _CLOSEST)
        view = View(length, place, CROPS[draw.integers(len(CROPS))])
        pixels = self.preprocessing
        if pixels.resize == "crop":
            rows, columns = (round(zoom * side) for side in pixels.resized)
            pixels = replace(pixels, resize_height=rows, resize_width=columns)
        return plan_views((view,), self.sampling, pixels, clip, metadata)


@dataclass(frozen=True, slots=True)
class FrameFeed:
    """The training clips, of which an epoch has one window each, augmented.

    ``labels`` are the clips' classes, (C,), or whether they have each label, (C, K); ``weights`` (K,) are
    those of the labels in the loss.
    """

    training: Sequence[Clip] = field(repr=False)
    labels: Tensor
    weights: Tensor
    reader: Reader
    augmentation: Augmentation
    batch_size: int

    @property
    def clips(self) -> int:
        return len(self.training)

    @property
    def steps(self) -> int:
        return -(-self.clips // self.batch_size)

    def batches(self, epoch: int, first: int) -> Generator[Batch]:
        """Yield this process's part of each batch of an epoch from number ``first`` on.

        A clip that cannot be decoded is missing in its batch; the other batches do not change.
        """
        draw = torch.Generator().manual_seed(seed_of(SEED, epoch))
        order = torch.randperm(self.clips, generator=draw).tolist()
        whole = [order[step * self.batch_size : (step + 1) * self.batch_size] for step in range(self.steps)]
        own = [own_share(batch, together=2) for batch in whole]
        wanted = [self.training[number] for batch in own[first:] for number in batch]
        seeds = {clip.name: seed_of(SEED, epoch, number) for number, clip in enumerate(self.training)}
        with closing(self.reader.random_windows(wanted, seeds, self.batch_size)) as samples:
            waiting = next(samples, None)
            for step in range(first, self.steps):
                numbers = {self.training[number].name: number for number in own[step]}
                found: dict[int, Tensor] = {}
                while waiting is not None and waiting.id in numbers:
                    units, seed = torch.from_numpy(waiting.units), seed_of(seeds[waiting.id], _AUGMENTED)
                    with few_threads(0):  # the decode workers need the other cores
                        found[numbers[waiting.id]] = augment(units, self.augmentation, seed)
                    waiting = next(samples, None)
                with few_threads(0):
                    batch = self._batch(found, whole[step], seed_of(SEED, epoch, step))
                yield batch

    def _batch(self, found: dict[int, Tensor], whole: Sequence[int], seed: int) -> Batch:
        """Make this process's part of a ``whole`` batch, of the windows that were found by clip."""
        units = torch.stack(list(found.values())) if found else torch.zeros(0)
        labels = self.labels[list(found)]
        places = tuple(whole.index(number) for number in found)
        targets = make_targets(labels, self.weights)
        batch = Batch(units, labels, targets=targets, total=len(whole), places=places)
        return mix_(batch, seed) if self.augmentation.mixup else batch


@torch.inference_mode()
def frame_logits(
    model: VideoModel, reader: Reader, clips: Sequence[Clip], numbers: Sequence[int], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Compute the logits (W, K) of all windows of the clips with these ``numbers``, and the clip of each.

    Raises:
        InvalidDataset: no clip can be decoded.
    """
    by_name = {clips[number].name: number for number in numbers}
    logits, of_clip = [], []
    for sample in reader.windows([clips[number] for number in numbers]):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            units = torch.from_numpy(sample.units)
            logits.append(model.classify(model.encode(units)[None]).float())
        of_clip.append(by_name[sample.id])
    if not logits:
        raise InvalidDataset(f"none of {counted(len(numbers), 'clip')} to measure on can be decoded any more")
    return torch.cat(logits).clone(), torch.tensor(of_clip)
