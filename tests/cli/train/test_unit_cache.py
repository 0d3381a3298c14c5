"""The cache of embeddings on disk: by key, whole or not at all, bounded."""

import os
from pathlib import Path

import numpy as np

from tubelet.service.cli.train.levels.unit_cache import UnitCache

UNITS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def test_what_was_put_is_found_under_its_key_alone(tmp_path: Path) -> None:
    cache = UnitCache(tmp_path / "new", 1 << 20)
    cache.put(UNITS, "model", "file")
    found = cache.get("model", "file")
    assert found is not None
    assert np.array_equal(found, UNITS)
    assert cache.get("model", "other") is None
    assert cache.get("modelf", "ile") is None


def test_a_damaged_file_is_not_found(tmp_path: Path) -> None:
    cache = UnitCache(tmp_path, 1 << 20)
    cache.put(UNITS, "a")
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:150])
    assert cache.get("a") is None
    file.write_bytes(b"")
    assert cache.get("a") is None


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path: Path) -> None:
    cache = UnitCache(tmp_path, 1 << 20)
    for name in ("old", "new"):
        (tmp_path / f".partial-{name}").write_bytes(b"x")
    os.utime(tmp_path / ".partial-old", (0, 0))
    cache.trim()
    assert [file.name for file in tmp_path.iterdir()] == [".partial-new"]


def test_the_files_used_longest_ago_are_removed(tmp_path: Path) -> None:
    cache = UnitCache(tmp_path, 2 * (128 + UNITS.nbytes))
    for number, key in enumerate("abc"):
        cache.put(UNITS, key)
        os.utime(cache._file((key,)), (number, number))
    assert cache.get("a") is not None  # used now
    cache.trim()
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]


def test_a_file_that_another_process_removes_stops_nothing(tmp_path: Path) -> None:
    cache = UnitCache(tmp_path, 2 * (128 + UNITS.nbytes))
    for key in "abc":
        cache.put(UNITS, key)
    (tmp_path / "gone.npy").symlink_to(tmp_path / "removed")  # is listed, and has no size
    cache.trim()
    assert sum(cache.get(key) is not None for key in "abc") == 2
