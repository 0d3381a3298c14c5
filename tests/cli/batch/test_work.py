"""The check that Ray can be imported, before a batch on Ray."""

import sys
from pathlib import Path

import pytest

from tubelet.models.errors import MissingExtra
from tubelet.service.cli.batch.work import check_ray


def test_ray_that_cannot_be_imported_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray imports amdsmi, which prints and raises this where AMD's library is missing."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("print('no library')\nraise KeyError('libamd_smi.so')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with pytest.raises(MissingExtra, match=r"KeyError: 'libamd_smi.so'.*pip uninstall amdsmi"):
        check_ray()
    assert capsys.readouterr().out == ""
