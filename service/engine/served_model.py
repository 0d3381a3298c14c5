"""A loaded model: its spec, its devices, and a queue for each of its two stages."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count

import numpy as np

from tubelet.models.spec import ModelSpec
from tubelet.service.engine.batch_tuner import BatchTuning
from tubelet.service.engine.model_runner import Embedding, ModelRunner, WindowInput
from tubelet.service.engine.stage_queue import StageQueue
from tubelet.service.types.video import UnitFrames

_instance_ids = count()


class ServedModel:
    """One loaded model, with a runner on each device of the engine.

    ``tuning`` has the batch sizes of units, ``fingerprint`` is that of the model's folder. ``instance_id`` is
    unique: other weights loaded later under the same name and version get another one.
    """

    def __init__(
        self,
        spec: ModelSpec,
        runners: Sequence[ModelRunner],
        *,
        precision: str,
        fingerprint: str,
        tuning: BatchTuning,
        max_batch_windows: int,
    ) -> None:
        self.instance_id = next(_instance_ids)
        self.spec = spec
        self.precision = precision
        self.unit_shape: tuple[int, ...] | None = None  # of a unit's embedding; known once one was computed
        self.fingerprint = fingerprint
        # The CPU is named once, however many of its cores compute.
        self.devices = tuple(
            dict.fromkeys("cpu" if each.device.type == "cpu" else str(each.device) for each in runners)
        )
        self.encode: StageQueue[UnitFrames, Embedding] = StageQueue(
            spec.name, "encode", tuning, {str(each.device): each.encode for each in runners}
        )
        self.classify: StageQueue[WindowInput, np.ndarray] = StageQueue(
            spec.name,
            "classify",
            BatchTuning(max_batch_windows),
            {str(each.device): each.classify for each in runners},
        )
        self._users = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Keep the model in memory until the context ends."""
        self._users += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until no context of ``acquire`` is open."""
        await self._idle.wait()
