"""What a batch asks of every video: a model and options, under a key that all its rows carry."""

import json
import re
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from hashlib import blake2b
from typing import Any

from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.service.config.config import Config
from tubelet.service.types.embeddings import EmbeddingLevel
from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.request import Options

_KEY_BYTES = 6
_NOT_DECISIVE = ("priority", "ranges_ns")  # fields of options that change no answer, or are each video's own


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A model, in an exact version, and the options; ``options.ranges_ns`` are each video's own."""

    fingerprint: str
    options: Options

    @property
    def model(self) -> str:
        """The model as NAME:VERSION."""
        return f"{self.options.model}:{self.options.version}"

    @property
    def has_embeddings(self) -> bool:
        """Whether each segment gets a vector."""
        return self.options.embeddings is not None

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the answers, as JSON."""
        return {"fingerprint": self.fingerprint, "options": _as_json(self.options)}

    @property
    def key(self) -> str:
        """A hash of the settings: 12 hexadecimal digits."""
        content = json.dumps(self.settings, sort_keys=True)
        return blake2b(content.encode(), digest_size=_KEY_BYTES).hexdigest()

    @property
    def folder(self) -> str:
        """The name of the folder of its rows, for people to know them by."""
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', self.model.replace(':', '-'))}-{self.key}"


def make_plan(options: Options, config: Config, *, embeddings: bool) -> BatchPlan:
    """Return the plan for ``options`` with the version of the model that answers now.

    Raises:
        tubelet.models.errors.UnknownModel, BrokenModel: there is no such model, or it cannot be used.
    """
    wanted = ModelRef(options.model, options.version).or_default(config.models.default_ref)
    entry = ModelStore(ZOO, config.models.store).find(wanted.name, wanted.version)
    level = EmbeddingLevel.WINDOW if embeddings else None
    exact = replace(options, model=entry.spec.name, version=entry.spec.version, embeddings=level)
    return BatchPlan(entry.fingerprint, exact)


def _as_json(value: Any) -> Any:
    """Return a frozen value as JSON; a dataclass also has its name."""
    if is_dataclass(value):
        kept = (field.name for field in fields(value) if field.name not in _NOT_DECISIVE)
        return {"is": type(value).__name__} | {name: _as_json(getattr(value, name)) for name in kept}
    return value.value if isinstance(value, Enum) else value
