"""The card of a camera-motion model: its costs, as far as they were kept."""

from tubelet.models.costs import Cost
from tubelet.models.training.card import Figures, spec_and_card
from tubelet.models.training.recipes import TASKS
from tubelet.models.training.simulation.camera_path import LABELS
from tubelet.models.training.trainer import Trainer


def card_of(cost: Cost | None) -> str:
    task = TASKS["vit"]
    trainer = Trainer(task.build(), None, task.recipe)
    trainer.cost = cost
    counts = [[9 if row == column else 1 for column in range(len(LABELS))] for row in range(len(LABELS))]
    figures = {name: Figures(counts) for name in ("simulated", "1", "2", "4")}
    return spec_and_card(task, "9.0.0", trainer, {task.name: figures})[1]


def test_energy_is_an_estimate_unless_it_was_measured() -> None:
    estimated = card_of(Cost(3000, 1000))
    assert "- Training: 3,000 s of processor time, 1,000 s of it to simulate windows" in estimated
    assert "- Its energy: about 36 kJ, an estimate: 12 W for a busy core" in estimated
    measured = card_of(Cost(3000, 1000, {"cpu:0": 91_000}))
    assert "- Its energy: 91 kJ of cpu:0\n" in measured
    assert "estimate" not in measured


def test_a_training_whose_cost_was_not_kept_has_none() -> None:
    card = card_of(None)
    assert "Training:" not in card
    assert " ms of processor time in float32" in card
