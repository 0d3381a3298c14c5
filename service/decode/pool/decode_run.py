"""One decode run: the units that a worker may announce for a plan, and the shared memory that holds them."""

import fcntl
import math
import mmap
import os
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tubelet.models.spec import Preprocessing
from tubelet.service.decode.pool.thumbnail_check import check_thumbnails
from tubelet.service.decode.protocol import Decode, ProtocolError
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import DecodeSummary, UnitFrames


class FrameMemory:
    """Shared memory of ``slots`` units of one shape; it is freed when its last view is.

    ``run_id`` identifies its decode run. The worker fills up to ``units_at_once`` slots at the same time.
    """

    def __init__(
        self, run_id: int, slots: int, unit_shape: tuple[int, int, int, int], units_at_once: int
    ) -> None:
        self.run_id = run_id
        self.slots = slots
        self._units_at_once = units_at_once
        self._shape = unit_shape
        self._unit_bytes = int(np.prod(unit_shape))
        self.fd = os.memfd_create("tubelet-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, slots * self._unit_bytes)
        # A hijacked worker must neither shrink the file, which would make our reads fault, nor grow it until
        # the machine runs out of memory.
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._mmap = mmap.mmap(self.fd, slots * self._unit_bytes)
        self._times_lent = [0] * slots  # how often each slot has been lent
        self._lent: set[int] = set()

    @property
    def is_full(self) -> bool:
        """Whether the worker may lack a free slot to go on with."""
        return len(self._lent) > self.slots - self._units_at_once

    def lend(self, grid: int, unit: int, slot: int, on_release: Callable[[int], None]) -> UnitFrames:
        """Return the unit in ``slot``; the first call of its ``release`` frees it and calls ``on_release``.

        Raises:
            ProtocolError: there is no such slot, or it is lent already.
        """
        if slot not in range(self.slots) or slot in self._lent:
            raise ProtocolError(f"slot {slot} is not one that the worker may announce")
        self._lent.add(slot)
        self._times_lent[slot] += 1
        pixels = np.ndarray(self._shape, np.uint8, buffer=self._mmap, offset=slot * self._unit_bytes)
        release = partial(self._reclaim, slot, self._times_lent[slot], on_release)
        return UnitFrames(grid, unit, pixels, release)

    def close_file(self) -> None:
        """Close our descriptor, once it has been sent to the worker; the mapping stays."""
        os.close(self.fd)

    def _reclaim(self, slot: int, times_lent: int, on_release: Callable[[int], None]) -> None:
        """Free ``slot``, unless it was freed before and is perhaps lent again."""
        if slot in self._lent and self._times_lent[slot] == times_lent:
            self._lent.remove(slot)
            on_release(slot)


class DecodeRun:
    """One decoding of ``plan`` by a worker, with the shared memory for its units.

    ``run_id`` tells it from earlier runs on the same worker, whose frames may still be held. ``on_release``
    is called with the run and the slot of each unit that is released. The worker is to return at most
    ``max_thumbnails``.
    """

    def __init__(
        self,
        run_id: int,
        plan: Plan,
        preprocessing: Preprocessing,
        memory_bytes: int,
        on_release: Callable[["DecodeRun", int], None],
        max_thumbnails: int = 0,
    ) -> None:
        self._plan = plan
        self._preprocessing = preprocessing
        self._on_release = on_release
        self._max_thumbnails = max_thumbnails
        self._num_received: dict[int, int] = {}  # units, by grid
        slots = _num_slots(plan, preprocessing, memory_bytes)
        self.memory = FrameMemory(run_id, slots, _unit_shape(plan, preprocessing), plan.units_at_once)

    def request(self, *, fast: bool) -> Decode:
        """Return the message that starts this run."""
        return Decode(
            self.memory.run_id,
            self.memory.slots,
            self._plan,
            self._preprocessing,
            fast,
            self._max_thumbnails,
        )

    def receive_unit(self, grid: int, unit: int, slot: int) -> UnitFrames:
        """Check a unit that the worker announces in ``slot``, and lend it.

        Raises:
            ProtocolError: the unit is not in the plan or not the next one of its grid, or its slot is wrong.
        """
        if not self._plan.has(grid, unit):
            raise ProtocolError(f"the plan has no unit {unit} in grid {grid}")
        if unit != (expected := self._num_received.get(grid, 0)):
            raise ProtocolError(f"got unit {unit} of grid {grid} instead of unit {expected}")
        self._num_received[grid] = unit + 1
        return self.memory.lend(grid, unit, slot, partial(self._on_release, self))

    def check_end(self, end: DecodeSummary) -> None:
        """Check that the worker has announced all units that the plan has before ``end``, and its thumbnails.

        Raises:
            ProtocolError: units are missing, or thumbnails are not what was asked for.
        """
        check_thumbnails(end.thumbnails, self._max_thumbnails)
        cut = self._plan.cut(end.end_ns) if self._plan.fits(end.metadata.duration_ns) else None
        for grid, expected in enumerate(cut.grids if cut is not None else ()):
            if (received := self._num_received.get(grid, 0)) < expected.num_units:
                raise ProtocolError(
                    f"the run ended after {received} of {expected.num_units} units of grid {grid}"
                )


def split_by_memory(
    plan: Plan, preprocessing: Preprocessing, memory_bytes: int
) -> Iterator[tuple[int, Plan]]:
    """Yield parts of ``plan`` that fit into ``memory_bytes``, each with the number of its first grid."""
    return plan.split_by_memory(_num_slots(plan, preprocessing, memory_bytes))


def _num_slots(plan: Plan, preprocessing: Preprocessing, memory_bytes: int) -> int:
    """Return how many units fit into ``memory_bytes``; at least one, whatever its size."""
    return max(1, memory_bytes // math.prod(_unit_shape(plan, preprocessing)))


def _unit_shape(plan: Plan, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """Return the shape of one unit: (t, H, W, C)."""
    return plan.grids[0].frames_per_unit, preprocessing.height, preprocessing.width, 3
