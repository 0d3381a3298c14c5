"""The share of a node that an actor gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tubelet.service.config.config import Config


@dataclass(frozen=True, slots=True)
class ActorShare:
    """What an actor gets of its node: CPUs, which are decode workers and threads of the engine, and GPUs."""

    cpus: int
    gpus: int = 0

    def __str__(self) -> str:
        gpus = f" and {self.gpus} GPU" if self.gpus else ""
        return f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}{gpus}"

    def settings(self, config: Config) -> dict[str, Any]:
        """Return the settings of an actor, by their tables: those of ``config``, and what it leaves open.

        A store of models that nobody named and that does not exist stays open: named, it would be missed.
        """
        engine, decode = config.engine, config.decode
        if engine.device == "auto" and not self.gpus:
            engine = engine.model_copy(update={"device": "cpu"})
        if engine.threads is None:
            engine = engine.model_copy(update={"threads": self.cpus})
        if "workers" not in decode.model_fields_set:
            decode = decode.model_copy(update={"workers": self.cpus})
        settings = config.model_copy(update={"engine": engine, "decode": decode}).model_dump()
        if "store" not in config.models.model_fields_set and not config.models.store.is_dir():
            del settings["models"]["store"]
        return settings


def share_of_nodes(nodes: Sequence[Mapping[str, float]], cpus: int | None) -> tuple[ActorShare, int]:
    """Return the share of an actor, and how many actors the nodes have room for, at least one.

    ``nodes`` has the resources of each. Where some have GPUs, an actor gets one, and its part of the CPUs;
    else all CPUs of the smallest node; with ``cpus``, so many.
    """
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
    with_cpus = [node for node in nodes if node.get("CPU", 0) >= 1]
    if with_gpus:
        own = cpus or max(1, int(min(node.get("CPU", 1) / node["GPU"] for node in with_gpus)))
        room = sum(int(min(node["GPU"], node.get("CPU", 0) // own)) for node in with_gpus)
        return ActorShare(own, 1), max(1, room)
    own = cpus or int(min((node["CPU"] for node in with_cpus), default=1))
    return ActorShare(own), max(1, sum(int(node["CPU"] // own) for node in with_cpus))
