"""The inputs of a simulation: a machine, the costs of its work, and videos."""

from dataclasses import dataclass

from tubelet.service.engine.scheduler import Batch
from tubelet.service.types.request import Priority


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine. Each device computes with ``device_threads`` on the cores; 0: it is a GPU."""

    cores: int
    decoders: int
    devices: int = 1
    device_threads: int = 0
    slots: int = 32  # units of one decoder that may wait for a device
    max_batch_units: int = 32
    max_batch_windows: int = 64


@dataclass(frozen=True, slots=True)
class DeviceCosts:
    """Seconds of a device that a batch takes, and each item in it."""

    encode_batch_s: float = 0.0
    unit_s: float = 0.0
    classify_batch_s: float = 0.0
    window_s: float = 0.0

    def encode_s(self, units: int) -> float:
        """Return the seconds that a batch of this number of ``units`` takes."""
        return self.encode_batch_s + self.unit_s * units

    def of(self, batch: Batch) -> float:
        """Return the seconds that ``batch`` takes."""
        if batch.queue.stage == "encode":
            return self.encode_s(len(batch.items))
        return self.classify_batch_s + self.window_s * len(batch.items)


@dataclass(eq=False, slots=True)
class Video:
    """One request for a video of ``windows`` that share no unit. Times are seconds of the simulated clock."""

    arrival_s: float
    windows: int
    units_per_window: int
    unit_decode_s: float  # of a core
    other_s: float = 0.0  # of a core, before the first unit: transport and probe
    deadline_s: float | None = None  # after its arrival
    priority: Priority = Priority.NORMAL
    identity: str = ""
    answered_s: float | None = None
    is_refused: bool = False
    retry_after_s: float | None = None  # the retry delay of a rejection
    is_over: bool = False  # answered, rejected or cancelled

    @property
    def latency_s(self) -> float | None:
        return None if self.answered_s is None else self.answered_s - self.arrival_s

    @property
    def units(self) -> int:
        return self.windows * self.units_per_window
