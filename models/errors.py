"""Every error that a user of models can meet. The message of each is one sentence, written for that user.

RuntimeError
├── ModelError
│   ├── UnknownModel            the store has no such model or version
│   ├── BrokenModel             a model's folder cannot be used
│   ├── UnsupportedPrecision    a model or device does not compute in the precision that is configured
│   ├── CannotImport            a checkpoint is not imported
│   ├── CannotTrain             a model is not trained
│   │   ├── TrainingDiverged    the loss is not finite before the model got better
│   │   └── TrainingInterrupted  the user stopped a training, which can be resumed
│   ├── CannotExport            a model is not written in the format of another project
│   ├── CannotRemove            a model's folder is not removed
│   └── CannotExplain           a model does not answer a question about what it looked at
└── MissingExtra                a library that an extra of tubelet installs is absent
"""

from typing import Literal


class ModelError(RuntimeError):
    """A model cannot be found, read, run, imported or removed."""


class UnknownModel(ModelError):
    """The store has no such model or version; ``known`` lists its models as NAME:VERSION."""

    def __init__(self, name: str, version: str, known: tuple[str, ...]) -> None:
        wanted = f"{name}:{version}" if version else name
        super().__init__(f"no model {wanted!r} in the store; it has {', '.join(known) or 'none'}")
        self.name, self.version, self.known = name, version, known


class BrokenModel(ModelError):
    """A model's folder cannot be used; the message names the file and the problem."""


class UnsupportedPrecision(ModelError):
    """A model or device does not compute in the configured precision; the message says why."""


class CannotImport(ModelError):
    """A checkpoint is not imported; the message says what is wrong, and where."""


class CannotTrain(ModelError):
    """A model is not trained; the message says what is wrong, and what to do."""


class TrainingDiverged(CannotTrain):
    """The loss is not finite before any epoch made the model better."""


class TrainingInterrupted(CannotTrain):
    """The user stopped a training; the message says how to go on."""


class CannotExport(ModelError):
    """A model is not exported; the message says why."""


class CannotRemove(ModelError):
    """A model's folder stays where it is; the message says why."""


ExplainReason = Literal[
    "UNKNOWN_LABEL",
    "LABEL_MISSING",
    "SAME_LABEL",
    "LAYER_OUT_OF_RANGE",
    "HEAD_OUT_OF_RANGE",
    "QUERY_OUT_OF_RANGE",
    "NOT_FOR_METHOD",
    "METHOD_NOT_SUPPORTED",
]


class CannotExplain(ModelError):
    """A model does not answer a question about what it looked at; ``reason`` is for machines."""

    def __init__(self, reason: ExplainReason, message: str) -> None:
        super().__init__(message)
        self.reason: ExplainReason = reason


class MissingExtra(RuntimeError):
    """A model or a video source needs a library that is not installed; the message names the extra."""
