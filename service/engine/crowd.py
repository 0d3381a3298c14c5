"""When a batch waits to get full: while decoders and other batches have all of a processor's cores."""

from collections.abc import Iterable


class Crowd:
    """The ``cores`` that decoders and ``devices`` share, each of which counts as one while it computes.

    Where all are at work, a batch more would only take its core from the others, and units cost the least in
    batches that are full. Whatever is queued is taken the moment a core is free. Pure bookkeeping: the caller
    holds a lock.
    """

    def __init__(self, cores: int, devices: Iterable[str]) -> None:
        self.devices = frozenset(devices)
        self.decoding = 0  # cores that decoders are at work on
        self._cores = cores
        self._computing: set[str] = set()

    def begin(self, device: str) -> None:
        """It computes a batch."""
        if device in self.devices:
            self._computing.add(device)

    def end(self, device: str) -> None:
        """It computes nothing, whether or not it did."""
        self._computing.discard(device)

    @property
    def is_idle(self) -> bool:
        """Whether neither decoders nor devices are at work."""
        return not self.decoding and not self._computing

    def is_in_the_way_of(self, device: str) -> bool:
        """Has it no core of its own to compute on?"""
        return device in self.devices and self.decoding + len(self._computing) >= self._cores
