"""Some hundred broken files; ``python -m tests.fuzz files`` makes as many as you like."""

from pathlib import Path

from tests.fuzz.files import ROLES, run_files

_FILES = 400


def test_broken_files_are_refused_or_work(tmp_path: Path) -> None:
    report = run_files(tmp_path, range(_FILES))
    assert report.outcomes.total() == _FILES
    assert report.wrong == {}
    assert report.leaked_descriptors == 0
    assert report.outcomes.keys() >= {f"{role}: refused" for role in ROLES}
    assert any(outcome.endswith("used") for outcome in report.outcomes)
