"""What holds for every method: batches, mirrors, nothing to find, questions that have no answer."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tests.support.explained import GRIDS, LABELS, TRANSFORMERS, explained, random_window
from tubelet.models.errors import CannotExplain
from tubelet.models.explain import weights
from tubelet.models.explain.explain import explain, explanation_steps
from tubelet.models.explain.explanation import METHODS, Explanation, Method, Question
from tubelet.models.families.factorised import Factorised
from tubelet.models.families.layers import Attention
from tubelet.models.runtime.onednn import pack
from tubelet.models.video_model import VideoModel

# Occlusion takes many forward passes, in the same code for all families.
METHODS_OF_CASES = [
    (case, method)
    for case in TRANSFORMERS
    for method in METHODS
    if method != "occlusion" or case in ("factorised", "joint, mean")
]


def question(method: Method) -> Question:
    return (
        Question(method, LABELS[1], LABELS[2]) if method in ("relevance", "occlusion") else Question(method)
    )


def assert_equal(one: Explanation, other: Explanation) -> None:
    # Occlusion divides differences of logits, whose rounding errors are larger.
    tolerance = 1e-3 if one.question.method == "occlusion" else 1e-5
    torch.testing.assert_close(one.map, other.map, atol=tolerance, rtol=1e-4)
    assert one.on_no_patch == pytest.approx(other.on_no_patch, abs=1e-5)


@pytest.mark.parametrize(("case", "method"), METHODS_OF_CASES)
def test_the_size_of_batches_changes_nothing(
    case: str, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, spec = explained(case)
    window = random_window(case)
    together = explain(model, spec, window, question(method))
    model.tokens_per_unit = 10**6  # each unit is a batch
    monkeypatch.setattr(weights, "CHUNK_WEIGHTS", 1)  # each head, too
    assert model.cpu_batch_units == 1
    assert_equal(explain(model, spec, window, question(method)), together)


@pytest.mark.parametrize(("case", "method"), METHODS_OF_CASES)
def test_the_mirrored_model_on_the_mirrored_video_gives_the_mirrored_map(case: str, method: Method) -> None:
    model, spec = explained(case)
    window = random_window(case)
    plain = explain(model, spec, window, question(method))
    seen = explain(mirrored(model, case), spec, window.flip(3), question(method))
    assert_equal(replace(seen, map=seen.map.flip(2)), plain)
    assert (seen.map - plain.map).abs().max() > 0.01 * plain.map.max()


def mirrored(model: VideoModel, case: str) -> VideoModel:
    """Return a model that sees the world in a mirror: left is right."""
    model = copy.deepcopy(model)
    kernels = model.get_parameter("patch_embed.proj.weight")
    kernels.copy_(kernels.flip(-1))
    columns = GRIDS[case][2]
    for name, positions in model.named_parameters():
        if name.endswith("pos_embed") and not (isinstance(model, Factorised) and "temporal" in name):
            first = positions.shape[1] % columns  # the class token, if there is one
            grid = positions[:, first:].unflatten(1, (-1, columns))
            positions[:, first:] = grid.flip(2).flatten(1, 2)
    return model


@pytest.mark.parametrize("method", ["relevance", "occlusion"])
@pytest.mark.parametrize("case", TRANSFORMERS)
def test_a_model_that_looks_at_nothing_has_a_map_of_zeros(case: str, method: Method) -> None:
    model, spec = explained(case)
    assert isinstance(model.head, torch.nn.Linear)
    model.head.weight.zero_()
    explanation = explain(model, spec, random_window(case), Question(method, LABELS[0]))
    assert explanation.map.count_nonzero() == 0
    assert explanation.on_no_patch == 1


@pytest.mark.parametrize(("case", "method"), METHODS_OF_CASES)
def test_maps_are_shares(case: str, method: Method) -> None:
    model, spec = explained(case, strength=400)  # attention to single tokens
    still = random_window(case)[:1, :1].expand_as(random_window(case))
    for window in (random_window(case), still, torch.zeros_like(still)):
        explanation = explain(model, spec, window, question(method))
        assert explanation.map.shape == GRIDS[case]
        assert explanation.map.isfinite().all()
        assert explanation.map.min() >= 0
        assert float(explanation.map.sum()) + explanation.on_no_patch == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("method", ["attention", "rollout"])
@pytest.mark.parametrize("case", TRANSFORMERS)
def test_a_label_does_not_change_attention_nor_rollout(case: str, method: Method) -> None:
    model, spec = explained(case)
    window = random_window(case)
    named, unnamed = (explain(model, spec, window, Question(method, label)) for label in (LABELS[4], None))
    assert torch.equal(named.map, unnamed.map)


@pytest.mark.parametrize(("case", "method"), METHODS_OF_CASES)
def test_a_model_is_left_as_it_was_wherever_an_explanation_stops(case: str, method: Method) -> None:
    model, spec = explained(case)
    window = random_window(case)
    before = model(window[None])
    whole = sum(1 for _ in explanation_steps(model, spec, window, question(method)))
    assert whole >= 2
    for stop in range(whole + 1):
        steps = explanation_steps(model, spec, window, question(method))
        for _ in itertools.islice(steps, stop):
            assert torch.is_grad_enabled()
            assert_plain(model)
        steps.close()
        assert_plain(model)
    assert torch.equal(model(window[None]), before)


def assert_plain(model: VideoModel) -> None:
    for module in model.modules():
        if isinstance(module, Attention):
            assert module.attend is torch.nn.functional.scaled_dot_product_attention


@pytest.mark.parametrize(("case", "method"), METHODS_OF_CASES)
def test_an_explanation_in_inference_mode_beside_a_packed_model(case: str, method: Method) -> None:
    model, spec = explained(case)
    plain = explain(model, spec, random_window(case), question(method))
    packed = copy.deepcopy(model)
    pack(packed)
    with torch.inference_mode():
        window = random_window(case)
        answers = packed(window[None])
        assert_equal(explain(model, spec, window, question(method)), plain)
        assert torch.equal(packed(window[None]), answers)


def test_two_labels_are_a_difference() -> None:
    model, spec = explained("joint")
    window = random_window("joint")
    maps = [
        explain(model, spec, window, Question("relevance", label, against)).map
        for label, against in ((LABELS[0], LABELS[1]), (LABELS[1], LABELS[0]), (LABELS[0], None))
    ]
    for one, other in itertools.combinations(maps, 2):
        assert (one - other).abs().max() > 1e-3


def refusals() -> Iterator[tuple[str, Question, str, str]]:
    yield "vit", Question("relevance", "a dog"), "UNKNOWN_LABEL", "model small has no label 'a dog'"
    yield "vit", Question("rollout", "a dog"), "UNKNOWN_LABEL", "model small has no label 'a dog'"
    yield (
        "torchvision, clips",
        Question("occlusion", LABELS[0], "x"),
        "UNKNOWN_LABEL",
        "model small has no label 'x'",
    )
    yield (
        "vit",
        Question("relevance"),
        "LABEL_MISSING",
        "relevance explains a label: name one of the model's 5 labels",
    )
    yield (
        "vit",
        Question("rollout", against=LABELS[0]),
        "LABEL_MISSING",
        "label 'label 0' is compared with no other label: name that label, too",
    )
    yield (
        "vit",
        Question("occlusion", against=LABELS[0]),
        "LABEL_MISSING",
        "label 'label 0' is compared with no other label: name that label, too",
    )
    yield (
        "joint",
        Question("relevance", LABELS[0], LABELS[0]),
        "SAME_LABEL",
        "label 'label 0' is compared with itself: name two labels that differ",
    )
    yield (
        "joint",
        Question("rollout", layer=1),
        "NOT_FOR_METHOD",
        "method rollout takes no layer: only attention does",
    )
    yield (
        "joint",
        Question("occlusion", LABELS[0], head=1),
        "NOT_FOR_METHOD",
        "method occlusion takes no head: only attention does",
    )
    yield (
        "factorised",
        Question("attention", layer=4),
        "LAYER_OUT_OF_RANGE",
        "model small has layers 0 to 3: there is no layer 4",
    )
    yield (
        "divided",
        Question("attention", layer=-1),
        "LAYER_OUT_OF_RANGE",
        "model small has layers 0 to 3: there is no layer -1",
    )
    yield (
        "divided",
        Question("attention", head=3),
        "HEAD_OUT_OF_RANGE",
        "model small has heads 0 to 2: there is no head 3",
    )
    yield (
        "divided",
        Question("attention", query=(8, 0, 0)),
        "QUERY_OUT_OF_RANGE",
        "model small has steps 0 to 7: there is no step 8",
    )
    yield (
        "divided",
        Question("attention", query=(0, 0, 4)),
        "QUERY_OUT_OF_RANGE",
        "model small has columns 0 to 3: there is no column 4",
    )
    for method in ("attention", "rollout", "relevance"):
        yield (
            "torchvision, clips",
            question(method),
            "METHOD_NOT_SUPPORTED",
            f"models of family torchvision are not explained by {method}, only by occlusion",
        )


@pytest.mark.parametrize(("case", "asked", "reason", "message"), list(refusals()))
def test_a_question_without_an_answer(case: str, asked: Question, reason: str, message: str) -> None:
    model, spec = explained(case)
    with pytest.raises(CannotExplain) as refusal:
        explain(model, spec, random_window(case), asked)
    assert (refusal.value.reason, str(refusal.value)) == (reason, message)
