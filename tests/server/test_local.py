"""Tests of the pipeline without a server: models are loaded when a call names them, by exact versions."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.model_serving import write
from tests.support.sample_clip import panning_clip
from tubelet.models.errors import BrokenModel
from tubelet.service.config.config import Config, load_config
from tubelet.service.errors import MalformedOption, UnknownModel
from tubelet.service.server.local import LocalPipeline
from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.request import Options
from tubelet.service.types.result import ignore_event


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A store with two versions of "tiny", the default, and one of "other"."""
    for name, version in (("tiny", "1"), ("tiny", "2"), ("other", "1")):
        write(tmp_path, version, name=name)
    models = {"store": tmp_path, "default": "tiny"}
    return load_config(None, models=models, decode={"workers": 1}, engine={"device": "cpu"})


async def answering(pipeline: LocalPipeline, model: str = "") -> str:
    """Return NAME:VERSION of the model that answers for ``model``."""

    async def chunks() -> AsyncIterator[bytes]:
        yield panning_clip(1.0)

    answer = await pipeline.classify(chunks(), Options(model=model), ignore_event)
    return f"{answer.model}:{answer.version}"


async def test_a_name_means_the_same_whatever_is_loaded(config: Config) -> None:
    async with LocalPipeline(config) as pipeline:
        for _ in range(2):
            for asked, answers in (
                ("other", "other:1"),
                ("tiny:1", "tiny:1"),
                ("tiny", "tiny:2"),
                ("", "tiny:2"),
            ):
                assert await answering(pipeline, asked) == answers


async def test_other_versions_of_a_model_are_not_loaded(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tiny" / "1" / "weights.safetensors").write_bytes(b"")
    async with LocalPipeline(config) as pipeline:
        assert await pipeline.load("tiny") == ModelRef("tiny", "2")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("model", "error"),
    [("nope", UnknownModel), ("tiny:3", UnknownModel), ("a:b:c", MalformedOption), ("broken", BrokenModel)],
)
async def test_a_model_that_cannot_be_loaded_leaves_the_others(
    config: Config, tmp_path: Path, model: str, error: type[Exception]
) -> None:
    write(tmp_path, "1", name="broken")
    (tmp_path / "broken" / "1" / "weights.safetensors").write_bytes(b"")
    async with LocalPipeline(config) as pipeline:
        for _ in range(2):
            with pytest.raises(error):
                await pipeline.load(model)
            assert await answering(pipeline) == "tiny:2"


async def test_unexpected_error_is_raised_as_it_is(config: Config) -> None:
    """Only a server hides it from its clients."""

    async def chunks() -> AsyncIterator[bytes]:
        yield panning_clip(1.0)
        raise ZeroDivisionError("no chunk is left")

    async with LocalPipeline(config) as pipeline:
        with pytest.raises(ZeroDivisionError, match="no chunk is left"):
            await pipeline.classify(chunks(), Options(), ignore_event)
        assert await answering(pipeline) == "tiny:2"
