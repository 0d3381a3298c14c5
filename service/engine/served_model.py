"""A loaded model: what it is, the devices that it is on, and a lane for each of its stages."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count

from tubelet.models.spec import ModelSpec
from tubelet.service.engine.model_runner import Embedding, Logits, Replica
from tubelet.service.engine.stage_queue import Lane
from tubelet.service.types.video import UnitFrames

_numbers = count()


class HostedModel:
    """One model, on all devices of the engine.

    Its ``number`` is no other's, also where other weights come under its name and version.
    """

    def __init__(
        self,
        spec: ModelSpec,
        replicas: Sequence[Replica],
        *,
        precision: str,
        max_batch_units: int,
        max_batch_windows: int,
    ) -> None:
        self.number = next(_numbers)
        self.spec = spec
        self.precision = precision
        # A processor is one, however many of its cores compute.
        self.devices = tuple(
            dict.fromkeys("cpu" if each.device.type == "cpu" else str(each.device) for each in replicas)
        )
        self.encode: Lane[UnitFrames, Embedding] = Lane(
            spec.name, "encode", max_batch_units, {str(each.device): each.encode for each in replicas}
        )
        self.classify: Lane[Sequence[Embedding], Logits] = Lane(
            spec.name, "classify", max_batch_windows, {str(each.device): each.classify for each in replicas}
        )
        self._users = 0
        self._is_unused = asyncio.Event()
        self._is_unused.set()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """It stays in memory for as long as the context lasts."""
        self._users += 1
        self._is_unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._is_unused.set()

    async def unused(self) -> None:
        """Wait until no context of ``in_use`` is open."""
        await self._is_unused.wait()
