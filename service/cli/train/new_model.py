"""The model that ``tubelet train`` makes: what is asked for, what a level hands over, and its folder.

W windows, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from torch import Tensor

from tubelet.models.errors import CannotTrain
from tubelet.models.families.registry import Dims, family_of
from tubelet.models.repository.model_folder import write_folder
from tubelet.models.spec import Accuracy, ModelSpec, Provenance, Sampling
from tubelet.models.training.augmentation import Mirroring
from tubelet.models.training.probe_fit import ATTENTIVE
from tubelet.models.video_model import VideoModel
from tubelet.service.cli.train.base import Base, Untrained
from tubelet.service.cli.train.learning_curve import CurvePoint
from tubelet.service.config.config import Config
from tubelet.service.report.text import decodable
from tubelet.service.types.model_ref import ModelRef

_TRAINED = {
    "probe": "a linear probe on",
    "temporal": "a temporal transformer on",
    "full": "trained from",
}
Level = Literal["probe", "temporal", "full"]
"""What is trained: a new head; the temporal stage, too; all of the model."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to train: the data, the name and version of the model, its base and its window, and how long.

    ``out`` is the folder of the page and of the checkpoints; None: that of the model, and one in the user's
    state. ``resume`` goes on with the training in it. ``family`` and ``variant`` are those of a model that
    starts from random weights, if ``base`` is none. If the user named no level, it is chosen once the base is
    known, for a ``reason``; a ``rival`` is then trained after it, and the better one is kept.
    """

    data: Path
    name: str
    version: str
    base: ModelRef | None  # None: efficientnet-lite0 where the store has it, else camera-motion
    window_s: float | None  # None: the clips' median length, within the limits of the base
    replace: bool
    level: Level = "probe"
    chooses_level: bool = False  # whether another level may be trained than this one
    rival: Level | None = None
    reason: str = ""
    epochs: int | None = None
    minutes: float | None = None
    mirroring: Mirroring = "auto"
    out: Path | None = None
    resume: bool = False
    curve: bool = False  # whether the accuracy on shares of the data is measured, too
    family: str = ""
    variant: str = ""
    precision: float | None = None  # of the thresholds to find
    labels: Path | None = None  # a file with the names of classes, if the data has numbers

    @property
    def last_level(self) -> Level:
        """The level that is trained last."""
        return self.rival or self.level

    def folder(self, config: Config) -> Path:
        """Return the folder of the new model."""
        return config.models.store / self.name / self.version


@dataclass(frozen=True, slots=True)
class Answers:
    """The logits of windows that were not trained on, with the temperature and as ``fitted``: (W, K).

    ``labels`` and ``clips`` (W,) have the index of each window's label, and the number of its clip.
    """

    calibrated: Tensor = field(repr=False)
    fitted: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    clips: Tensor = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a level trained: in words, and as ``details`` for machines.

    ``head`` says what was trained, ``measured_on`` which clips the figures are of.
    """

    level: Level
    head: str
    measured_on: str
    details: Mapping[str, Any] = field(repr=False)
    warnings: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()  # for what was chosen
    curve: tuple[CurvePoint, ...] = ()  # if it was asked for


@dataclass(frozen=True, slots=True)
class Trained:
    """What a level hands over: the model, its sizes and labels, and its answers for unknown scenes.

    The temperature is in the model's head already. ``used`` has the numbers of the clips that were read,
    ``validation`` of those that chose the epoch and the temperature, with the answers ``validated``.
    """

    model: VideoModel = field(repr=False)
    dims: Dims
    labels: tuple[str, ...]
    used: tuple[int, ...] = field(repr=False)
    temperature: float
    recipe: Recipe
    held_out: Answers
    test: Answers | None  # of the test split, if the data has one
    validation: tuple[int, ...] = field(default=(), repr=False)
    validated: Answers | None = None


def new_spec(
    request: Request, base: Base, labels: tuple[str, ...], sampling: Sampling, dims: Dims, *figures: Accuracy
) -> ModelSpec:
    """Return the specification of the new model.

    Raises:
        ValueError: the name, the version or a label is not allowed.
    """
    name = "random weights" if isinstance(base, Untrained) else base.spec.name
    version = "" if isinstance(base, Untrained) else f" {base.spec.version}"
    is_attentive = request.level == "probe" and getattr(dims, "pool", None) in ATTENTIVE.values()
    trained = "an attentive probe on" if is_attentive else _TRAINED[request.level]
    return ModelSpec(
        name=request.name,
        version=request.version,
        family=family_of(dims),
        description=f"{len(labels)} labels of {decodable(request.data.name)}, {trained} {name}.",
        licence=base.spec.licence,
        labels=labels,
        sampling=sampling,
        preprocessing=base.spec.preprocessing,
        accuracy=figures,
        provenance=Provenance(
            f"tubelet train, {request.level} on {name}{version}",
            f"base with fingerprint {base.fingerprint}",
            f"tubelet {installed_version('tubelet')}",
        ),
    )


def store_model(
    folder: Path, spec: ModelSpec, dims: Dims, model: VideoModel, card: str, texts: Mapping[str, str]
) -> None:
    """Write a trained model's folder, completely or not at all, with further files ``texts`` by their names.

    Raises:
        CannotTrain: it cannot be written.
    """
    try:
        write_folder(folder, spec, dims, model, card, texts)
    except (OSError, ValueError, SafetensorError) as error:
        raise CannotTrain(f"{folder} cannot be written: {error}; see models.store") from error
