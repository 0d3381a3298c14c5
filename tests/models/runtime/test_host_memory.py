"""Memory that layers give back stays with the process; what a container may still allocate."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tubelet.models.runtime import host_memory

# Prints how many pages come from the kernel for blocks of 1 MiB that are freed together, again and again.
FAULTS = """
import ctypes, resource, threading
from tubelet.models.runtime.host_memory import keep_freed_memory
{setup}
libc = ctypes.CDLL(None)
libc.malloc.restype, size = ctypes.c_void_p, 1 << 20
def layers():
    for _ in range(10):
        blocks = [ctypes.c_void_p(libc.malloc(size)) for _ in range(64)]
        for block in blocks:
            libc.memset(block, 1, size)
        for block in blocks:
            libc.free(block)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
{run}
print(faults() - before)
"""


IN_A_THREAD = "thread = threading.Thread(target=layers); thread.start(); thread.join()"


@pytest.mark.parametrize("run", ["layers()", IN_A_THREAD], ids=["alone", "in a thread"])
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
def test_freed_memory_is_reused_without_new_pages(run: str) -> None:
    by_default, kept = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS.format(setup=setup, run=run)]))
        for setup in ("", "keep_freed_memory()")
    )
    assert kept < by_default / 2


def test_cached_files_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container of 64 MiB with 10 MiB of its own, that has read a file of 40 MiB."""
    files = {"memory.max": 64 << 20, "memory.current": 50 << 20}
    for name, value in files.items():
        (tmp_path / name).write_text(f"{value}\n")
    stat = {"anon": 10 << 20, "inactive_file": 30 << 20, "active_file": 10 << 20}
    (tmp_path / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in stat.items()))
    monkeypatch.setattr(host_memory, "_CGROUP", tmp_path)
    assert host_memory.free_bytes() == 54 << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory.free_bytes() > 54 << 20
