"""Files of results that a later run continues."""

import json
import multiprocessing
import resource
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tubelet.service.cli.runs.results_log import ResultsInUse, ResultsMismatch, open_results

SETTINGS = {"model": "m", "clips": 1}


def labels(result: dict[str, Any]) -> list[str]:
    return result["labels"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the results of two videos."""
    path = tmp_path / "new" / "results.jsonl"
    with open_results(path, SETTINGS, labels) as results:
        results.add({"video": "x.mp4", "labels": ["ä", "b"]})
        results.add({"video": "y.mp4", "labels": []})
    return path


def test_results_are_continued(path: Path) -> None:
    with open_results(path, SETTINGS, labels) as results:
        assert results.done == {"x.mp4": ["ä", "b"], "y.mp4": []}
        results.add({"video": "y.mp4", "labels": ["c"]})
    assert lines(path)[0] == {"settings": SETTINGS}
    assert [line["video"] for line in lines(path)[1:]] == ["x.mp4", "y.mp4", "y.mp4"]
    with open_results(path, SETTINGS, labels) as results:
        assert results.done["y.mp4"] == ["c"]  # the last one counts


def test_results_of_an_older_version_are_continued(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"asked": {"model": "m", "clips": 1}}\n{"video": "x.mp4", "labels": ["a"]}\n')
    with open_results(path, SETTINGS, labels) as results:
        assert results.done == {"x.mp4": ["a"]}


def test_incomplete_last_line_is_dropped(path: Path) -> None:
    whole = path.read_bytes()
    for end in range(1, len(whole)):
        path.write_bytes(whole[:end])
        with open_results(path, SETTINGS, labels) as results:
            results.add({"video": "z.mp4", "labels": []})
        whole_lines = max(1, whole[:end].count(b"\n"))  # at least the settings, which are written anew
        names = [line.get("video") for line in lines(path)]
        assert names == [*[None, "x.mp4", "y.mp4"][:whole_lines], "z.mp4"]


def test_other_settings_are_rejected_by_name(path: Path) -> None:
    before = path.read_bytes()
    with (
        pytest.raises(ResultsMismatch, match="clips was 1, is 2"),
        open_results(path, SETTINGS | {"clips": 2}, labels),
    ):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("before", "now", "is_same"), [("a", "a", True), ("a", "b", False), (None, "a", True), ("a", None, True)]
)
def test_a_model_that_was_replaced_is_another_one(
    tmp_path: Path, before: str | None, now: str | None, is_same: bool
) -> None:
    with open_results(tmp_path / "results.jsonl", SETTINGS | {"fingerprint": before}, labels) as results:
        results.add({"video": "x.mp4", "labels": []})
    expected = nullcontext() if is_same else pytest.raises(ResultsMismatch, match="fingerprint was a, is b")
    with expected, open_results(tmp_path / "results.jsonl", SETTINGS | {"fingerprint": now}, labels):
        pass


def test_file_without_results_takes_new_settings(tmp_path: Path) -> None:
    for clips in (1, 2):
        with open_results(tmp_path / "results.jsonl", {"clips": clips}, labels):
            pass
    assert lines(tmp_path / "results.jsonl") == [{"settings": {"clips": 2}}]


@pytest.mark.parametrize(
    "content", ["{}\n", "[]\n", "1\n", "a line\n", "no end", '{"asked": {}}\n{"asked": {}}\n', "\0" * 9]
)
def test_other_files_are_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(content)
    with pytest.raises(ResultsMismatch, match="is not a file of"), open_results(path, SETTINGS, labels):
        pass
    assert path.read_text() == content


def test_second_run_on_a_file_is_rejected(path: Path) -> None:
    first = open_results(path, SETTINGS, labels)
    with first, pytest.raises(ResultsInUse, match="another run"), open_results(path, SETTINGS, labels):
        pass
    with open_results(path, SETTINGS, labels):
        pass


def _fill(path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    room = path.stat().st_size + 10
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    with open_results(path, SETTINGS, labels) as results:
        try:
            results.add({"video": "long" * 100, "labels": []})
        except OSError:
            raise SystemExit(7) from None


def test_failed_write_leaves_the_file_unchanged(path: Path) -> None:
    before = path.read_bytes()
    process = multiprocessing.get_context("spawn").Process(target=_fill, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 7
    assert path.read_bytes() == before


def test_path_that_is_no_file_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "results.jsonl", tmp_path, Path("/dev/null")):
        with pytest.raises(OSError, match=str(path)), open_results(path, SETTINGS, labels):
            pass
