"""Shared memory for the units of one walk, as the parent holds it.

t frames, H W C pixels of a unit. Each walk gets memory of its own: frames that someone still holds when a
video is cancelled stay as they are while the worker is busy with the next one.
"""

import fcntl
import mmap
import os
from collections.abc import Callable
from functools import partial

import numpy as np

from service.values import UnitFrames


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
