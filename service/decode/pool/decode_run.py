"""One plan that a worker walks through: what it may hand out next, and the memory that it comes in."""

import fcntl
import math
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from tubelet.service.decode.protocol import ProtocolError
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import DecodeSummary, PixelFormat, UnitFrames


class FrameMemory:
    """``slots`` units of one shape in an anonymous file, which goes when its last view does.

    The worker fills up to ``at_once`` of them at the same time.
    """

    def __init__(self, number: int, slots: int, unit_shape: tuple[int, int, int, int], at_once: int) -> None:
        self.number = number
        self.slots = slots
        self._at_once = at_once
        self._shape = unit_shape
        self._unit_bytes = int(np.prod(unit_shape))
        self.fd = os.memfd_create("tubelet-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, slots * self._unit_bytes)
        # A worker gone bad must not cut the file, so that our reads fault, nor grow it until memory is full.
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._mmap = mmap.mmap(self.fd, slots * self._unit_bytes)
        self._turns = [0] * slots  # how often each slot has been handed out
        self._out: set[int] = set()

    @property
    def is_full(self) -> bool:
        """The worker may have no slot left to go on with."""
        return len(self._out) > self.slots - self._at_once

    def hand_out(self, grid: int, unit: int, slot: int, on_release: Callable[[int], None]) -> UnitFrames:
        """The unit in ``slot``; the first call of its ``release`` frees the slot and calls ``on_release``.

        Raises:
            ValueError: no such slot, or it is handed out already.
        """
        if slot not in range(self.slots) or slot in self._out:
            raise ValueError(f"slot {slot} is not the worker's to announce")
        self._out.add(slot)
        self._turns[slot] += 1
        pixels = np.ndarray(self._shape, np.uint8, buffer=self._mmap, offset=slot * self._unit_bytes)
        release = partial(self._take_back, slot, self._turns[slot], on_release)
        return UnitFrames(grid, unit, pixels, release)

    def close_file(self) -> None:
        """After the worker has it; the mapping stays."""
        os.close(self.fd)

    def _take_back(self, slot: int, turn: int, on_release: Callable[[int], None]) -> None:
        if slot in self._out and self._turns[slot] == turn:
            self._out.remove(slot)
            on_release(slot)


class Walk:
    """``number`` tells its memory from that of the walks before it, whose frames may be held still.

    ``on_release`` is called with the walk and the slot that somebody has given back.
    """

    def __init__(
        self,
        number: int,
        plan: Plan,
        pixel_format: PixelFormat,
        memory_bytes: int,
        on_release: Callable[["Walk", int], None],
    ) -> None:
        self._plan = plan
        self._pixel_format = pixel_format
        self._on_release = on_release
        self._said: dict[int, int] = {}  # by grid, how many units
        slots = _slots(plan, pixel_format, memory_bytes)
        self.memory = FrameMemory(number, slots, _unit_shape(plan, pixel_format), plan.units_at_once)

    def order(self) -> dict[str, Any]:
        """What the worker has to know of it."""
        return {
            "memory": self.memory.number,
            "slots": self.memory.slots,
            "pixel_format": asdict(self._pixel_format),
            "grids": [asdict(grid) for grid in self._plan.grids],
            "is_unbounded": self._plan.is_unbounded,
        }

    def unit(self, grid: int, unit: int, slot: int) -> UnitFrames:
        """What the worker says that it has put into a slot.

        Raises:
            ProtocolError: it is not in the plan, or not the next one of its grid.
            ValueError: the slot is not the worker's.
        """
        if not self._plan.has(grid, unit):
            raise ProtocolError(f"the plan has no unit {unit} in grid {grid}")
        if unit != (due := self._said.get(grid, 0)):
            raise ProtocolError(f"unit {unit} of grid {grid}, where unit {due} is due")
        self._said[grid] = unit + 1
        return self.memory.hand_out(grid, unit, slot, partial(self._on_release, self))

    def check_end(self, end: DecodeSummary) -> None:
        """
        Raises:
            ProtocolError: units are missing that the plan has before this end.
        """
        cut = self._plan.cut(end.end_ns) if self._plan.fits(end.metadata.duration_ns) else None
        for grid, due in enumerate(cut.grids if cut is not None else ()):
            if (said := self._said.get(grid, 0)) < due.num_units:
                raise ProtocolError(f"an end after {said} of {due.num_units} units of grid {grid}")


def split_by_memory(plan: Plan, pixel_format: PixelFormat, memory_bytes: int) -> Iterator[tuple[int, Plan]]:
    """The plan in parts that the memory has slots for, with the number of each one's first grid."""
    return plan.split_by_memory(_slots(plan, pixel_format, memory_bytes))


def _slots(plan: Plan, pixel_format: PixelFormat, memory_bytes: int) -> int:
    """How many of its units fit; one does, whatever its size."""
    return max(1, memory_bytes // math.prod(_unit_shape(plan, pixel_format)))


def _unit_shape(plan: Plan, pixel_format: PixelFormat) -> tuple[int, int, int, int]:
    return plan.grids[0].frames_per_unit, pixel_format.height, pixel_format.width, 3
