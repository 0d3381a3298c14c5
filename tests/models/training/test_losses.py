"""Losses of labels, against torch's own: independent labels, their weights and their mixtures."""

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score

from tubelet.models.training.augmentation import make_targets, mix_
from tubelet.models.training.losses import frequencies, label_accuracy, label_loss, loss_weights
from tubelet.models.training.probes import class_weights
from tubelet.models.training.samples import Batch

LABELS = (
    torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)) < torch.tensor([0.5, 0.1, 0.02])
).float()


def test_independent_labels_have_the_binary_cross_entropy() -> None:
    logits, weights = torch.randn(3000, 3), torch.tensor([1.0, 2.0, 5.0])
    found = label_loss(logits, make_targets(LABELS, weights))
    assert found.item() == pytest.approx(
        F.binary_cross_entropy_with_logits(logits, LABELS, weight=weights).item(), abs=1e-6
    )


def test_mixed_windows_have_the_loss_of_mixed_labels() -> None:
    units, logits, weights = torch.randn(6, 2, 4), torch.randn(6, 3), torch.tensor([1.0, 2.0, 5.0])
    labels = LABELS[:6]
    mixed = mix_(Batch(units, labels, targets=make_targets(labels, weights)), seed=3)
    share = ((mixed.units - units)[0, 0, 0] / (units[1] - units[0])[0, 0]).item()
    soft = labels.lerp(labels[[1, 0, 3, 2, 5, 4]], share)
    assert mixed.targets is not None
    assert label_loss(logits, mixed.targets).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(logits, soft, weight=weights).item(), abs=1e-5
    )


def test_to_say_how_frequent_labels_are_costs_as_much_for_each() -> None:
    shares = frequencies(LABELS)
    logits = shares.logit().float().expand(3000, 3)
    each = F.binary_cross_entropy_with_logits(logits, LABELS, reduction="none").mean(dim=0)
    assert (loss_weights(LABELS, 3) * each).tolist() == pytest.approx([math.log(2)] * 3, rel=0.05)
    nobody = loss_weights(torch.zeros(5, 2), 2)
    assert nobody.isfinite().all()


def test_classes_together_weigh_the_same() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    assert torch.equal(loss_weights(labels, 2), class_weights(labels, 2))


def test_the_accuracy_of_independent_labels_is_f1() -> None:
    logits = torch.randn(3000, 3, generator=torch.Generator().manual_seed(1))
    wanted = f1_score(LABELS, logits >= 0, average="micro")
    assert label_accuracy(logits, LABELS).item() == pytest.approx(wanted)
    assert label_accuracy(-torch.ones(2, 3), torch.zeros(2, 3)) == 1
    assert label_accuracy(torch.eye(3), torch.tensor([0, 1, 0])).item() == pytest.approx(2 / 3)
