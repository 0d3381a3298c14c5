"""The folder of clips that training films, and what its commands say of a wrong one."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.sample_clip import panning_clip
from tubelet.service.cli.training.__main__ import app
from tubelet.service.cli.training.scene_split import is_test, scene_of
from tubelet.service.cli.training.sources import NoSources, load_sources
from tubelet.service.config.config import DecodeConfig
from tubelet.service.server.app import SAMPLE_CLIP

CONFIG = DecodeConfig(workers=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nothing in it is a video."""
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "broken.mp4").write_bytes(b"no video")
    return videos


@pytest.fixture(scope="module")
def short() -> bytes:
    return panning_clip(0.5)


def test_clips_after_a_broken_one_are_found(folder: Path, tmp_path: Path, short: bytes) -> None:
    with pytest.raises(NoSources, match="videos holds no clip that can be used: each one cannot be decoded"):
        load_sources(folder, tmp_path / "cache", CONFIG, test=False)
    for number in range(30):  # by their names, a fifth of them is for tests
        (folder / f"{number}.mp4").write_bytes(short)
    train, test = (load_sources(folder, tmp_path / "cache", CONFIG, test=test) for test in (False, True))
    assert {is_test(scene_of(folder / source.name, folder)) for source in train} == {False}
    assert {is_test(scene_of(folder / source.name, folder)) for source in test} == {True}
    assert len({source.name for source in (*train, *test)}) == 30


def test_a_cache_of_another_folder_is_not_taken(folder: Path, tmp_path: Path, short: bytes) -> None:
    for number in range(30):
        (folder / f"{number}.mp4").write_bytes(short)
    load_sources(folder, tmp_path / "cache", CONFIG, test=False)
    with pytest.raises(NoSources, match=r"holds the clips of .*videos, not of .*others"):
        load_sources(tmp_path / "others", tmp_path / "cache", CONFIG, test=False)


def test_one_clip_is_for_training_or_for_tests(folder: Path, tmp_path: Path) -> None:
    shutil.copy(str(SAMPLE_CLIP), folder / "1.mp4")
    held_out = is_test("1.mp4")
    assert [each.name for each in load_sources(folder, tmp_path / "cache", CONFIG, test=held_out)] == [
        "1.mp4"
    ]
    with pytest.raises(NoSources, match="none of the 1 clips of"):
        load_sources(folder, tmp_path / "cache", CONFIG, test=not held_out)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("camera-motion", "--videos", "{}"), "holds no clip"),
        (("camera-motion", "--videos", "{}/absent"), "does not exist"),
        (("camera-motion", "--videos", "{}", "--steps", "0"), "greater than or equal to 1"),
        (("evaluate", "--videos", "{}", "--clips", "{}"), "has not been trained"),
        (("publish",), "has not been trained"),
        (("publish", "--family", "hf"), "'hf' has no recipe; these have: factorised, "),
    ],
)
def test_what_is_wrong_is_said(folder: Path, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    filled = [each.format(folder) for each in arguments]
    done = CliRunner().invoke(app, [*filled, "--runs", str(tmp_path / "runs")], env={"COLUMNS": "500"})
    assert done.exit_code == 2
    assert says in done.output


def test_training_depends_on_the_clips_and_not_on_who_decodes_them(folder: Path, tmp_path: Path) -> None:
    for number in range(8):
        (folder / f"{number}.mp4").write_bytes(panning_clip(1.0, (160 + 16 * number, 120)))
    logs = []
    for workers in (1, 3):
        runs = tmp_path / f"runs-{workers}"
        arguments = ["camera-motion", "--videos", str(folder), "--family", "vit", "--steps", "2"]
        done = CliRunner().invoke(
            app, [*arguments, "--runs", str(runs)], env={"TUBELET_DECODE__WORKERS": str(workers)}
        )
        assert done.exit_code == 0, done.output
        logs.append((runs / "camera-motion-frame" / "log.tsv").read_text())
    assert logs[0] == logs[1]
    assert [line.split("\t")[0] for line in logs[0].splitlines()] == ["1", "2"]
