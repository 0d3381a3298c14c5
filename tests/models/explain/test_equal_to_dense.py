"""Pushed rows equal dense products of matrices, and autograd through explicit attention."""

import pytest
import torch
from torch import Tensor

from tests.models.explain.dense import Reference
from tests.support.explained import GRIDS, LABELS, TRANSFORMERS, explained, random_window
from tubelet.models.explain.explain import explain
from tubelet.models.explain.explanation import Explanation, Question

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
    assert float(explanation.map.sum()) + explanation.on_no_patch == pytest.approx(1, abs=1e-6)
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
        # A definition: the relevance of units, times the shares in each unit.
        row = reference.start() @ temporal
        for token in reference.class_tokens().tolist():
            row = (
                row
                - row * torch.eye(reference.size)[token]
                + row[token] * spatial[token] / spatial[token].sum()
            )
    explanation = explain(model, spec, window, Question("relevance", LABELS[1], against))
    assert_is(explanation, reference, row)


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
