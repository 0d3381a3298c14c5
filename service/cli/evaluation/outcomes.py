"""The outcome of a classified video, true label and predicted ones, and its line of ``results.jsonl``."""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tubelet.service.cli.evaluation.dataset import LabelledVideo
from tubelet.service.types.result import Classification, Label

TOP_K = 5  # the number of labels that an outcome needs


@dataclass(frozen=True, slots=True)
class Outcome:
    """One classified video: its name, its true label, and at most five predicted ones, best first.

    ``scores`` has the score of each of the model's labels, if the answer had them all. ``thumbnail`` is a
    JPEG; b"" if the answer came without one, None if none was asked for.
    """

    video: str
    label: str
    predicted: tuple[Label, ...]
    scores: np.ndarray | None = field(default=None, repr=False)  # (K,) float32
    thumbnail: bytes | None = field(default=None, repr=False)

    @property
    def best(self) -> Label:
        """The label with the highest score."""
        return self.predicted[0]

    @property
    def is_right(self) -> bool:
        """Whether the best label is the true one."""
        return self.best.name == self.label


def outcome_line(video: LabelledVideo, answer: Classification, *, with_thumbnail: bool) -> dict[str, Any]:
    """Return the line of ``results.jsonl`` for a video; the thumbnail is a JPEG in base64, or ""."""
    labels = [{"label": label.name, "score": label.score} for label in answer.labels]
    line = {"video": video.name, "label": video.label, "labels": labels}
    if with_thumbnail:
        line["thumbnail"] = b64encode(answer.thumbnails[0].jpeg).decode() if answer.thumbnails else ""
    return line


def relabelled_line(outcome: Outcome, label: str, index_of: Mapping[str, int]) -> dict[str, Any]:
    """Return the line for an outcome whose true label was corrected, as ``read_outcome`` reads it."""
    found = outcome.predicted
    if outcome.scores is not None:
        every = (Label(name, float(outcome.scores[index])) for name, index in index_of.items())
        found = tuple(sorted(every, key=lambda each: -each.score))
    labels = [{"label": each.name, "score": each.score} for each in found]
    line = {"video": outcome.video, "label": label, "labels": labels}
    if outcome.thumbnail is not None:
        line["thumbnail"] = b64encode(outcome.thumbnail).decode()
    return line


def read_outcome(line: dict[str, Any], index_of: Mapping[str, int]) -> Outcome:
    """Return the outcome of a line; ``index_of`` maps the model's labels to their indices, or is empty."""
    found = line["labels"]
    predicted = tuple(Label(each["label"], each["score"]) for each in found[:TOP_K])
    scores = None
    if index_of and len(found) == len(index_of):
        scores = np.empty(len(found), np.float32)
        scores[[index_of[each["label"]] for each in found]] = [each["score"] for each in found]
    thumbnail = b64decode(line["thumbnail"]) if "thumbnail" in line else None
    return Outcome(line["video"], line["label"], predicted, scores, thumbnail)
