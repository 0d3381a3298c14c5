"""Whether a richer model is better than a simpler one, or only by chance: their losses on the same data."""

from dataclasses import dataclass
from math import isfinite, nan

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Comparison:
    """The mean losses of a simpler and a richer model for the same windows or clips.

    ``standard_error`` is that of the difference, over scenes; NaN where there is only one.
    """

    simpler: float
    richer: float
    standard_error: float

    @property
    def is_gain(self) -> bool:
        """Whether the richer model is better by more than the standard error."""
        return self.simpler - self.richer > self.standard_error

    def json(self, simpler: str, richer: str) -> dict[str, float | None]:
        """Return the losses by the names of the two, and the standard error, None of one scene."""
        error = self.standard_error if isfinite(self.standard_error) else None
        return {simpler: self.simpler, richer: self.richer, "standard_error": error}

    def sentence(self, simpler: str, richer: str, where: str) -> str:
        """Say which of the two is taken, and why; ``where`` says in words what the losses are of."""
        names, losses = (simpler, richer), (self.simpler, self.richer)
        if self.is_gain:
            names, losses = names[::-1], losses[::-1]
        text = (
            f"{names[0]} is taken, not {names[1]}: their losses {where} are {losses[0]:.3f} and "
            f"{losses[1]:.3f}"
        )
        gain = self.simpler - self.richer
        if gain <= 0:
            return text
        if not isfinite(self.standard_error):
            return f"{text}; they are of one scene, so that the difference of {gain:.3f} may be chance"
        chance = "" if self.is_gain else ", so it may be chance"
        return (
            f"{text}; the difference of {gain:.3f} has a standard error of {self.standard_error:.3f}{chance}"
        )


def compare_losses(simpler: Tensor, richer: Tensor, scenes: Tensor) -> Comparison:
    """Compare the losses (N,) of two models for the same windows or clips; those of a scene go together."""
    numbers, inverse = scenes.unique(return_inverse=True)
    differences = (simpler - richer).double()
    sums = torch.zeros(len(numbers), dtype=torch.float64).index_add_(0, inverse, differences)
    spread = sums.std().item() if len(numbers) > 1 else nan
    error = spread * len(numbers) ** 0.5 / len(scenes)
    return Comparison(simpler.mean().item(), richer.mean().item(), error)
