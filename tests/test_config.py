"""The configuration: who beats whom, and what is refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.config import Config, load_config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tubelet.toml"
    path.write_text("[server]\nport = 1\nmetrics_port = 1\ndrain_s = 1\n[upload]\nmax_bytes = 1\n")
    return path


def test_flags_beat_the_environment_which_beats_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUBELET_SERVER__METRICS_PORT", "2")
    monkeypatch.setenv("TUBELET_SERVER__PORT", "2")
    config = load_config(file, server={"port": 3})
    assert (config.server.port, config.server.metrics_port, config.server.drain_s) == (3, 2, 1)
    assert config.upload.max_bytes == 1
    assert config.server.max_videos_in_flight == Config().server.max_videos_in_flight


def test_an_unknown_key_is_an_error(file: Path) -> None:
    file.write_text("[server]\nprot = 1\n")
    with pytest.raises(ValidationError, match=r"server\.prot"):
        load_config(file)


def test_an_absent_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.toml"):
        load_config(tmp_path / "nothing.toml")
