"""The table of small models that tell how one of several objects moves, for tests of explanations.

What decides their answer is at a known place and time: see ``simulation/moving_objects.py``.
"""

import torch

from tubelet.models.families.channel_stack import ChannelStackDims
from tubelet.models.families.divided import Divided, DividedDims
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.families.joint import JointDims
from tubelet.models.families.registry import Dims, build_model
from tubelet.models.spec import Family, ModelSpec, Preprocessing, Sampling
from tubelet.models.training.init import shifted_frames_
from tubelet.models.training.simulation.moving_objects import (
    FRAMES,
    LABELS,
    SIZE,
    SPAN_FRAMES,
    MovingObjects,
)
from tubelet.models.training.small_models import initialise_small_
from tubelet.models.training.trainer import Recipe, Trainer
from tubelet.models.video_model import VideoModel

PATCH = 8  # side of a patch, pixels
SEED = 20260201
PREPROCESSING = Preprocessing(SIZE, SIZE, "crop", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
TUBELET = (SPAN_FRAMES, PATCH, PATCH)
DIMS: dict[Family, tuple[int, Dims]] = {  # frames in a unit, sizes
    "factorised": (SPAN_FRAMES, FactorisedDims(TUBELET, FRAMES // SPAN_FRAMES, 64, 3, 1, 4, 128)),
    "joint": (FRAMES, JointDims(FRAMES, TUBELET, 64, 3, 4, 128)),
    "divided": (FRAMES, DividedDims(FRAMES, PATCH, 64, 3, 4, 128)),
    "channel_stack": (FRAMES, ChannelStackDims(FRAMES, PATCH, 64, 3, 4, 128)),
}
RECIPE = Recipe(
    steps=600,
    learning_rate=2e-3,
    warmup_steps=50,
    average_decay=0.99,
    dtype=torch.float32,
    checkpoint_steps=100,
)


def spec_of(family: Family) -> ModelSpec:
    """Return the spec of the model of a family."""
    frames = DIMS[family][0]
    window_s = 1.0
    return ModelSpec(
        name=f"moving-objects-{family}",
        version="1.0.0",
        family=family,
        description="Where the object goes that does not step back.",
        licence="Apache-2.0",
        labels=LABELS,
        sampling=Sampling(frames, FRAMES // frames, window_s, window_s, window_s, window_s),
        preprocessing=PREPROCESSING,
    )


def build(family: Family) -> VideoModel:
    """Build the model of a family with random weights; kernels of several frames are drifting gratings."""
    model = build_model(DIMS[family][1], PREPROCESSING, len(LABELS))
    initialise_small_(model, torch.Generator().manual_seed(SEED))
    if isinstance(model, Divided):
        shifted_frames_(model, SIZE // PATCH, SIZE // PATCH)
    return model


def start(family: Family, recipe: Recipe = RECIPE) -> Trainer[VideoModel]:
    """Return a trainer at step 0, always with the same weights."""
    torch.manual_seed(SEED)
    return Trainer(build(family), None, recipe)


def batches(family: Family, recipe: Recipe = RECIPE) -> MovingObjects:
    """Return the clips that a run trains on."""
    frames = DIMS[family][0]
    return MovingObjects(frames, seed=SEED, batches=recipe.steps, batch_size=recipe.batch_size)
