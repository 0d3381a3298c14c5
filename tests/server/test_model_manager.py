"""Models that come, change and go while the engine works."""

import asyncio
import dataclasses
import logging
import re
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.stored_models import DIMS, SPEC, model
from tubelet.models.families.vit import ViT
from tubelet.models.repository.model_folder import BrokenModel, write_folder
from tubelet.models.repository.repository import UnknownModel
from tubelet.models.spec import ModelSpec
from tubelet.service.config.config import Config, EngineConfig, ModelsConfig, load_config
from tubelet.service.engine.engine import Engine
from tubelet.service.engine.model_runner import Logits
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.errors import UnknownModel as NotServed
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.registry import ModelRegistry
from tubelet.service.server.model_manager import MissingModels, ModelManager
from tubelet.service.server.process import run_until_signal
from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.video import UnitFrames


def write(store: Path, version: str, seed: int = 0, name: str = "tiny") -> ModelSpec:
    spec = dataclasses.replace(SPEC, name=name, version=version)
    write_folder(store / name / version, spec, DIMS, model(seed), "")
    return spec


@dataclass(frozen=True, slots=True)
class Serving:
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
        pixels = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), np.uint8)
        session = self.engine.session(served)
        return await session.classify(
            [session.encode(UnitFrames(0, unit, pixels, lambda: None)) for unit in range(4)]
        )

    def load_seconds(self, version: str) -> float | None:
        labels = {"model": "tiny", "version": version}
        return self.metrics.registry.get_sample_value("tubelet_model_load_seconds", labels)


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    metrics, registry = Metrics(), ModelRegistry()
    write(tmp_path, "1")
    async with Engine(EngineConfig(device="cpu"), metrics) as engine:
        serving = Serving(tmp_path, engine, registry, ModelManager(engine, registry), metrics)
        await serving.reload()
        yield serving


async def test_a_new_version_takes_over_beside_the_old_one(serving: Serving) -> None:
    old = serving.registry.default
    write(serving.store, "2", seed=1)
    await serving.reload()
    new = serving.registry.default
    assert (old.spec.version, new.spec.version) == ("1", "2")
    assert serving.registry.find("tiny", "1") is old
    assert not np.allclose(await serving.logits(old), await serving.logits(new))
    assert list(serving.registry) == [new, old]


@pytest.mark.parametrize(
    ("key", "number", "says"),
    [
        ("num_heads", 7, "other 1, it is not served: the dims in"),
        ("frames_per_unit", 3, "other 1, it is not served"),
    ],
    ids=["no model can be made", "its units fail"],
)
async def test_a_model_toml_that_does_not_fit_leaves_the_others_served(
    serving: Serving, caplog: pytest.LogCaptureFixture, key: str, number: int, says: str
) -> None:
    """As after a change of libraries, or of the file by hand."""
    write(serving.store, "1", name="other")
    file = serving.store / "other" / "1" / "model.toml"
    file.write_text(re.sub(rf"{key} = \d+", f"{key} = {number}", file.read_text()))
    await serving.reload("tiny", "tiny", "other")
    assert [each.spec.name for each in serving.registry] == ["tiny"]
    assert says in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, KeyError], ids=["foreseen", "unforeseen"])
async def test_one_whose_windows_fail_leaves_nothing_in_the_queues(
    serving: Serving,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
) -> None:
    def fail(self: ViT, windows: torch.Tensor) -> torch.Tensor:
        raise error("the head does not fit")

    write(serving.store, "1", name="other")
    with monkeypatch.context() as patch:
        patch.setattr(ViT, "classify", fail)
        await serving.reload("tiny", "tiny", "other")
    assert re.search("other 1, it is not served: .?the head does not fit", caplog.text)
    assert _queues(serving) == {"tiny"}


def _queues(serving: Serving) -> set[str]:
    """The models of which it is shown how much waits."""
    found = serving.metrics.registry.collect()
    return {
        sample.labels["model"]
        for metric in found
        if metric.name.startswith("tubelet_queued_")
        for sample in metric.samples
    }


async def test_a_pinned_default_stays_when_a_newer_version_comes(serving: Serving) -> None:
    """Requests that name the model alone get the pinned version, too; other versions answer by their own."""
    write(serving.store, "2", seed=1)
    await serving.reload("tiny:1", "tiny")
    find = serving.registry.find
    assert [each.spec.version for each in serving.registry] == ["1", "2"]
    assert [find().spec.version, find("tiny").spec.version] == ["1", "1"]
    assert [find("tiny", "2").spec.version, find(version="2").spec.version] == ["2", "2"]
    assert [serving.registry.is_default(each) for each in serving.registry] == [True, False]


async def test_a_rollback_is_one_line_of_the_configuration(serving: Serving) -> None:
    old = serving.registry.default
    write(serving.store, "2", seed=1)
    await serving.reload()
    assert serving.registry.default.spec.version == "2"
    await serving.reload("tiny:1")
    assert serving.registry.default is old
    assert list(serving.registry) == [old]
    with pytest.raises(NotServed, match=r"'tiny:2' is installed but not loaded; .* models: tiny:1$"):
        serving.registry.find("tiny", "2")


async def test_only_versions_that_are_named_are_loaded(serving: Serving) -> None:
    for version in ("1", "2", "10"):
        write(serving.store, version, name="other")
    await serving.reload("tiny", "other:2", "other:1")
    assert [(each.spec.name, each.spec.version) for each in serving.registry] == [
        ("tiny", "1"),
        ("other", "1"),
        ("other", "2"),
    ]
    assert serving.registry.find("other").spec.version == "2"
    not_loaded = {f"{spec.name}:{spec.version}" for spec in serving.registry.not_loaded}
    assert "other:10" in not_loaded
    assert "other:1" not in not_loaded


async def test_without_names_the_store_is_loaded_and_the_embedded_models_are_not(serving: Serving) -> None:
    write(serving.store, "1", name="other")
    await serving.model_manager.reload(ModelsConfig(store=serving.store, default="tiny"))
    assert {each.spec.name for each in serving.registry} == {"tiny", "other"}
    assert {"camera-motion", "camera-motion-stack"} <= {spec.name for spec in serving.registry.not_loaded}


@pytest.mark.parametrize("damage", ["absent", "broken folder", "broken weights"])
async def test_a_pin_that_cannot_be_served_changes_nothing(serving: Serving, damage: str) -> None:
    """Another version of the same name does not stand in for it."""
    old = serving.registry.default
    write(serving.store, "3", seed=1)
    if damage != "absent":
        write(serving.store, "2", seed=1)
        file = {"broken folder": "model.toml", "broken weights": "weights.safetensors"}[damage]
        (serving.store / "tiny" / "2" / file).write_text("cut off")
    with pytest.raises((UnknownModel, BrokenModel)) as caught:
        await serving.reload("tiny:2")
    assert "tiny:2" in str(caught.value) or "tiny/2" in str(caught.value)
    assert list(serving.registry) == [old]
    assert serving.registry.default is old


async def test_a_pin_in_load_that_is_not_there_names_the_versions(serving: Serving) -> None:
    with pytest.raises(MissingModels, match=r"models\.load names 'tiny:7', .*; it has: .*tiny:1"):
        await serving.reload("tiny", "tiny:7")


async def test_what_is_the_same_is_not_loaded_again(serving: Serving) -> None:
    before = serving.registry.default
    await serving.reload()
    assert serving.registry.default is before


async def test_a_version_that_is_taken_away_answers_the_videos_that_have_it(serving: Serving) -> None:
    old = serving.registry.default
    write(serving.store, "2", seed=1)
    shutil.rmtree(serving.store / "tiny" / "1")
    before = await serving.logits(old)
    with old.acquire():
        await serving.reload()
        with pytest.raises(NotServed, match="tiny has no version '1'"):
            serving.registry.find("tiny", "1")
        serving.engine.clear_cache()
        assert np.array_equal(await serving.logits(old), before)
        assert serving.load_seconds("1") is not None
    while serving.load_seconds("1") is not None:
        await asyncio.sleep(0)
    assert serving.load_seconds("2") is not None


async def test_weights_that_changed_are_another_model(serving: Serving) -> None:
    """Also where embeddings of the one before are known."""
    before = await serving.logits(serving.registry.default)
    write(serving.store, "1", seed=1)
    await serving.reload()
    assert not np.allclose(await serving.logits(serving.registry.default), before)
    assert len(list(serving.registry)) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("max_window_s = 4.0", "max_window_s = 5.0"),
        ("mean = [0.1", "mean = [0.2"),
        ('licence = "MIT"', 'licence = "none"'),
        ('act = "gelu"', 'act = "gelu_tanh"'),
    ],
)
async def test_a_model_toml_that_changed_is_another_model(serving: Serving, before: str, after: str) -> None:
    old = serving.registry.default
    file = serving.store / "tiny" / "1" / "model.toml"
    content = file.read_text()
    assert before in content
    file.write_text(content.replace(before, after))
    await serving.reload()
    (new,) = serving.registry
    assert new is not old


async def test_metrics_of_a_model_outlive_those_weights_that_it_had_before(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    write(serving.store, "1", seed=1)
    with caplog.at_level(logging.INFO):
        await serving.reload()
        while "unloaded model tiny 1" not in caplog.text:
            await asyncio.sleep(0)
    assert serving.load_seconds("1") is not None


def _counted(serving: Serving) -> dict[str, float]:
    """Series of tiny that are not 0, of what counts or measures work."""
    return {
        sample.name: sample.value
        for family in serving.metrics.registry.collect()
        if family.type in ("counter", "histogram")
        for sample in family.samples
        if sample.labels.get("model") == "tiny" and sample.value
    }


async def test_warming_up_counts_as_no_work(serving: Serving) -> None:
    write(serving.store, "2", seed=1)
    await serving.reload()
    assert _counted(serving) == {}
    assert serving.metrics.registry.get_sample_value("tubelet_engine_busy_seconds_total") == 0
    await serving.logits(serving.registry.default)
    assert _counted(serving)["tubelet_batch_units_count"] >= 1


async def test_series_of_a_model_go_with_its_last_version(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write(serving.store, "2", seed=1)
    write(serving.store, "1", name="other")
    await serving.reload("tiny", "tiny", "other")
    await serving.logits(serving.registry.default)
    shutil.rmtree(serving.store / "tiny" / "2")
    await serving.reload("tiny", "tiny", "other")
    while "unloaded model tiny 2" not in caplog.text:
        await asyncio.sleep(0)
    assert _counted(serving)["tubelet_stage_seconds_count"] >= 1
    await serving.reload("other")
    while "unloaded model tiny 1" not in caplog.text:
        await asyncio.sleep(0)
    assert _counted(serving) == {}


async def test_videos_that_have_the_old_weights_leave_answers_of_new_ones_alone(
    serving: Serving,
) -> None:
    old = serving.registry.default
    with old.acquire():
        write(serving.store, "1", seed=1)
        await serving.reload()
        await serving.logits(old)
    await _answers_without_what_was_known(serving)


async def test_other_weights_may_return_under_a_version_that_was_taken_away(serving: Serving) -> None:
    write(serving.store, "2", seed=1)
    await serving.reload()
    await serving.logits(serving.registry.default)
    shutil.rmtree(serving.store / "tiny" / "2")
    await serving.reload()
    write(serving.store, "2", seed=2)
    await serving.reload()
    await _answers_without_what_was_known(serving)


async def _answers_without_what_was_known(serving: Serving) -> None:
    found = await serving.logits(serving.registry.default)
    serving.engine.clear_cache()
    np.testing.assert_allclose(found, await serving.logits(serving.registry.default), atol=1e-4)


async def test_one_that_cannot_be_loaded_is_left_out(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    old = serving.registry.default
    write(serving.store, "2", seed=1)
    (serving.store / "tiny" / "2" / "weights.safetensors").write_bytes(b"cut off")
    with caplog.at_level(logging.ERROR):
        await serving.reload()
    assert serving.registry.default is old
    assert "cannot load model tiny 2, it is not served" in caplog.text
    assert np.isfinite(await serving.logits(old)).all()


async def test_a_folder_serves_the_version_that_it_holds_also_after_a_rollback(serving: Serving) -> None:
    folder = serving.store / "other"
    for version in ("1", "2", "1"):
        spec = dataclasses.replace(SPEC, name="other", version=version)
        write_folder(folder, spec, DIMS, model(), "")
        await serving.reload("tiny", "other")
        assert [each.spec.version for each in serving.registry if each.spec.name == "other"] == [version]


async def test_one_whose_files_broke_stays_as_it_was(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    old = serving.registry.default
    write(serving.store, "2", name="other")
    (serving.store / "tiny" / "1" / "model.toml").write_text("half written")
    with caplog.at_level(logging.ERROR):
        await serving.reload("other", "other", "tiny")
    assert serving.registry.find("tiny") is old
    assert "model.toml" in caplog.text or "no usable model" in caplog.text


async def test_an_unknown_default_changes_nothing(serving: Serving) -> None:
    old = serving.registry.default
    write(serving.store, "2", seed=1)
    with pytest.raises(UnknownModel, match="no model 'absent' in the store"):
        await serving.reload("absent")
    assert list(serving.registry) == [old]


async def test_a_default_that_cannot_be_loaded_changes_nothing(serving: Serving) -> None:
    old = serving.registry.default
    write(serving.store, "1", name="other")
    (serving.store / "other" / "1" / "weights.safetensors").write_bytes(b"cut off")
    with pytest.raises(BrokenModel, match="weights"):
        await serving.reload("other")
    assert serving.registry.default is old
    assert list(serving.registry) == [old]


async def test_a_default_whose_folder_holds_nothing_better_changes_nothing(serving: Serving) -> None:
    old = serving.registry.default
    write(serving.store, "2")
    (serving.store / "tiny" / "2" / "weights.safetensors").write_bytes(b"cut off")
    shutil.rmtree(serving.store / "tiny" / "1")
    with pytest.raises(BrokenModel, match="weights"):
        await serving.reload()
    assert list(serving.registry) == [old]


async def test_models_without_a_default_are_listed(serving: Serving) -> None:
    old = serving.registry.default
    serving.registry.set_default(ModelRef("other"))
    assert list(serving.registry) == [old]


async def test_models_that_are_not_there_change_nothing(serving: Serving) -> None:
    old = serving.registry.default
    write(serving.store, "2", seed=1)
    with pytest.raises(MissingModels, match=r"models\.load names 'absent', .*; it has: .*tiny"):
        await serving.reload("tiny", "tiny", "absent")
    shutil.rmtree(serving.store)
    with pytest.raises(MissingModels, match=r"models\.store is '.*', but"):
        await serving.reload("camera-motion")
    assert list(serving.registry) == [old]


async def test_without_a_default_nothing_is_served(tmp_path: Path) -> None:
    write(tmp_path, "1")
    (tmp_path / "tiny" / "1" / "weights.safetensors").write_bytes(b"cut off")
    registry = ModelRegistry()
    async with Engine(EngineConfig(device="cpu"), Metrics()) as engine:
        with pytest.raises(BrokenModel, match="weights"):
            await ModelManager(engine, registry).reload(
                ModelsConfig(store=tmp_path, default="tiny", load=("tiny",))
            )


async def test_another_default(serving: Serving) -> None:
    write(serving.store, "1", name="other")
    await serving.reload("other", "tiny")
    assert serving.registry.default.spec.name == "other"
    assert serving.registry.find("tiny").spec.version == "1"


async def test_a_change_that_fails_in_a_new_way_is_not_the_last_one() -> None:
    server = {"host": "127.0.0.1", "port": 0, "metrics_port": 0}
    config = load_config(None, server=server, models={"load": ("camera-motion",)})
    next_signals = iter((signal.SIGHUP, signal.SIGTERM))

    def reread() -> Config:
        signal.raise_signal(next(next_signals))
        raise ZeroDivisionError

    async with asyncio.timeout(30):
        await run_until_signal(config, lambda _: signal.raise_signal(signal.SIGHUP), reread)
