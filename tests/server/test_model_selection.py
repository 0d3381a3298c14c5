"""Tests of which models are loaded and which one answers: defaults, pins and the load list."""

import shutil

import pytest

from tests.support.model_serving import Serving, write
from tubelet.models.errors import BrokenModel, UnknownModel
from tubelet.service.config.config import ModelsConfig
from tubelet.service.errors import UnknownModel as NotServed
from tubelet.service.server.model_manager import MissingModels
from tubelet.service.types.model_ref import ModelRef


async def test_a_pinned_default_stays_when_a_newer_version_comes(serving: Serving) -> None:
    """Requests that give only the model's name get the pinned version, others the version that they name."""
    write(serving.store, "2", seed=1)
    await serving.reload("tiny:1", "tiny")
    find = serving.registry.find
    assert [each.spec.version for each in serving.registry] == ["1", "2"]
    assert [find().spec.version, find("tiny").spec.version] == ["1", "1"]
    assert [find("tiny", "2").spec.version, find(version="2").spec.version] == ["2", "2"]
    assert [serving.registry.is_default(each) for each in serving.registry] == [True, False]


async def test_pinning_the_old_version_rolls_back(serving: Serving) -> None:
    old = serving.registry.default
    write(serving.store, "2", seed=1)
    await serving.reload()
    assert serving.registry.default.spec.version == "2"
    await serving.reload("tiny:1")
    assert serving.registry.default is old
    assert list(serving.registry) == [old]
    with pytest.raises(NotServed, match=r"'tiny:2' is installed but not loaded; .* models: tiny:1$"):
        serving.registry.find("tiny", "2")


async def test_only_listed_versions_are_loaded(serving: Serving) -> None:
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


async def test_an_empty_load_list_loads_the_store_without_embedded_models(serving: Serving) -> None:
    write(serving.store, "1", name="other")
    await serving.model_manager.reload(ModelsConfig(store=serving.store, default="tiny"))
    assert {each.spec.name for each in serving.registry} == {"tiny", "other"}
    assert {"camera-motion", "camera-motion-stack"} <= {spec.name for spec in serving.registry.not_loaded}


@pytest.mark.parametrize("damage", ["absent", "broken folder", "broken weights"])
async def test_a_pinned_version_that_cannot_be_loaded_changes_nothing(serving: Serving, damage: str) -> None:
    """No other version of the same name is the default in its place."""
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


async def test_a_missing_version_in_load_is_answered_with_those_there(serving: Serving) -> None:
    with pytest.raises(MissingModels, match=r"models\.load names 'tiny:7', .*; it has: .*tiny:1"):
        await serving.reload("tiny", "tiny:7")


async def test_an_unknown_default_changes_nothing(serving: Serving) -> None:
    old = serving.registry.default
    write(serving.store, "2", seed=1)
    with pytest.raises(UnknownModel, match="no model 'absent' in the store"):
        await serving.reload("absent")
    assert list(serving.registry) == [old]


async def test_models_are_listed_without_a_default(serving: Serving) -> None:
    old = serving.registry.default
    serving.registry.set_default(ModelRef("other"))
    assert list(serving.registry) == [old]


async def test_missing_models_change_nothing(serving: Serving) -> None:
    old = serving.registry.default
    write(serving.store, "2", seed=1)
    with pytest.raises(MissingModels, match=r"models\.load names 'absent', .*; it has: .*tiny"):
        await serving.reload("tiny", "tiny", "absent")
    shutil.rmtree(serving.store)
    with pytest.raises(MissingModels, match=r"models\.store is '.*', but"):
        await serving.reload("camera-motion")
    assert list(serving.registry) == [old]


async def test_reload_changes_the_default(serving: Serving) -> None:
    write(serving.store, "1", name="other")
    await serving.reload("other", "tiny")
    assert serving.registry.default.spec.name == "other"
    assert serving.registry.find("tiny").spec.version == "1"
