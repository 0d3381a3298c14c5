"""An engine with a model manager on a store of tiny models."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.support.stored_models import DIMS, SPEC, model
from tubelet.models.repository.model_folder import write_folder
from tubelet.models.spec import ModelSpec
from tubelet.service.config.config import ModelsConfig
from tubelet.service.engine.engine import Engine
from tubelet.service.engine.model_runner import Logits
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.registry import ModelRegistry
from tubelet.service.server.model_manager import ModelManager
from tubelet.service.types.video import UnitFrames


def write(store: Path, version: str, seed: int = 0, name: str = "tiny") -> ModelSpec:
    """Write a model with random weights of this ``seed`` into ``store``."""
    spec = dataclasses.replace(SPEC, name=name, version=version)
    write_folder(store / name / version, spec, DIMS, model(seed), "")
    return spec


@dataclass(frozen=True, slots=True)
class Serving:
    """An engine with a model manager and its parts, on a store of models."""

    store: Path
    engine: Engine
    registry: ModelRegistry
    model_manager: ModelManager
    metrics: Metrics

    async def reload(self, default: str = "tiny", *load: str) -> None:
        await self.model_manager.reload(
            ModelsConfig(store=self.store, default=default, load=load or (default,))
        )

    async def logits(self, served: ServedModel) -> Logits:
        """Return the logits of a window of fixed random pixels."""
        pixels = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), np.uint8)
        session = self.engine.session(served)
        return await session.classify(
            [session.encode(UnitFrames(0, unit, pixels, lambda: None)) for unit in range(4)]
        )

    def load_seconds(self, version: str) -> float | None:
        """Return the load time of a version of "tiny" from the metrics; None: it has no series."""
        labels = {"model": "tiny", "version": version}
        return self.metrics.registry.get_sample_value("tubelet_model_load_seconds", labels)
