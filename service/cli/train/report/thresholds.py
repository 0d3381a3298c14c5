"""The score from which on a label is right as often as asked, on clips that the model does not know.

C clips, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tubelet.models.training.probe_fit import labels_by_clip, mean_by_clip
from tubelet.service.cli.evaluation.measures import Interval, wilson_interval
from tubelet.service.cli.train.new_model import Answers
from tubelet.service.cli.train.report.multilabel_figures import clip_scores


@dataclass(frozen=True, slots=True)
class Threshold:
    """A score of a label from which on it has the asked precision; ``recall`` is what is still found."""

    score: float
    precision: float
    interval: Interval
    recall: float


def find_thresholds(answers: Answers, names: Sequence[str], precision: float) -> dict[str, Threshold | None]:
    """Return the threshold of each label, None where no score has the precision.

    Where labels are classes, a label counts only where it is a clip's best one. The threshold is chosen on
    the clips that it is measured on, so that new clips have a little less.
    """
    if answers.labels.ndim == 2:
        scores, truth = clip_scores(answers.calibrated, answers.labels, answers.clips)
        said = np.ones_like(truth)
    else:
        means, _ = mean_by_clip(answers.calibrated, answers.clips)
        scores = means.double().softmax(dim=1).numpy()
        truth = labels_by_clip(answers.labels, answers.clips)[:, None].numpy() == np.arange(len(names))
        said = scores.argmax(axis=1)[:, None] == np.arange(len(names))
    return {
        name: _best(scores[:, number], truth[:, number], said[:, number], precision)
        for number, name in enumerate(names)
    }


def threshold_lines(found: Mapping[str, Threshold | None], precision: float) -> list[str]:
    """Return the lines of text on thresholds."""
    lines = [f"scores from which on a label is right {100 * precision:g} % of the time on these clips:"]
    for name, each in found.items():
        if each is None:
            lines.append(f"  {name}: no score is enough")
        else:
            low, high = each.interval
            lines.append(
                f"  {name}: {each.score:.3f}, precision {each.precision:.3f} ({low:.3f} to {high:.3f}), "
                f"finds {each.recall:.3f}"
            )
    return lines if found else []


def _best(scores: np.ndarray, truth: np.ndarray, said: np.ndarray, precision: float) -> Threshold | None:
    """Return the threshold of one label, (C,), that finds most with the precision where it is ``said``.

    Of thresholds that find as much, it is the one with the highest precision, then with the highest score.
    """
    found = []
    for score in np.unique(scores[said]):
        kept = said & (scores >= score)
        right, count = int((kept & truth).sum()), int(kept.sum())
        if right and right >= precision * count:
            # Printed or typed with fewer digits, the score must still let the same clips through.
            rounded = float(np.floor(score * 1e6) / 1e6)
            interval = wilson_interval(right, count)
            found.append(Threshold(rounded, right / count, interval, right / int(truth.sum())))
    return max(found, key=lambda each: (each.recall, each.precision, each.score), default=None)
