"""A folder that takes the place of another: at any time one of the two has the name."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tubelet.models.repository.publish import publish_folder

_PUBLISH_UNTIL_KILLED = """
import sys
from itertools import count
from pathlib import Path
from tubelet.models.repository.publish import publish_folder

folder = Path(sys.argv[1])
for number in count():
    new = folder.with_name(f".new-{number}")
    new.mkdir()
    (new / "content").write_text("whole")
    publish_folder(new, folder)
    print(number, flush=True)
"""


def written(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "content").write_text(content)
    return folder


def test_a_folder_gets_its_name(tmp_path: Path) -> None:
    publish_folder(written(tmp_path / ".new", "new"), tmp_path / "model")
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_that_is_not_to_be_overwritten_stays(tmp_path: Path) -> None:
    older = written(tmp_path / "model", "old")
    with pytest.raises(FileExistsError):
        publish_folder(written(tmp_path / ".new", "new"), older, overwrite=False)
    assert (older / "content").read_text() == "old"


@pytest.mark.parametrize("libc_has_the_call", [True, False])
def test_the_older_folder_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, libc_has_the_call: bool
) -> None:
    if not libc_has_the_call:
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    written(tmp_path / "model", "old")
    publish_folder(written(tmp_path / ".new", "new"), tmp_path / "model")
    assert os.listdir(tmp_path) == ["model"]
    assert (tmp_path / "model" / "content").read_text() == "new"


def test_whenever_a_process_is_killed_a_whole_folder_has_the_name(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", "whole")
    command = [sys.executable, "-c", _PUBLISH_UNTIL_KILLED, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while (line := process.stdout.readline()) and int(line) < 300:
            assert folder.exists()
        assert line, "the process ended by itself"
        process.kill()
    assert (folder / "content").read_text() == "whole"
