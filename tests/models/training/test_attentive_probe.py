"""Attentive probes on made units: evidence in one unit or in the order of units, and none at all."""

import pytest
import torch

from tests.support.models import WIDTH
from tubelet.models.families.unit_pooling import pool_units
from tubelet.models.training.attentive_probe import join_units
from tubelet.models.training.probe_fit import ProbeData, compare, fit
from tubelet.models.training.probes import Choice

WINDOWS, UNITS = 80, 8
CHOICE = Choice("mean", 3.0, 1.0, 0.0, torch.zeros(0), steps=45)


def made(evidence: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return units of noise, (80, 8, 24), of two classes that order, one unit or nothing tells apart."""
    draw = torch.Generator().manual_seed(0)
    units = torch.randn(WINDOWS, UNITS, WIDTH, generator=draw)
    labels = torch.arange(WINDOWS) % 2
    signs = torch.nn.functional.normalize(torch.randn(2, WIDTH, generator=draw))
    if evidence == "order":
        units[:, : UNITS // 2] += 2 * signs[labels][:, None]
        units[:, UNITS // 2 :] += 2 * signs[1 - labels][:, None]
    elif evidence == "one unit":
        places = torch.randint(0, UNITS, (WINDOWS,), generator=draw)
        units[torch.arange(WINDOWS), places] += 6 * signs[labels]
    return units, labels


def data_of(units: torch.Tensor, labels: torch.Tensor) -> ProbeData:
    """Put two windows in each scene, and scenes in four folds."""
    scenes = torch.arange(WINDOWS) // 2
    return ProbeData(
        {"mean": pool_units(units, "mean")},
        labels,
        torch.arange(WINDOWS),
        scenes % 4,
        2,
        join_units([units]),
        scenes,
    )


@pytest.mark.parametrize("evidence", ["order", "one unit"])
def test_an_attentive_probe_is_chosen_where_units_or_their_order_tell(evidence: str) -> None:
    choice, found = compare(data_of(*made(evidence)))
    assert found is not None
    assert found.is_gain
    assert choice.steps > 0
    assert choice.loss == pytest.approx(found.richer)
    assert found.richer < found.simpler - 0.1


def test_independent_labels_have_an_attentive_probe_too() -> None:
    (units, first), (others, second) = made("order"), made("one unit")
    order = torch.randperm(WINDOWS, generator=torch.Generator().manual_seed(1))
    labels = torch.stack((first, second[order]), dim=1).float()
    data = data_of(torch.cat((units, others[order]), dim=2), labels)
    choice, found = compare(data)
    assert found is not None
    assert found.is_gain
    assert found.richer < found.simpler - 0.05
    right = (fit(data, choice).logits(data) > 0) == (labels > 0)
    assert right.float().mean(dim=0).min() > 0.9


def test_the_linear_probe_stays_where_nothing_is_gained() -> None:
    choice, found = compare(data_of(*made("none")))
    assert found is not None
    assert not found.is_gain
    assert choice.steps == 0


def test_one_training_is_as_another() -> None:
    data = data_of(*made("one unit"))
    assert torch.equal(fit(data, CHOICE).logits(data), fit(data, CHOICE).logits(data))


def test_padding_changes_no_answer() -> None:
    units, labels = made("one unit")
    data = data_of(units, labels)
    probe = fit(data, CHOICE)
    short, long = units[:2, :5], units[2:4]
    joined = ProbeData({}, labels[:4], data.clips[:4], data.folds[:4], 2, join_units([short, long]))
    assert probe.pooling is not None
    wanted = torch.cat([probe.head(probe.pooling(each)) for each in (short, long)])
    torch.testing.assert_close(probe.logits(joined), wanted)
