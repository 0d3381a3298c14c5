"""Energy counters in files, as the kernel shows those of a processor, which zeus reads in their place."""

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from pathlib import Path

import pytest
import zeus.device.cpu
from zeus.device.cpu import rapl

from tubelet.models.costs import energy_counters

_ZONES = {"intel-rapl:0": "package-0", "intel-rapl:0/intel-rapl:0:0": "dram", "intel-rapl:1": "psys"}


@contextmanager
def rapl_counters(folder: Path) -> Iterator[Path]:
    """Write counters of 5 J for a processor, its memory and the whole platform; have zeus read them.

    Yields the root of their tree. The processes in which zeus watches the counters are ended.
    """
    root = folder / "intel-rapl"
    for zone, name in _ZONES.items():
        (root / zone).mkdir(parents=True)
        (root / zone / "name").write_text(f"{name}\n")
        (root / zone / "energy_uj").write_text("5000000\n")
        (root / zone / "max_energy_range_uj").write_text("262143328850\n")
    before = active_children()
    caches = (rapl.rapl_is_available, energy_counters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rapl, "RAPL_DIR", str(root))
        patch.setattr(zeus.device.cpu, "_cpus", None)
        for each in caches:
            each.cache_clear()
        yield root
    for each in caches:
        each.cache_clear()
    for watcher in set(active_children()).difference(before):
        watcher.terminate()
        watcher.join()
