"""The cost of work: processor time as a child tells it, and energy as zeus reads it from files."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.energy import rapl_counters
from tubelet.models.costs import (
    ASSUMED_WATTS,
    Cost,
    PhaseCosts,
    energy_counters,
    estimated_energy,
    estimated_joules,
    measured_energy,
    read_cost,
)

_BUSY = """
import sys, time
while time.process_time() < 0.3: pass
print(time.process_time(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def powercap(tmp_path: Path) -> Iterator[Path]:
    with rapl_counters(tmp_path) as root:
        yield root


def test_workers_count_while_they_run_and_after_they_were_waited_for() -> None:
    start = read_cost()
    with subprocess.Popen(
        [sys.executable, "-c", _BUSY], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        told_s = float(child.stdout.readline())
        running = read_cost().since(start)
        child.communicate("")
    ended = read_cost().since(start)
    tick_s = 0.02  # psutil counts in ticks of 10 ms, user and system apart
    for cost in (running, ended):
        assert told_s - tick_s <= cost.workers_s < 2 * told_s  # counted once; its start and end count, too
        assert cost.processor_s > cost.workers_s


def test_a_phase_within_another_counts_once() -> None:
    costs, whole = PhaseCosts(), read_cost()
    with costs.measure("outer"):
        _use(0.05)
        with costs.measure("inner"):
            _use(0.2)
    spent_s = read_cost().since(whole).processor_s
    assert costs.phases["inner"].processor_s >= 0.2
    assert costs.phases["outer"].processor_s >= 0.05
    assert costs.total.processor_s <= spent_s


def test_costs_of_a_run_that_is_resumed_add_up(tmp_path: Path) -> None:
    file, first, second = tmp_path / "costs.json", PhaseCosts(), PhaseCosts()
    with suppress(KeyboardInterrupt), first.kept_in(file), first.measure("training"):
        _use(0.05)
        raise KeyboardInterrupt
    with second.kept_in(file), second.measure("training"):
        _use(0.05)
    kept = json.loads(file.read_text())["training"]
    assert kept["processor_s"] == second.total.processor_s >= first.total.processor_s + 0.05
    file.write_text("[]")
    with PhaseCosts().kept_in(file):  # of something else: nothing to add
        pass
    assert json.loads(file.read_text()) == {}


def test_energy_is_read_from_the_counters_of_the_kernel(powercap: Path) -> None:
    start = read_cost()
    assert start.joules == {"cpu:0": 5.0, "dram:0": 5.0}  # the platform has both in it
    (powercap / "intel-rapl:0" / "energy_uj").write_text("7500000\n")
    (powercap / "intel-rapl:0" / "intel-rapl:0:0" / "energy_uj").write_text("5250000\n")
    assert read_cost().since(start).joules == {"cpu:0": 2.5, "dram:0": 0.25}


def test_a_phase_has_the_energy_of_its_own_work(powercap: Path) -> None:
    def use(microjoules: int) -> None:
        counter = powercap / "intel-rapl:0" / "energy_uj"
        counter.write_text(f"{int(counter.read_text()) + microjoules}\n")

    costs = PhaseCosts()
    with costs.measure("outer"):
        use(1_000_000)
        with costs.measure("inner"):
            use(500_000)
    assert costs.phases["inner"].joules == {"cpu:0": 0.5, "dram:0": 0.0}
    assert costs.phases["outer"].joules == {"cpu:0": 1.0, "dram:0": 0.0}
    assert costs.total.joules == {"cpu:0": 1.5, "dram:0": 0.0}


def test_without_counters_there_are_no_joules(powercap: Path) -> None:
    (powercap / "intel-rapl:0" / "energy_uj").unlink()
    assert energy_counters() is None
    assert read_cost().joules == {}
    assert estimated_joules(10) == 10 * ASSUMED_WATTS
    assert estimated_energy(300).startswith("about 3.6 kJ, an estimate: 12 W for a busy core")


def test_costs_add_up_by_device() -> None:
    both = Cost(2, 1, {"cpu:0": 3}) + Cost(1, 0, {"cpu:0": 1, "cuda:0": 7})
    assert both == Cost(3, 1, {"cpu:0": 4, "cuda:0": 7})
    assert both.shared_by(2) == Cost(1.5, 0.5, {"cpu:0": 2, "cuda:0": 3.5})
    assert measured_energy(both) == "4 J of cpu:0, 7 J of cuda:0"
    assert both.since(Cost(1, 1, {"cpu:0": 1})) == Cost(2, 0, {"cpu:0": 3})  # since no reading of cuda:0


def _use(seconds: float) -> None:
    """Use processor time."""
    end = read_cost().processor_s + seconds
    while read_cost().processor_s < end:
        pass
