"""What a training starts from: a model of the store, or random weights."""

from dataclasses import dataclass

import torch

from tubelet.models.families.registry import Dims, build_model, family_of
from tubelet.models.repository.model_folder import Entry
from tubelet.models.spec import ModelSpec
from tubelet.models.training.scratch import scratch
from tubelet.models.training.small_models import average_first_statistics_, initialise_small_
from tubelet.models.video_model import VideoModel

SEED = 20261130
NONE = "none"
"""The name of no base, in ``--from``."""


@dataclass(frozen=True, slots=True)
class Untrained:
    """The sizes, sampling and preprocessing of a model that starts from random weights."""

    spec: ModelSpec
    dims: Dims
    fingerprint: str = "random weights"

    def build(self, num_classes: int) -> VideoModel:
        """Build the model, always with the same random weights."""
        torch.manual_seed(SEED)
        model = build_model(self.dims, self.spec.preprocessing, num_classes)
        initialise_small_(model, torch.Generator().manual_seed(SEED))
        average_first_statistics_(model)
        return model


Base = Entry | Untrained


def untrained(family: str, variant: str) -> Untrained:
    """Return a small model of a family to train from random weights.

    Raises:
        CannotTrain: the family has no such sizes, or the variant does not fit.
    """
    found = scratch(family, variant)
    spec = ModelSpec(
        name=NONE,
        version="1",
        family=family_of(found.dims),
        description="Random weights.",
        licence="that of its data",
        labels=("none",),
        sampling=found.sampling,
        preprocessing=found.preprocessing,
    )
    return Untrained(spec, found.dims)


def base_text(base: Base) -> str:
    """Return the name, version and fingerprint of a base, or that it has random weights, for people."""
    if isinstance(base, Untrained):
        return f"random weights (family {base.spec.family})"
    return f"{base.spec.name} {base.spec.version} (fingerprint {base.fingerprint})"
