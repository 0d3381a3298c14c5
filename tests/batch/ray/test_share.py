"""The share of a node that an actor gets, and its settings."""

from pathlib import Path
from typing import Any

import pytest

from tubelet.service.batch.ray.share import ActorShare, share_of_nodes
from tubelet.service.config.config import Config, load_config

HEAD = {"object_store_memory": 1e9}


@pytest.mark.parametrize(
    ("nodes", "cpus", "share", "room"),
    [
        ([{"CPU": 8.0}], None, ActorShare(8), 1),
        ([HEAD, {"CPU": 8.0}, {"CPU": 16.0}], None, ActorShare(8), 3),
        ([{"CPU": 8.0}, {"CPU": 16.0}], 3, ActorShare(3), 7),
        ([HEAD], None, ActorShare(1), 1),  # a cluster that is to grow
        ([{"CPU": 4.0}, {"CPU": 32.0, "GPU": 4.0}], None, ActorShare(8, 1), 4),
        ([{"CPU": 32.0, "GPU": 4.0}], 16, ActorShare(16, 1), 2),
        ([{"CPU": 2.0, "GPU": 4.0}], None, ActorShare(1, 1), 2),
    ],
)
def test_an_actor_gets_a_gpu_with_its_cpus_or_a_node(
    nodes: list[dict[str, float]], cpus: int | None, share: ActorShare, room: int
) -> None:
    assert share_of_nodes(nodes, cpus) == (share, room)


def actor_config(share: ActorShare, **tables: Any) -> Config:
    """The configuration of an actor, as it makes it of the settings."""
    return Config(**share.settings(load_config(**tables)))


def test_an_actor_uses_its_share_unless_the_configuration_says_otherwise() -> None:
    config = actor_config(ActorShare(3), fetch={"allowed_private_networks": ["10.1.0.0/16"]})
    assert (config.decode.workers, config.engine.threads, config.engine.device) == (3, 3, "cpu")
    expected = load_config(
        fetch={"allowed_private_networks": ["10.1.0.0/16"]},
        decode={"workers": 3},
        engine={"threads": 3, "device": "cpu"},
    )
    assert config.model_dump() == expected.model_dump()
    config = actor_config(ActorShare(3, 1), decode={"workers": 5}, engine={"threads": 1})
    assert (config.decode.workers, config.engine.threads, config.engine.device) == (5, 1, "auto")


def test_a_default_store_of_models_that_does_not_exist_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUBELET_MODELS__STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert "store" not in actor_config(ActorShare(1)).models.model_fields_set
    store = load_config().models.store
    assert store.is_relative_to(tmp_path)
    store.mkdir(parents=True)
    assert "store" in actor_config(ActorShare(1)).models.model_fields_set
    missing = actor_config(ActorShare(1), models={"store": str(tmp_path / "missing")})
    assert missing.models.model_fields_set == set(load_config().models.model_dump())
