"""The cost of work: processor time of this process and its workers, and energy where counters tell it."""

import json
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING

import psutil

from tubelet.models.json_file import write_json
from tubelet.models.spec import Sampling

if TYPE_CHECKING:
    from zeus.device.cpu.common import CPUs
    from zeus.device.gpu.common import GPUs

    from tubelet.models.video_model import VideoModel

ASSUMED_WATTS = 12.0
"""Power of a busy core, for estimates: what Green Algorithms takes for a processor that it does not know
(Lannelongue et al., Advanced Science 2021, doi 10.1002/advs.202100707)."""

_TIMED_RUNS = 3  # of a window, after one that is not timed
_PLATFORM = "psys"  # a zone of RAPL that has the others in it


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds of this process and its workers together, those of the workers, joules by device.

    Workers are child processes. There are no ``joules`` where no counter can be read. Counters are of whole
    devices, with what other programs compute on them.
    """

    processor_s: float = 0.0
    workers_s: float = 0.0
    joules: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: "Cost") -> "Cost":
        joules = {
            device: self.joules.get(device, 0.0) + other.joules.get(device, 0.0)
            for device in (*self.joules, *other.joules)
        }
        return Cost(self.processor_s + other.processor_s, self.workers_s + other.workers_s, joules)

    def __sub__(self, part: "Cost") -> "Cost":
        """Return the cost without that of a part of the work, which may lack devices."""
        joules = {device: own - part.joules.get(device, 0.0) for device, own in self.joules.items()}
        return Cost(self.processor_s - part.processor_s, self.workers_s - part.workers_s, joules)

    def since(self, before: "Cost") -> "Cost":
        """Return the cost of what was done after the reading ``before``."""
        joules = {
            device: now - before.joules[device]
            for device, now in self.joules.items()
            if device in before.joules
        }
        return Cost(self.processor_s - before.processor_s, self.workers_s - before.workers_s, joules)

    def shared_by(self, count: int) -> "Cost":
        """Return the cost of each of ``count`` equal pieces of work."""
        joules = {device: joules / count for device, joules in self.joules.items()}
        return Cost(self.processor_s / count, self.workers_s / count, joules)


def read_cost() -> Cost:
    """Read what this process has cost up to now: the difference of two readings is that of the work between.

    A worker that has ended counts once its end was waited for.
    """
    counters = energy_counters()
    joules = counters.read() if counters else {}
    workers_s = _used_s(resource.RUSAGE_CHILDREN)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            workers_s += sum(process.cpu_times()[:4])  # user and system, then those of ended children
    return Cost(_used_s(resource.RUSAGE_SELF) + workers_s, workers_s, joules)


def window_processor_s(model: "VideoModel", sampling: Sampling) -> float:
    """Measure the processor time of classifying a window in float32, seconds: the least of a few runs.

    They have one thread: several count the time in which they only wait for each other, on a busy machine.
    """
    import torch  # here, since commands that ask a server read costs without it

    size = (model.preprocessing.height, model.preprocessing.width, 3)
    shape = (1, sampling.units_per_window, sampling.frames_per_unit, *size)
    window = torch.randint(0, 256, shape, dtype=torch.uint8)
    seconds, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            model.eval()(window)
            for _ in range(_TIMED_RUNS):
                started = process_time()
                model(window)
                seconds.append(process_time() - started)
    finally:
        torch.set_num_threads(threads)
    return min(seconds)


def estimated_joules(processor_s: float) -> float:
    """Estimate the energy of processor time: each busy core takes ``ASSUMED_WATTS``."""
    return ASSUMED_WATTS * processor_s


def measured_energy(cost: Cost) -> str:
    """Format the joules that were measured, by device; "" where none were."""
    return ", ".join(f"{joules_text(joules)} of {device}" for device, joules in cost.joules.items())


def estimated_energy(processor_s: float) -> str:
    """Format an estimate of the energy of processor time, with the power that it assumes."""
    return (
        f"about {joules_text(estimated_joules(processor_s))}, an estimate: {ASSUMED_WATTS:g} W for a busy "
        "core, as Green Algorithms assumes for a processor that it does not know (doi 10.1002/advs.202100707)"
    )


class PhaseCosts:
    """What each phase of a run cost, in the order in which phases ended first."""

    def __init__(self) -> None:
        self.phases: dict[str, Cost] = {}

    @property
    def total(self) -> Cost:
        """The cost of all phases."""
        return sum(self.phases.values(), Cost())

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the cost of the work in this context to ``phase``, but for that of phases within it."""
        start, others = read_cost(), self.total
        try:
            yield
        finally:
            spent = read_cost().since(start) - (self.total - others)
            self.phases[phase] = self.phases.get(phase, Cost()) + spent

    @contextmanager
    def kept_in(self, file: Path) -> Iterator[None]:
        """Add the costs in ``file``, those of a run that is resumed; write all there at the end or an error.

        Raises:
            OSError: the file cannot be written.
        """
        for phase, cost in _read_costs(file).items():
            self.phases[phase] = cost + self.phases.get(phase, Cost())
        try:
            yield
        finally:
            content = {phase: asdict(cost) for phase, cost in self.phases.items()}
            write_json(file, content, indent=1)


def _read_costs(file: Path) -> dict[str, Cost]:
    """Return the costs that a file has; none if it is not there, or has something else."""
    try:
        return {phase: Cost(**cost) for phase, cost in json.loads(file.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


class EnergyCounters:
    """The energy counters of this machine that zeus can read: NVML or AMD SMI of GPUs, RAPL of processors."""

    def __init__(self, gpus: "GPUs", cpus: "CPUs") -> None:
        self._gpus, self._cpus = gpus, cpus

    def read(self) -> dict[str, float]:
        """Return the joules that each device has used since a time in the past.

        Devices are ``cuda:N``, as torch numbers them, ``cpu:N`` for a processor package and ``dram:N`` for
        its memory, where that has a counter of its own. One whose counter cannot be read is left out.
        """
        from zeus.exception import ZeusBaseError

        joules = {}
        for number in range(len(self._gpus)):
            with suppress(ZeusBaseError):
                joules[f"cuda:{number}"] = self._gpus.get_total_energy_consumption(number) / 1000
        for number, cpu in enumerate(self._cpus.cpus):
            if getattr(getattr(cpu, "rapl_file", None), "name", "") == _PLATFORM:
                continue
            with suppress(ZeusBaseError, OSError):
                found = cpu.get_total_energy_consumption()
                joules[f"cpu:{number}"] = found.cpu_mj / 1000
                if found.dram_mj is not None:
                    joules[f"dram:{number}"] = found.dram_mj / 1000
        return joules


@cache
def energy_counters() -> EnergyCounters | None:
    """Return the counters of this machine; None without the extra ``energy``, or where none can be read."""
    try:
        from zeus.device import get_cpus, get_gpus
        from zeus.device.cpu.common import EmptyCPUs
        from zeus.device.gpu.common import EmptyGPUs
        from zeus.exception import ZeusBaseError
    except ImportError:
        return None
    gpus, cpus = EmptyGPUs(), EmptyCPUs()
    with suppress(ZeusBaseError, ImportError):
        gpus = get_gpus()
    with suppress(ZeusBaseError):
        cpus = get_cpus()
    counters = EnergyCounters(gpus, cpus)
    return counters if counters.read() else None


def joules_text(joules: float) -> str:
    """Format joules with three digits."""
    for size, unit in ((1e6, "MJ"), (1e3, "kJ")):
        if joules >= size:
            return f"{joules / size:.3g} {unit}"
    return f"{joules:.3g} J"


def _used_s(which: int) -> float:
    """Return the processor seconds of ``resource.RUSAGE_SELF`` or ``RUSAGE_CHILDREN``."""
    usage = resource.getrusage(which)
    return usage.ru_utime + usage.ru_stime
