"""Which temperatures are applied to the scores of a model, and what is said of the others."""

import pytest
import torch

from tubelet.models.training.calibration import LIMITS, fit_temperature
from tubelet.service.cli.train.levels.temperature import useful_temperature
from tubelet.service.cli.train.new_model import Answers

LABELS = torch.tensor([0, 0, 1, 1])


def answers(margins: list[float]) -> tuple[float, Answers]:
    """Fit a temperature to four clips of a window each, whose logits differ by ``margins``."""
    fitted = torch.tensor([[margin, 0.0] for margin in margins])
    temperature = fit_temperature(fitted, LABELS)
    return temperature, Answers(fitted / temperature, fitted, LABELS, torch.arange(4))


def test_a_temperature_of_sure_mistakes_is_applied() -> None:
    temperature, given = answers([9.0, 9.0, 9.0, -9.0])
    applied, held_out, warnings = useful_temperature(temperature, given)
    assert 1 < temperature == applied < LIMITS[1]
    assert (held_out, warnings) == (given, ())


@pytest.mark.parametrize(
    ("margins", "limit", "applies", "says"),
    [
        ([1e-3, 1e-3, -1e-3, -1e-3], LIMITS[0], 1.0, "or chance would look sure"),
        ([-9.0, -9.0, 9.0, 9.0], LIMITS[1], LIMITS[1], "no better than chance"),
    ],
)
def test_a_temperature_at_a_limit_is_explained(
    margins: list[float], limit: float, applies: float, says: str
) -> None:
    temperature, given = answers(margins)
    assert temperature == pytest.approx(limit)
    applied, held_out, (warning,) = useful_temperature(temperature, given)
    assert applied == pytest.approx(applies)
    assert says in warning
    assert torch.equal(held_out.calibrated, held_out.fitted / applied)
