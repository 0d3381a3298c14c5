"""What tests of the server share: an engine with a model manager."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.model_serving import Serving, write
from tubelet.service.config.config import EngineConfig
from tubelet.service.engine.engine import Engine
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.registry import ModelRegistry
from tubelet.service.server.model_manager import ModelManager


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    metrics, registry = Metrics(), ModelRegistry()
    write(tmp_path, "1")
    async with Engine(EngineConfig(device="cpu"), metrics) as engine:
        serving = Serving(tmp_path, engine, registry, ModelManager(engine, registry), metrics)
        await serving.reload()
        yield serving
