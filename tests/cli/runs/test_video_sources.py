"""Videos that a command line names: files, folders, lists, standard input."""

import io
import os
import sys
from pathlib import Path

import pytest

from tubelet.service.cli.runs.video_sources import find_videos


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with videos at two depths, and with other files."""
    for name in ("b.MP4", "a.mkv", "z/c.webm", "notes.txt", ".hidden.mp4", ".git/d.mp4", "empty/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*named: str, list_file: str | None = None, recursive: bool = True) -> list[str]:
    """Return the names of the videos, with the problem of each that cannot be read."""
    found = find_videos(named, list_file, recursive=recursive)
    return [source.name if source.problem is None else f"{source.name}: {source.problem}" for source in found]


def test_folder_is_searched_by_extension(folder: Path) -> None:
    assert names(".") == ["./a.mkv", "./b.MP4", "./z/c.webm"]
    assert names("z", "notes.txt", "https://a/b/") == ["z/c.webm", "notes.txt", "https://a/b/"]
    assert names("z/c.webm", "z/c.webm") == ["z/c.webm", "z/c.webm"]


def test_folder_without_videos_says_why(folder: Path) -> None:
    assert names("a.mkv", "z", recursive=False) == [
        "a.mkv",
        "z: is a folder; -r classifies the videos in it",
    ]
    (said,) = names("empty")
    assert said.startswith("empty: the folder has no videos: no file in it has one of the extensions .264, ")


def test_links_are_followed_once(folder: Path) -> None:
    (folder / "z" / "up").symlink_to(folder)
    (folder / "z" / "self").symlink_to("self")
    (folder / "z" / "self.mp4").symlink_to("self.mp4")
    (folder / "z" / "again.webm").symlink_to("c.webm")
    (folder / "other").symlink_to("z")
    assert names(".") == ["./a.mkv", "./b.MP4", "./other/again.webm", "./other/self.mp4"]


def test_list_names_videos_and_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "list").write_bytes(b"a.mkv\r\n\nnot there.mp4\nz\ncaf\xe9.mp4")
    videos = ["a.mkv", "not there.mp4", "z/c.webm", os.fsdecode(b"caf\xe9.mp4")]
    assert names("b.MP4", list_file="list") == ["b.MP4", *videos]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((folder / "list").read_bytes())))
    assert names(list_file="-") == videos
    assert names("a.mkv", list_file="nope") == ["a.mkv", "nope: cannot be read: No such file or directory"]
    assert names(list_file="notes.txt") == ["notes.txt: the list names no videos"]


def test_second_standard_input_is_rejected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.mkv\n")))
    twice = "-: standard input can be read only once, and an earlier argument reads it"
    assert names("-", "a.mkv", "-") == ["-", "a.mkv", twice]
    assert names("-", list_file="-") == [twice, "a.mkv"]


def test_uri_that_is_not_utf8_is_rejected() -> None:
    (said,) = names(os.fsdecode(b"https://a/\xe9.mp4"))
    assert "not a URI: it has a byte that is not UTF-8" in said
