"""What a trained model says of each clip that it did not know: outcomes to show, and lines to keep.

W windows, C clips, K classes.
"""

import json
import math
from collections.abc import Sequence

from torch import Tensor

from tubelet.models.training.probe_fit import mean_by_clip
from tubelet.service.cli.evaluation.outcomes import TOP_K, Outcome
from tubelet.service.cli.train.data.checked_clips import Checked
from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.data.survey import Survey
from tubelet.service.cli.train.new_model import Answers, Trained
from tubelet.service.types.result import Label


def clip_outcomes(
    logits: Tensor, clips: Tensor, labels: Sequence[str], survey: Survey, *, is_multilabel: bool = False
) -> list[Outcome]:
    """Return the outcome of each clip from the logits of its windows: (W, K), (W,) -> C outcomes."""
    means, numbers = mean_by_clip(logits, clips)
    scores = means.sigmoid() if is_multilabel else means.softmax(dim=1)
    best = scores.topk(min(TOP_K, len(labels)), dim=1)
    outcomes = []
    for number, scores, indices in zip(
        numbers.tolist(), best.values.tolist(), best.indices.tolist(), strict=True
    ):
        clip = survey.clips[number]
        predicted = tuple(
            Label(labels[int(index)], score) for index, score in zip(indices, scores, strict=True)
        )
        outcomes.append(Outcome(clip.name, clip.label, predicted, thumbnail=survey.pictures.get(clip.name)))
    return outcomes


def clip_lines(checked: Checked, trained: Trained) -> str:
    """Return the text of ``clips.jsonl``: each clip's content hash, label, scene and split, and its answer.

    The answers are those for unknown scenes, by models trained without the clip's part of the scenes; those
    of the test split are the stored model's. The split is train, validation (which chose the epoch and the
    temperature), test, or held_out from training all along.
    """
    answers = [each for each in (trained.held_out, trained.test) if each is not None]
    predicted = {outcome.video: outcome for each in answers for outcome in _outcomes(each, checked, trained)}
    # A probe is trained again on all clips, after parts of them were left out in turn.
    held_out = [] if trained.recipe.level == "probe" else trained.held_out.clips.tolist()
    split_of = dict.fromkeys(held_out, "held_out") | dict.fromkeys(trained.validation, "validation")
    lines = []
    for number in trained.used:
        clip = checked.survey.clips[number]
        line = _clip_line(clip, checked.survey.digests[clip.video], int(checked.scenes[number]))
        line["split"] = "test" if clip.is_test else split_of.get(number, "train")
        if (outcome := predicted.get(clip.name)) is not None:
            line["labels"] = [{"label": each.name, "score": each.score} for each in outcome.predicted]
        lines.append(json.dumps(line, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)


def _outcomes(answers: Answers, checked: Checked, trained: Trained) -> list[Outcome]:
    """Return the outcomes of answers, with the temperature."""
    return clip_outcomes(
        answers.calibrated,
        answers.clips,
        trained.labels,
        checked.survey,
        is_multilabel=answers.labels.ndim == 2,
    )


def _clip_line(clip: Clip, digest: str, scene: int) -> dict[str, object]:
    """Return what is known of a clip; the open end of a part is None."""
    part = clip.range_s and [each if math.isfinite(each) else None for each in clip.range_s]
    return {
        "video": clip.name,
        "path": clip.path,
        "label": clip.label,
        "blake3": digest,
        "range_s": part,
        "scene": scene,
    }
