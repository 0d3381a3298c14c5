"""Pushed rows equal dense products of matrices, and autograd through explicit attention."""

from collections.abc import Generator

import pytest
import torch
from torch import Tensor

from tests.models.explain.dense import Reference
from tests.support.explained import GRIDS, LABELS, TRANSFORMERS, explained, random_window
from tubelet.models.explain.attention import attention
from tubelet.models.explain.explain import explain
from tubelet.models.explain.explanation import Explanation, Mass, Question
from tubelet.models.explain.rollout import rollout
from tubelet.models.explain.transformer import as_transformer

TOLERANCE = 1e-5


def assert_is(explanation: Explanation, reference: Reference, row: Tensor) -> None:
    """Compare a map with a row over all tokens of the window, scaled to a sum of 1."""
    row = row / row.sum()
    inside = torch.ones(reference.size, dtype=torch.bool)
    inside[reference.class_tokens()] = False
    inside[reference.tokens :] = False
    torch.testing.assert_close(
        explanation.map.flatten().double(), row[inside], atol=TOLERANCE, rtol=TOLERANCE
    )
    assert explanation.on_no_patch == pytest.approx(float(row[~inside].sum()), abs=1e-5)


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_the_reference_computes_the_logits_of_the_model(case: str) -> None:
    model, _ = explained(case)
    window = random_window(case)
    torch.testing.assert_close(
        Reference(model, window).logits.float(), model(window[None])[0], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_rollout(case: str) -> None:
    model, spec = explained(case)
    window = random_window(case)
    reference = Reference(model, window)
    product = reference.rollout()
    torch.testing.assert_close(product.sum(dim=1), torch.ones(reference.size, dtype=torch.float64))
    explanation = explain(model, spec, window, Question("rollout"))
    assert explanation.map.shape == GRIDS[case]
    assert_is(explanation, reference, reference.start() @ product)


@pytest.mark.parametrize("against", [None, LABELS[3]])
@pytest.mark.parametrize("case", TRANSFORMERS)
def test_relevance(case: str, against: str | None) -> None:
    model, spec = explained(case)
    window = random_window(case)
    reference = Reference(model, window)
    score = reference.logits[1] - (0 if against is None else reference.logits[3])
    spatial, temporal = reference.relevance(score)
    row = reference.start() @ spatial
    if case == "factorised":
        row = relevance_of_factorised(reference, spatial, temporal)
    explanation = explain(model, spec, window, Question("relevance", LABELS[1], against))
    assert_is(explanation, reference, row)


def relevance_of_factorised(reference: Reference, spatial: Tensor, temporal: Tensor) -> Tensor:
    """Return the row that is a definition: the relevance of units, times the shares in each unit.

    The share of a unit in which nothing is relevant stays on its class token.
    """
    units = row = reference.start() @ temporal
    for token in reference.class_tokens().tolist():
        if spatial[token].sum() > 0:
            row = row - units * torch.eye(reference.size)[token]
            row = row + units[token] * spatial[token] / spatial[token].sum()
    return row


def test_the_relevance_of_a_unit_whose_patches_have_none_is_on_no_patch() -> None:
    model, spec = explained("factorised")
    for name, parameter in model.named_parameters():
        inside = name.startswith(("spatial", "patch_embed"))
        if inside and name.endswith(("bias", "cls_token", "pos_embed")):
            parameter.zero_()
    model.get_buffer("mean").zero_()
    window = random_window("factorised")
    window[2] = 0  # then all its tokens are 0 in each layer, and so are the gradients of its weights
    reference = Reference(model, window)
    spatial, temporal = reference.relevance(reference.logits[1])
    row = relevance_of_factorised(reference, spatial, temporal)
    dark = int(reference.class_tokens()[2])
    assert spatial[dark].sum() == 0
    assert row[dark] > 0.01 * row.sum()
    explanation = explain(model, spec, window, Question("relevance", LABELS[1]))
    assert_is(explanation, reference, row)
    assert explanation.map[2].count_nonzero() == 0


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_rows_of_rollout_and_attention_sum_to_one_before_they_are_scaled(case: str) -> None:
    model, _ = explained(case)
    transformer = as_transformer(model)
    assert transformer is not None
    window = random_window(case)
    layers = [None, *range(len(transformer.attentions))]
    ways = [rollout(transformer, window)]
    ways += [attention(transformer, window, Question("attention", layer=layer)) for layer in layers]
    for way in ways:
        mass = result_of(way)
        assert float(mass.patches.sum()) + mass.elsewhere == pytest.approx(1, abs=1e-6)


def result_of(steps: Generator[None, None, Mass]) -> Mass:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("head", [None, 0, 2])
@pytest.mark.parametrize("case", TRANSFORMERS)
def test_attention_of_the_read_out(case: str, head: int | None) -> None:
    model, spec = explained(case)
    window = random_window(case)
    reference = Reference(model, window)
    layers = [None, *range(reference.unit_layers)]
    for layer in layers:
        row = sum(
            share * reference.attention(reference.unit_layers - 1 if layer is None else layer, query, head)
            for query, share in _queries(reference)
        )
        if case == "divided" and layer in (0, 2):
            row = reference.start()  # over time, no class token takes part
        assert isinstance(row, Tensor)
        explanation = explain(model, spec, window, Question("attention", layer=layer, head=head))
        assert_is(explanation, reference, row)


def _queries(reference: Reference) -> list[tuple[int, float]]:
    """Return the tokens that a window's logits are read out of, with their shares."""
    units = reference.class_tokens().tolist() or range(reference.size)
    return [(token, 1 / len(units)) for token in units]


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_attention_of_a_patch(case: str) -> None:
    model, spec = explained(case)
    window = random_window(case)
    reference = Reference(model, window)
    steps, rows, columns = GRIDS[case]
    inside = torch.ones(reference.size, dtype=torch.bool)
    inside[reference.class_tokens()] = False
    inside[reference.tokens :] = False
    tokens = inside.nonzero()[:, 0].view(steps, rows, columns)
    query = (steps - 2, rows - 1, 0)
    for layer in range(reference.unit_layers):
        row = reference.attention(layer, int(tokens[query]), head=1)
        explanation = explain(model, spec, window, Question("attention", layer=layer, head=1, query=query))
        assert_is(explanation, reference, row)


@pytest.mark.parametrize("query", [None, (2, 3, 1)])
@pytest.mark.parametrize("layer", [2, 3])
def test_a_temporal_layer_attends_to_whole_units(layer: int, query: tuple[int, int, int] | None) -> None:
    model, spec = explained("factorised")
    window = random_window("factorised")
    reference = Reference(model, window)
    token = reference.size - 1 if query is None else int(reference.class_tokens()[query[0]])
    row = reference.attention(layer, token, head=1)
    explanation = explain(model, spec, window, Question("attention", layer=layer, head=1, query=query))
    units = row[reference.class_tokens()]
    torch.testing.assert_close(
        explanation.map.double(), (units / 8)[:, None, None].expand(4, 4, 2), atol=TOLERANCE, rtol=TOLERANCE
    )
    assert explanation.on_no_patch == pytest.approx(float(row[-1]), abs=1e-5)
