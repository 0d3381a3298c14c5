"""The questions of an explanation: checks them before any byte of a video is read."""

from collections.abc import Iterator

from tubelet.models.errors import CannotExplain, ExplainReason
from tubelet.models.explain.explain import check
from tubelet.models.explain.explanation import Question
from tubelet.models.explain.occlusion import Parts, parts_of_frames
from tubelet.models.explain.transformer import Transformer
from tubelet.models.spec import ModelSpec
from tubelet.service.errors import MalformedOption
from tubelet.service.explanation_errors import NotExplainable
from tubelet.service.types.explanation import (
    EXPLAIN_METHODS,
    MAX_EXPLAINED,
    METHODS_OF_LABELS,
    ExplainOptions,
    MapQuestion,
)
from tubelet.service.types.quoting import quoted
from tubelet.service.types.request import Options
from tubelet.service.types.result import Segment

_FIELDS: dict[ExplainReason, str] = {
    "UNKNOWN_LABEL": "labels",
    "LABEL_MISSING": "labels",
    "SAME_LABEL": "against",
    "LAYER_OUT_OF_RANGE": "layer",
    "HEAD_OUT_OF_RANGE": "head",
    "NOT_FOR_METHOD": "method",
    "METHOD_NOT_SUPPORTED": "method",
}


def check_explanation(options: Options, asked: ExplainOptions) -> None:
    """Check all of ``asked`` that does not depend on the model.

    Raises:
        MalformedOption: a value is not allowed for any model.
        NotExplainable: labels are named for a method that depends on none.
    """
    if asked.method not in EXPLAIN_METHODS:
        raise MalformedOption(
            f"method is {quoted(asked.method)}; it must be one of {', '.join(EXPLAIN_METHODS)}",
            field="method",
            value=asked.method,
        )
    for field, number, least in (("labels", len(asked.labels), 0), ("best", asked.best, 1)):
        if not least <= number <= MAX_EXPLAINED:
            raise MalformedOption(
                f"{number} {'best ' * (field == 'best')}labels were to be explained; {least or 1} to "
                f"{MAX_EXPLAINED} are possible",
                field=field,
                limit=MAX_EXPLAINED,
                value=number,
            )
    if options.embeddings is not None or options.only_embeddings:
        raise MalformedOption("an explanation has no embeddings: ask Classify for them", field="embeddings")
    if asked.labels and asked.method not in METHODS_OF_LABELS:
        raise NotExplainable(
            "NOT_FOR_METHOD",
            f"labels belong to {' and '.join(METHODS_OF_LABELS)}: {asked.method} is the same for all",
            field="labels",
        )


def check_questions(asked: ExplainOptions, spec: ModelSpec, transformer: Transformer | None) -> Parts:
    """Check that the model of ``spec`` answers all questions of ``asked``; return how its maps are cut.

    ``transformer`` is how explanations see the model; None: its family has occlusion alone.

    Raises:
        NotExplainable: it does not.
    """
    # Where the best labels are explained, any label stands for them; a difference needs labels by name.
    stand_in = spec.labels[:1] if asked.method in METHODS_OF_LABELS and asked.against is None else ()
    try:
        for question in _questions(asked, asked.labels or stand_in or (None,)):
            check(to_question(question), spec, transformer, spec.sampling.units_per_window)
    except CannotExplain as error:
        raise NotExplainable(error.reason, str(error), field=_FIELDS.get(error.reason, "")) from None
    return Parts(*transformer.grid) if transformer else parts_of_frames(spec.sampling.frames_per_unit)


def questions_of(asked: ExplainOptions, segment: Segment) -> list[MapQuestion]:
    """Return the questions about ``segment``, a map each; none if no label reaches the score threshold."""
    if asked.method not in METHODS_OF_LABELS:
        return [*_questions(asked, (None,))]
    best = (label.name for label in segment.labels[: asked.best])
    return [*_questions(asked, asked.labels or tuple(best))]


def to_question(question: MapQuestion) -> Question:
    """Convert a question of the service to one of the models."""
    return Question(question.method, question.label, question.against, question.layer, question.head)


def _questions(asked: ExplainOptions, labels: tuple[str | None, ...]) -> Iterator[MapQuestion]:
    """Yield a question for each of ``labels``, once each."""
    for label in dict.fromkeys(labels):
        yield MapQuestion(asked.method, label, asked.against, asked.layer, asked.head)
