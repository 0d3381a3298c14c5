"""How many cores there are for this process, in a container too."""

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
def test_a_container_has_what_its_quota_is_worth(tmp_path: Path, quota: str, cores: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert usable_cores(file) == cores


def test_without_a_quota_they_are_those_it_may_run_on(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none") == _HERE
