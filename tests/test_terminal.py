"""Commands in a terminal, as a person sees them: the rendered screen, and what is redirected from it."""

import json
import shutil
from pathlib import Path

import pytest

from tests.clips import pan
from tests.serving import Served
from tests.terminal import terminal


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera that pans for two seconds."""
    path = tmp_path_factory.mktemp("clip") / "pan.mp4"
    path.write_bytes(pan(2.0))
    return path


def test_json_is_printed_in_a_terminal(served: Served, clip: Path) -> None:
    command = ("classify", str(clip), "missing.mp4", "--json", "--server", served.target)
    with terminal(*command, columns=2000) as shown:
        assert shown.wait() == 1
    answer, failed = (json.loads(line) for line in shown.lines if line.startswith("{"))
    assert answer["labels"][0]["label"] == "pan_right"
    assert failed["error"]["reason"] == "FILE_NOT_READABLE"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_answers_go_whole_to_a_file(
    served: Served, clip: Path, tmp_path: Path, form: tuple[str, ...]
) -> None:
    command = ("classify", str(clip), "missing.mp4", "--server", served.target, *form)
    with (tmp_path / "out").open("wb") as out, terminal(*command, stdout=out) as shown:
        assert shown.wait() == 1
    text = (tmp_path / "out").read_text()
    assert "pan_right" in text
    assert ("missing.mp4" in text) == bool(form)
    assert "missing.mp4: " in shown.text


@pytest.mark.parametrize("columns", [80, 200])
def test_every_answer_of_140_stays_on_the_screen(
    served: Served, clip: Path, tmp_path: Path, columns: int
) -> None:
    names = [f"{number:03}.mp4" for number in range(140)]
    for name in names:
        shutil.copy(clip, tmp_path / name)
    with terminal("classify", *names, "--server", served.target, columns=columns, folder=tmp_path) as shown:
        assert shown.wait() == 0
    assert [line.split(":")[0] for line in shown.lines if ": 2.00 s" in line] == names
    assert sum("whole video" in line for line in shown.lines) == len(names)
    assert not any("━" in line for line in shown.lines)


def test_the_same_video_twice(served: Served, clip: Path) -> None:
    with terminal("classify", str(clip), str(clip), "--server", served.target, columns=200) as shown:
        assert shown.wait() == 0
    assert sum("whole video" in line for line in shown.lines) == 2
    assert "Traceback" not in shown.text
