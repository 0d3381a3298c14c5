"""The table of the embedded camera-motion models: sizes, sampling, recipes."""

from dataclasses import dataclass

from tubelet.models.families.channel_stack import ChannelStack, ChannelStackDims
from tubelet.models.families.factorised import Factorised, FactorisedDims
from tubelet.models.families.vit import ViT, ViTDims
from tubelet.models.spec import Family, Preprocessing, Sampling
from tubelet.models.training.simulation.camera_path import LABELS
from tubelet.models.training.simulation.foreground import BUSY, PLAIN, Foreground
from tubelet.models.training.trainer import Recipe, Trainable

PREPROCESSING = Preprocessing(48, 48, "crop", mean=(0.45, 0.45, 0.45), std=(0.25, 0.25, 0.25))
PATCH = 8  # side of a patch, pixels
SEED = 20260101


@dataclass(frozen=True, slots=True)
class Task:
    """A model to train: its name in the zoo, sizes, sampling and recipe.

    In training, ``foreground`` is what moves before the simulated camera, and ``screens`` is how many drawn
    screens it films beside the sources. The test set has a plain foreground and no screens.
    """

    name: str
    description: str
    family: Family
    sampling: Sampling
    dims: FactorisedDims | ChannelStackDims | ViTDims
    recipe: Recipe
    foreground: Foreground = PLAIN
    screens: int = 0

    def build(self) -> Trainable:
        """Build the model with random weights."""
        match self.dims:
            case FactorisedDims():
                return Factorised(self.dims, PREPROCESSING, len(LABELS))
            case ChannelStackDims():
                return ChannelStack(self.dims, PREPROCESSING, len(LABELS))
            case ViTDims():
                return ViT(self.dims, PREPROCESSING, len(LABELS))


def _sampling(frames_per_unit: int, units_per_window: int) -> Sampling:
    """Return the sampling of a task: windows of 2 s by default, 1 s to 4 s."""
    return Sampling(
        frames_per_unit, units_per_window, window_s=2.0, stride_s=1.0, min_window_s=1.0, max_window_s=4.0
    )


TASKS: dict[Family, Task] = {
    "factorised": Task(
        name="camera-motion",
        description="How the camera moves: still, pan, tilt, zoom, roll or shake.",
        family="factorised",
        sampling=_sampling(4, 4),
        dims=FactorisedDims(
            tubelet_size=(4, PATCH, PATCH),
            units_per_window=4,
            embed_dim=160,
            spatial_depth=4,
            temporal_depth=2,
            num_heads=5,
            mlp_dim=480,
        ),
        recipe=Recipe(
            steps=14200,
            earlier_legs=(5200, 9200),
            learning_rate=5e-4,
            decay_share=0.6,
            label_smoothing=0.0,
        ),
        foreground=BUSY,
        screens=32,
    ),
    "channel_stack": Task(
        name="camera-motion-stack",
        description="How the camera moves, from sixteen frames stacked as channels: for comparison.",
        family="channel_stack",
        sampling=_sampling(16, 1),
        dims=ChannelStackDims(frames=16, patch_size=PATCH, embed_dim=160, depth=4, num_heads=5, mlp_dim=480),
        recipe=Recipe(steps=3000),
    ),
    "vit": Task(
        name="camera-motion-frame",
        description="How the camera moves, guessed from single frames: what a model without time can know.",
        family="vit",
        sampling=_sampling(1, 4),
        dims=ViTDims(patch_size=PATCH, embed_dim=160, depth=4, num_heads=5, mlp_dim=480),
        recipe=Recipe(steps=600),
    ),
}
