"""The number of usable cores, with and without a container's CPU quota."""

import os
from pathlib import Path

import pytest

from tubelet.service.config.cores import usable_cores

_HERE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", _HERE),
        (f"{100_000 * (_HERE + 1)} 100000", _HERE),
        ("100000 100000", 1),
        ("20000 100000", 1),
        ("", _HERE),
    ],
)
def test_cpu_quota_limits_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert usable_cores(file) == cores


def test_all_allowed_cores_count_without_a_quota(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none") == _HERE
