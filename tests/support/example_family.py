"""A family of one's own, whole: a package that offers ``build`` to tubelet.

In its pyproject.toml:

    [project.entry-points."tubelet.families"]
    mean_colour = "example_family:build"
"""

from typing import Any

from torch import Tensor, nn

from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import AveragingModel, VideoModel


class MeanColour(AveragingModel):
    """Labels by the mean colour of frames: a unit is a frame, a window's logits are the mean over frames."""

    def __init__(self, preprocessing: Preprocessing, num_classes: int, hidden_dim: int) -> None:
        super().__init__(preprocessing)
        self.head = nn.Sequential(nn.Linear(3, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, num_classes))

    def encode(self, units: Tensor) -> Tensor:
        return self.normalise(units).mean(dim=(1, 2, 3))


def build(dims: dict[str, Any], preprocessing: Preprocessing, num_classes: int) -> VideoModel:
    return MeanColour(preprocessing, num_classes, dims["hidden_dim"])
