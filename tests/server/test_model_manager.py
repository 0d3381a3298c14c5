"""Tests of the model manager: models are loaded, reloaded and retired while the engine works."""

import asyncio
import dataclasses
import logging
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.model_serving import Serving, write
from tests.support.stored_models import DIMS, SPEC, model
from tubelet.models.errors import BrokenModel
from tubelet.models.families.vit import ViT
from tubelet.models.repository.model_folder import write_folder
from tubelet.service.config.config import Config, EngineConfig, ModelsConfig, load_config
from tubelet.service.engine.engine import Engine
from tubelet.service.errors import UnknownModel as NotServed
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.registry import ModelRegistry
from tubelet.service.server.model_manager import ModelManager
from tubelet.service.server.process import run_until_signal


async def test_a_new_version_becomes_the_default_beside_the_old_one(serving: Serving) -> None:
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
    ids=["the model cannot be built", "its units fail"],
)
async def test_a_model_that_cannot_be_built_leaves_the_others_served(
    serving: Serving, caplog: pytest.LogCaptureFixture, key: str, number: int, says: str
) -> None:
    """This happens after a change of libraries, or of the file by hand."""
    write(serving.store, "1", name="other")
    file = serving.store / "other" / "1" / "model.toml"
    file.write_text(re.sub(rf"{key} = \d+", f"{key} = {number}", file.read_text()))
    await serving.reload("tiny", "tiny", "other")
    assert [each.spec.name for each in serving.registry] == ["tiny"]
    assert says in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, KeyError], ids=["expected", "unexpected"])
async def test_a_failed_warm_up_leaves_nothing_queued(
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
    """Return the models whose queue lengths are in the metrics."""
    found = serving.metrics.registry.collect()
    return {
        sample.labels["model"]
        for metric in found
        if metric.name.startswith("tubelet_queued_")
        for sample in metric.samples
        if "model" in sample.labels  # explanations wait in one queue, whatever their model
    }


async def test_an_unchanged_model_is_not_loaded_again(serving: Serving) -> None:
    before = serving.registry.default
    await serving.reload()
    assert serving.registry.default is before


async def test_a_removed_version_still_answers_videos_in_flight(serving: Serving) -> None:
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


async def test_changed_weights_are_loaded_and_miss_the_cache(serving: Serving) -> None:
    """The cache has embeddings of the old weights, which must not be used."""
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
async def test_a_changed_model_toml_reloads_the_model(serving: Serving, before: str, after: str) -> None:
    old = serving.registry.default
    file = serving.store / "tiny" / "1" / "model.toml"
    content = file.read_text()
    assert before in content
    file.write_text(content.replace(before, after))
    await serving.reload()
    (new,) = serving.registry
    assert new is not old


async def test_unloading_old_weights_keeps_the_metrics_of_the_new(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    write(serving.store, "1", seed=1)
    with caplog.at_level(logging.INFO):
        await serving.reload()
        while "unloaded model tiny 1" not in caplog.text:
            await asyncio.sleep(0)
    assert serving.load_seconds("1") is not None


def _counted(serving: Serving) -> dict[str, float]:
    """Return the counters and histograms of "tiny" that are not 0."""
    return {
        sample.name: sample.value
        for family in serving.metrics.registry.collect()
        if family.type in ("counter", "histogram")
        for sample in family.samples
        if sample.labels.get("model") == "tiny" and sample.value
    }


async def test_warm_up_is_not_counted_in_metrics(serving: Serving) -> None:
    write(serving.store, "2", seed=1)
    await serving.reload()
    assert _counted(serving) == {}
    assert serving.metrics.registry.get_sample_value("tubelet_engine_busy_seconds_total") == 0
    await serving.logits(serving.registry.default)
    assert _counted(serving)["tubelet_batch_units_count"] >= 1


async def test_series_of_a_model_end_with_its_last_version(
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


async def test_videos_with_old_weights_do_not_affect_new_answers(
    serving: Serving,
) -> None:
    old = serving.registry.default
    with old.acquire():
        write(serving.store, "1", seed=1)
        await serving.reload()
        await serving.logits(old)
    await _assert_logits_do_not_depend_on_the_cache(serving)


async def test_other_weights_may_reuse_a_removed_version(serving: Serving) -> None:
    write(serving.store, "2", seed=1)
    await serving.reload()
    await serving.logits(serving.registry.default)
    shutil.rmtree(serving.store / "tiny" / "2")
    await serving.reload()
    write(serving.store, "2", seed=2)
    await serving.reload()
    await _assert_logits_do_not_depend_on_the_cache(serving)


async def _assert_logits_do_not_depend_on_the_cache(serving: Serving) -> None:
    found = await serving.logits(serving.registry.default)
    serving.engine.clear_cache()
    np.testing.assert_allclose(found, await serving.logits(serving.registry.default), atol=1e-4)


async def test_a_model_that_cannot_be_loaded_is_left_out(
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


async def test_an_unversioned_folder_serves_the_version_it_holds(serving: Serving) -> None:
    folder = serving.store / "other"
    for version in ("1", "2", "1"):
        spec = dataclasses.replace(SPEC, name="other", version=version)
        write_folder(folder, spec, DIMS, model(), "")
        await serving.reload("tiny", "other")
        assert [each.spec.version for each in serving.registry if each.spec.name == "other"] == [version]


async def test_a_loaded_model_whose_files_break_is_kept(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    old = serving.registry.default
    write(serving.store, "2", name="other")
    (serving.store / "tiny" / "1" / "model.toml").write_text("half written")
    with caplog.at_level(logging.ERROR):
        await serving.reload("other", "other", "tiny")
    assert serving.registry.find("tiny") is old
    assert "model.toml" in caplog.text or "no usable model" in caplog.text


async def test_a_default_that_cannot_be_loaded_changes_nothing(serving: Serving) -> None:
    old = serving.registry.default
    write(serving.store, "1", name="other")
    (serving.store / "other" / "1" / "weights.safetensors").write_bytes(b"cut off")
    with pytest.raises(BrokenModel, match="weights"):
        await serving.reload("other")
    assert serving.registry.default is old
    assert list(serving.registry) == [old]


async def test_a_default_without_a_loadable_version_changes_nothing(serving: Serving) -> None:
    old = serving.registry.default
    write(serving.store, "2")
    (serving.store / "tiny" / "2" / "weights.safetensors").write_bytes(b"cut off")
    shutil.rmtree(serving.store / "tiny" / "1")
    with pytest.raises(BrokenModel, match="weights"):
        await serving.reload()
    assert list(serving.registry) == [old]


async def test_a_default_that_cannot_be_loaded_fails_the_first_load(tmp_path: Path) -> None:
    write(tmp_path, "1")
    (tmp_path / "tiny" / "1" / "weights.safetensors").write_bytes(b"cut off")
    registry = ModelRegistry()
    async with Engine(EngineConfig(device="cpu"), Metrics()) as engine:
        with pytest.raises(BrokenModel, match="weights"):
            await ModelManager(engine, registry).reload(
                ModelsConfig(store=tmp_path, default="tiny", load=("tiny",))
            )


@pytest.mark.usefixtures("signals")
async def test_an_unexpected_reload_error_does_not_stop_the_server() -> None:
    server = {"host": "127.0.0.1", "port": 0, "metrics_port": 0}
    config = load_config(None, server=server, models={"load": ("camera-motion",)})
    next_signals = iter((signal.SIGHUP, signal.SIGTERM))

    def reread() -> Config:
        signal.raise_signal(next(next_signals))
        raise ZeroDivisionError

    await run_until_signal(config, lambda _: signal.raise_signal(signal.SIGHUP), reread)
    assert list(next_signals) == []  # it went on to the second error
