"""Files that tubelet wrote are told from all others."""

import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.report.test_subtitles import answer_of
from tests.report.test_video_page import HOSTILE
from tubelet.service.report.own_files import check_replaceable, replacing, write_own
from tubelet.service.report.page import render_page
from tubelet.service.report.subtitles import srt_text, webvtt_text
from tubelet.service.types.video import NS_PER_S

CUE = "1\n00:00:01,000 --> 00:00:02,000\npan_left 0.50\n\n"


@pytest.mark.parametrize("name", [*HOSTILE, "größer\n\n猫"])
@pytest.mark.parametrize("write", [srt_text, webvtt_text])
def test_subtitles_with_any_label_are_replaced(tmp_path: Path, write, name: str) -> None:
    answer = answer_of((0, NS_PER_S, name), (NS_PER_S, 200 * 3600 * NS_PER_S, "after"))
    for _ in range(2):
        write_own(tmp_path / "labels", write(answer))


def test_a_page_with_any_title_is_replaced(tmp_path: Path) -> None:
    for _ in range(2):
        write_own(
            tmp_path / "page",
            render_page("index.html", ["table.js"], title="".join(HOSTILE), rows=[], note=""),
        )


@pytest.mark.parametrize(
    "text",
    [
        "by hand",
        "<!doctype html>\n<title>By hand</title>",
        "<html>",
        "WEBVTT\n\n00:01.000 --> 00:02.000\nBy hand 0.50\n",
        CUE + "2\n00:00:03,000 --> 00:00:04,000\nBy hand.\n\n",
        CUE + "2\n00:00:03,000 --> 00:00:04,000\nBy hand 0.50\nand more\n\n",
        CUE.replace("\n", "\r\n"),
        CUE + "\n",
        CUE[:-1],
    ],
)
def test_any_other_file_is_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file"
    path.write_text(text, newline="")
    with pytest.raises(FileExistsError, match="it exists, and tubelet did not write it"):
        write_own(path, "")
    assert path.read_bytes() == text.encode()


def _archive(comment: str) -> bytes:
    """Return an empty archive with a comment."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", b"array")
        archive.comment = comment.encode()
    return file.getvalue()


def _picture(**texts: str) -> bytes:
    """Return a PNG with texts."""
    file, info = BytesIO(), PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.new("RGB", (3, 2)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def _video(folder: Path, *options: str) -> bytes:
    """Return an mp4 of ffmpeg."""
    path = folder / "made.mp4"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=size=32x32:duration=0.2", *options, path]
    subprocess.run(command, check=True)
    return path.read_bytes()


def test_archives_pictures_and_videos_are_known_by_their_marks(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (
        _archive("written by tubelet"),
        _picture(Software="tubelet"),
        _video(tmp_path, "-metadata", "comment=written by tubelet"),
    ):
        path.write_bytes(content)
        check_replaceable(path)


def test_archives_pictures_and_videos_of_others_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (_archive(""), _picture(), _picture(Author="tubelet"), _video(tmp_path)):
        path.write_bytes(content)
        with pytest.raises(FileExistsError, match="tubelet did not write it"):
            check_replaceable(path)


def test_a_file_whose_writing_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(_picture(Software="tubelet"))
    before = path.read_bytes()

    def write_half() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_where_a_folder_must_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_replaceable(tmp_path / "file")  # nothing is in it
    check_replaceable(tmp_path / "new" / "folder" / "file")
    with pytest.raises(NotADirectoryError, match="file is a file, not a folder"):
        check_replaceable(tmp_path / "file" / "new" / "page.html")
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        check_replaceable(tmp_path)
    with pytest.raises(FileExistsError):
        check_replaceable(Path("/dev/null"))
