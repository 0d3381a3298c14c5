"""Explain a window: check the question, choose the method.

S units in a window, t frames in a unit, H W C pixels, U steps, K classes.
"""

from collections.abc import Generator
from typing import TypeVar

import torch
from torch import Tensor

from tubelet.models.errors import CannotExplain, ExplainReason
from tubelet.models.explain.attention import attention, attention_of_heads
from tubelet.models.explain.explanation import Explanation, HeadMaps, Method, Question, Score, scaled
from tubelet.models.explain.occlusion import Parts, occlusion, parts_of_frames
from tubelet.models.explain.relevance import relevance
from tubelet.models.explain.rollout import rollout
from tubelet.models.explain.transformer import Transformer, as_transformer
from tubelet.models.spec import ModelSpec
from tubelet.models.video_model import VideoModel

T = TypeVar("T")


def explain(model: VideoModel, spec: ModelSpec, window: Tensor, question: Question) -> Explanation:
    """Explain a window at once, see ``explanation_steps``."""
    return _finish(explanation_steps(model, spec, window, question))


@torch.inference_mode(False)
@torch.no_grad()
def explanation_steps(
    model: VideoModel, spec: ModelSpec, window: Tensor, question: Question
) -> Generator[None, None, Explanation]:
    """Explain a window layer by layer, and yield before each: (S, t, H, W, C) uint8 -> Explanation.

    The model is as ``ModelFolder.load`` returns it, in float32 and not packed, and nothing else uses it
    meanwhile.

    Raises:
        CannotExplain: the model has no such label, layer or head, or its family not the method.
    """
    transformer = as_transformer(model)
    check(question, spec, transformer, len(window))
    if question.method == "occlusion":
        parts = Parts(*transformer.grid) if transformer else parts_of_frames(window.shape[1])
        found = yield from occlusion(model, window, parts, _score(question, spec))
        return Explanation(question, *scaled(found.mass), found.runs, found.steps_left_out)
    assert transformer is not None
    match question.method:
        case "attention":
            mass = yield from attention(transformer, window, question)
        case "rollout":
            mass = yield from rollout(transformer, window)
        case "relevance":
            mass = yield from relevance(transformer, window, _score(question, spec))
    return Explanation(question, *scaled(mass))


@torch.inference_mode(False)
@torch.no_grad()
def head_maps(model: VideoModel, spec: ModelSpec, window: Tensor) -> HeadMaps:
    """Explain a window by each head of each layer, in one pass: (S, t, H, W, C) uint8 -> HeadMaps.

    The model is as for ``explanation_steps``. Each map is that of method ``attention``.

    Raises:
        CannotExplain: the family has no attention that can be seen.
    """
    transformer = as_transformer(model)
    if transformer is None:
        raise _no_attention(spec, "attention")
    masses = _finish(attention_of_heads(transformer, window))
    found = [scaled(mass) for mass in masses]
    maps = torch.stack([patches for patches, _ in found])
    on_no_patch = torch.tensor([share for _, share in found])
    return HeadMaps(
        maps.unflatten(0, (-1, transformer.heads)),
        on_no_patch.view(-1, transformer.heads),
        transformer.attended,
    )


def check(question: Question, spec: ModelSpec, transformer: Transformer | None, units: int) -> None:
    """Refuse a question that a model cannot answer about a window of ``units``.

    Raises:
        CannotExplain: the model has no such label, layer, head or patch, or its family not the method.
    """
    method, label, against = question.method, question.label, question.against
    for each in (label, against):
        if each is not None and each not in spec.labels:
            raise CannotExplain("UNKNOWN_LABEL", f"model {spec.name} has no label {each!r}")
    if label is None and against is not None:
        wanted = "name that label, too"
        raise CannotExplain("LABEL_MISSING", f"label {against!r} is compared with no other label: {wanted}")
    if label is None and method in ("relevance", "occlusion"):
        wanted = f"name one of the model's {len(spec.labels)} labels"
        raise CannotExplain("LABEL_MISSING", f"{method} explains a label: {wanted}")
    if label is not None and label == against:
        wanted = "name two labels that differ"
        raise CannotExplain("SAME_LABEL", f"label {label!r} is compared with itself: {wanted}")
    numbers = {"layer": question.layer, "head": question.head, "query": question.query}
    named = [name for name, number in numbers.items() if number is not None]
    if method != "attention" and named:
        message = f"method {method} takes no {' or '.join(named)}: only attention does"
        raise CannotExplain("NOT_FOR_METHOD", message)
    if transformer is not None:
        _check_numbers(question, spec, transformer, units)
    elif method != "occlusion":
        raise _no_attention(spec, method)


def _check_numbers(question: Question, spec: ModelSpec, transformer: Transformer, units: int) -> None:
    """Refuse a layer, head or patch that a model does not have."""
    steps, rows, columns = transformer.grid
    step, row, column = question.query or (None, None, None)
    numbers: tuple[tuple[ExplainReason, str, int | None, int], ...] = (
        ("LAYER_OUT_OF_RANGE", "layer", question.layer, len(transformer.attentions)),
        ("HEAD_OUT_OF_RANGE", "head", question.head, transformer.heads),
        ("QUERY_OUT_OF_RANGE", "step", step, units * steps),
        ("QUERY_OUT_OF_RANGE", "row", row, rows),
        ("QUERY_OUT_OF_RANGE", "column", column, columns),
    )
    for reason, thing, number, count in numbers:
        if number is not None and not 0 <= number < count:
            has = f"model {spec.name} has {thing}s 0 to {count - 1}"
            raise CannotExplain(reason, f"{has}: there is no {thing} {number}")


def _score(question: Question, spec: ModelSpec) -> Score:
    """Return the function that takes what a question is about out of logits: (..., K) -> (...)."""
    assert question.label is not None
    label = spec.labels.index(question.label)
    if question.against is None:
        return lambda logits: logits[..., label]
    other = spec.labels.index(question.against)
    return lambda logits: logits[..., label] - logits[..., other]


def _no_attention(spec: ModelSpec, method: Method) -> CannotExplain:
    """Return the error that a family has no method but occlusion."""
    message = f"models of family {spec.family} are not explained by {method}, only by occlusion"
    return CannotExplain("METHOD_NOT_SUPPORTED", message)


def _finish(steps: Generator[None, None, T]) -> T:
    """Run a generator to its end, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
