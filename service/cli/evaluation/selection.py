"""Which clips of labelled data are evaluated: all, the test split, or those that training did not see."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.runs.runner import ModelInfo
from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.config.config import Config
from tubelet.service.types.request import Options
from tubelet.service.types.uri import is_uri
from tubelet.service.types.video import to_ns

Only = Literal["test", "unseen"]
"""``test``: the clips of the split test. ``unseen``: those whose content the model was not trained on."""
TRAINING_CLIPS = "clips.jsonl"
"""The file of a trained model's folder that has a line for each clip of its training and its test split."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """The labelled data to evaluate on, or the part ``only`` of it.

    ``labels`` is a file with the names of classes, if the data has numbers.
    """

    data: Path
    only: Only | None = None
    labels: Path | None = None


_SEEN = ("train", "validation")  # the splits that decided a model
_OPEN_END_S = 1e9  # an end after that of any video


def training_clips(server: str | None, config: Config, model: ModelInfo) -> Path | None:
    """Return the file with the clips that a model was trained on; None if this machine has none.

    A server's models are others, even if their names are the same.
    """
    if server:
        return None
    from tubelet.models.repository.repository import ZOO, ModelStore

    folder = ModelStore(ZOO, config.models.store).find(model.name, model.version).folder
    return folder / TRAINING_CLIPS if (folder / TRAINING_CLIPS).exists() else None


def seen_in_training(clips: Sequence[Clip], trained_on: Path) -> frozenset[str]:
    """Return the names of the clips whose content the model of the file ``trained_on`` was trained on.

    Files are compared by their content, and parts of videos by their times, too: a part is seen if it shares
    a time with one of the training. A file that cannot be read counts as not seen.

    Raises:
        InvalidDataset: ``trained_on`` cannot be read.
    """
    try:
        lines = [json.loads(line) for line in trained_on.read_text("utf-8").splitlines()]
        parts: dict[str, list[Any]] = {}
        for each in lines:
            if each["split"] in _SEEN:
                parts.setdefault(each["blake3"], []).append(each["range_s"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidDataset(f"{trained_on} cannot be read: {error}") from None
    digests: dict[str, str] = {}
    for clip in clips:
        if clip.video not in digests:
            digests[clip.video] = _digest(clip.video)
    return frozenset(
        clip.name
        for clip in clips
        if any(_overlap(clip.range_s, part) for part in parts.get(digests[clip.video], ()))
    )


def select(clips: Sequence[Clip], only: Only | None, seen: frozenset[str] | None) -> tuple[Clip, ...]:
    """Return the clips to evaluate; ``seen`` names those of the training, None where that is not known.

    Raises:
        InvalidDataset: no clip is left, or it is not known which were seen.
    """
    if only is None:
        return tuple(clips)
    if only == "test":
        if chosen := tuple(clip for clip in clips if clip.is_test):
            return chosen
        raise InvalidDataset("the data has no clips of the split test: --only test needs a column split")
    if seen is None:
        raise InvalidDataset(
            "it is not known which clips the model was trained on: --only unseen needs a model of tubelet "
            "train in the store of this installation, without --server"
        )
    if chosen := tuple(clip for clip in clips if clip.name not in seen):
        return chosen
    raise InvalidDataset(f"the model was trained on all {len(clips)} clips of the data")


def options_of(clip: Clip, options: Options) -> Options:
    """Return the options that classify a clip: of a part of a video, this part alone."""
    if clip.range_s is None:
        return options
    start_s, end_s = clip.range_s
    return replace(options, ranges_ns=((to_ns(start_s), to_ns(min(end_s, _OPEN_END_S))),))


def _digest(video: str) -> str:
    """Return the hash of a file's content; "" if it cannot be read."""
    if is_uri(video):
        return ""
    try:
        return blake3(max_threads=1).update_mmap(Path(video)).hexdigest()
    except OSError:
        return ""


def _overlap(one: tuple[float, float] | None, other: Sequence[float | None] | None) -> bool:
    """Return whether two parts of a video share a time; None is the whole video, or an open end."""
    start, end = one or (0.0, math.inf)
    other_start, other_end = other or (0.0, None)
    assert other_start is not None
    return start < (math.inf if other_end is None else other_end) and other_start < end
