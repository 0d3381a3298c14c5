"""The hidden folder of a model that is being written, and those that killed processes left."""

import os
import subprocess
import sys
from pathlib import Path

from tubelet.models.repository.partial_folder import partial_folder

_WRITE = """
import sys, time
from pathlib import Path
from tubelet.models.repository.partial_folder import partial_folder

with partial_folder(Path(sys.argv[1])) as partial:
    (partial / "weights").write_text("half")
    print(partial, flush=True)
    time.sleep(600)
"""


def test_a_folder_is_removed_at_the_end(tmp_path: Path) -> None:
    with partial_folder(tmp_path / "model" / "1") as partial:
        assert partial.parent == tmp_path / "model"
        assert partial.name.startswith(".1-")
    assert not (tmp_path / "model").exists()


def test_folders_of_killed_processes_go_those_of_running_ones_stay(tmp_path: Path) -> None:
    folder = tmp_path / "model" / "1"
    with subprocess.Popen(
        [sys.executable, "-c", _WRITE, str(folder)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        left = Path(writer.stdout.readline().strip())
        os.utime(left, (0, 0))
        with partial_folder(folder):
            assert (left / "weights").read_text() == "half"
        writer.kill()
    other = folder.with_name(".1-is-of-another-version")
    other.mkdir()
    os.utime(other, (0, 0))
    with partial_folder(folder):
        assert not left.exists()
    assert other.exists()
