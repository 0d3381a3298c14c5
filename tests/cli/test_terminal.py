"""``tubelet classify`` in a terminal: the rendered screen, and redirected output."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import av
import psutil
import pytest

from tests.support.cli_process import TUBELET
from tests.support.running_server import Served
from tests.support.sample_clip import panning_clip
from tests.support.terminal import CTRL_C, Terminal, terminal
from tubelet.service.server.app import SAMPLE_CLIP

BAR = "━"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of two seconds in which the camera pans."""
    path = tmp_path_factory.mktemp("clip") / "pan.mp4"
    path.write_bytes(panning_clip(2.0))
    return path


@pytest.fixture(scope="module")
def stream() -> bytes:
    """The sample clip in a container that can be decoded while it arrives."""
    buffer = BytesIO()
    with av.open(str(SAMPLE_CLIP)) as source, av.open(buffer, "w", format="matroska") as target:
        output = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = output
                target.mux(packet)
    return buffer.getvalue()


@contextmanager
def reading(fifo: Path, *arguments: str, columns: int = 80) -> Iterator[tuple[Terminal, int]]:
    """Run ``classify`` in a terminal on a pipe; yield the terminal and the pipe's write end."""
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)
    command = ("sh", "-c", f'exec "$0" "$@" < {fifo}', TUBELET, "classify")
    try:
        with terminal(*arguments, command=command, columns=columns) as shown:
            yield shown, end
    finally:
        os.close(end)


def blocks(shown: Terminal) -> list[str]:
    """Return the names of the answers on the screen, from top to bottom."""
    return [line.split(": ")[0] for line in shown.lines if " fps, " in line or ", h264" in line]


def test_json_is_printed_in_a_terminal(served: Served, clip: Path) -> None:
    command = ("classify", str(clip), "missing.mp4", "--json", "--in-order", "--server", served.target)
    with terminal(*command, columns=2000) as shown:
        assert shown.wait() == 1
    answer, failed = (json.loads(line) for line in shown.lines if line.startswith("{"))
    assert answer["labels"][0]["label"] == "pan_right"
    assert failed["error"]["reason"] == "FILE_NOT_READABLE"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_redirected_output_is_complete(
    served: Served, clip: Path, tmp_path: Path, form: tuple[str, ...]
) -> None:
    command = ("classify", str(clip), "missing.mp4", "--server", served.target, *form)
    with (tmp_path / "out").open("wb") as out, terminal(*command, stdout=out) as shown:
        assert shown.wait() == 1
    text = (tmp_path / "out").read_text()
    assert "pan_right" in text
    assert "\x1b" not in text
    assert "█" not in text
    assert ("missing.mp4" in text) == bool(form)
    failure, summary = shown.lines
    assert failure == "missing.mp4: No such file or directory (INVALID_ARGUMENT, FILE_NOT_READABLE)"
    assert summary.startswith("1 classified, 1 failed, in 0:")


def test_piped_answers_show_no_progress_on_the_terminal(served: Served, clip: Path) -> None:
    piped = ("sh", "-c", '"$0" "$@" | cut -c 1-60', TUBELET)
    names = (clip.name, "missing.mp4", *([clip.name] * 5))
    command = ("classify", *names, "--json", "--server", served.target)
    with terminal(*command, command=piped, folder=clip.parent) as shown:
        assert shown.wait() == 0
    assert sum(line.startswith('{"video": "pan.mp4", "model": ') for line in shown.lines) == 6
    assert sum(line.startswith('{"video": "missing.mp4", "error": ') for line in shown.lines) == 1
    assert "6 classified, 1 failed, in 0:" in shown.text
    assert BAR.encode() not in shown.raw


@pytest.mark.parametrize("columns", [80, 200])
def test_terminal_shows_progress_and_answer_of_one_file(served: Served, clip: Path, columns: int) -> None:
    with terminal(
        "classify", clip.name, "--server", served.target, columns=columns, folder=clip.parent
    ) as shown:
        assert shown.wait() == 0
    first, *_ = shown.lines
    assert first.startswith("pan.mp4: 0:00:02.0, 320x240, 25 fps, 50 frames, h264 in mov,mp4")
    merged, whole = shown.lines[-2:]
    assert merged.startswith("  0:00:00.0 - 0:00:02.0  pan_right ")
    assert merged.endswith(" in 2 segments")
    assert whole.startswith("  whole video            pan_right ")
    assert merged.index("█") == whole.index("█")
    assert b"of 0:00:02.0" in shown.raw  # a bar was there,
    assert BAR not in shown.text  # and is gone


@pytest.mark.parametrize("columns", [80, 200])
def test_terminal_shows_progress_and_answers_of_140_files(
    served: Served, tmp_path: Path, columns: int
) -> None:
    names = [f"{number:03}.mp4" for number in range(140)]
    short = panning_clip(0.4, (160, 120))
    for name in names:
        (tmp_path / name).write_bytes(short)
    names[70] = "missing.mp4"
    command = ("classify", *names, "--server", served.target)
    with terminal(*command, columns=columns, folder=tmp_path) as shown:
        assert shown.wait() == 1
    assert sorted(blocks(shown)) == sorted(set(names) - {"missing.mp4"})
    assert sum("whole video" in line for line in shown.lines) == 139
    assert sum("missing.mp4: No such file" in line for line in shown.lines) == 1
    assert shown.lines[-1].startswith("139 classified, 1 failed, in ")
    assert BAR not in shown.text
    assert " of 140 · ".encode() in shown.raw
    assert " · 1 failed · ".encode() in shown.raw


@pytest.mark.parametrize("columns", [80, 200])
def test_terminal_shows_long_and_odd_names_safely(
    served: Served, clip: Path, tmp_path: Path, columns: int
) -> None:
    long = "n" * 196 + ".mp4"
    odd = [b"caf\xe9.mp4", b"a\nb.mp4", b"\x1b[2Jclear.mp4", "映画.mp4".encode()]
    for name in (long.encode(), *odd):
        shutil.copy(clip, tmp_path.joinpath(os.fsdecode(name)))
    command = ("classify", long, *odd, "--server", served.target)
    with terminal(*command, columns=columns, folder=tmp_path) as shown:
        assert shown.wait() == 0
    unwrapped = "".join(line.ljust(columns) for line in shown.lines)
    for name in (long, r"caf\xe9.mp4", r"a\nb.mp4", r"\x1b[2Jclear.mp4"):
        assert f"{name}: 0:00:02.0, " in unwrapped
    assert "映 画" in unwrapped or "映画" in unwrapped
    assert sum("whole video" in line for line in shown.lines) == 5
    assert BAR not in shown.text


def test_name_that_is_not_utf8_is_valid_json(served: Served, clip: Path, tmp_path: Path) -> None:
    shutil.copy(clip, tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    command = (
        TUBELET,
        "classify",
        b"caf\xe9.mp4",
        b"no\xe9.mp4",
        "--json",
        "--in-order",
        "--server",
        served.target,
    )
    done = subprocess.run(command, capture_output=True, timeout=100, cwd=tmp_path)
    answer, failed = (json.loads(line) for line in done.stdout.decode("utf-8", "strict").splitlines())
    assert (answer["video"], failed["video"]) == (r"caf\xe9.mp4", r"no\xe9.mp4")
    for each in (answer, failed):
        json.dumps(each, ensure_ascii=False).encode("utf-8", "strict")


def test_a_page_whose_name_is_not_utf8_is_written_and_written_again(
    served: Served, clip: Path, tmp_path: Path
) -> None:
    page = tmp_path / os.fsdecode(b"caf\xe9.html")
    command = [TUBELET, "classify", str(clip), "--html", str(page), "--no-video", "--server", served.target]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, timeout=100)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
        assert page.is_file()


def test_a_path_that_is_not_utf8_is_printed_escaped(tmp_path: Path) -> None:
    store = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    environment = os.environ | {"TUBELET_MODELS__STORE": store}
    done = subprocess.run([TUBELET, "config"], env=environment, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert rb"/caf\udce9" in done.stdout


def test_same_video_twice_is_classified_twice(served: Served, clip: Path) -> None:
    with terminal("classify", str(clip), str(clip), "--server", served.target, columns=200) as shown:
        assert shown.wait() == 0
    assert blocks(shown) == [str(clip)] * 2
    assert sum("whole video" in line for line in shown.lines) == 2


@pytest.mark.parametrize(
    ("environment", "colours", "bars"),
    [({}, True, True), ({"NO_COLOR": "1"}, False, True), ({"TERM": "dumb"}, False, False)],
)
def test_colours_and_bars_depend_on_the_terminal(
    served: Served, clip: Path, environment: dict[str, str], colours: bool, bars: bool
) -> None:
    with terminal("classify", str(clip), "--server", served.target, environment=environment) as shown:
        assert shown.wait() == 0
    seen = {cell.fg for row in shown.screen.buffer.values() for cell in row.values()}
    assert (seen - {"default"} != set()) == colours
    assert ("█" in shown.text) == bars
    assert (b"\x1b" in shown.raw) == bars


@pytest.mark.parametrize("columns", [80, 200])
def test_lines_appear_while_a_video_is_decoded(
    served: Served, stream: bytes, tmp_path: Path, columns: int
) -> None:
    command = ("-", "--server", served.target)
    with reading(tmp_path / "fifo", *command, columns=columns) as (shown, end):
        os.write(end, stream[: len(stream) // 2])
        shown.wait_for("  0:00:00.0 - 0:00:02.0  static ")  # which is known once the pan begins
        shown.wait_for(BAR)
        shown.type(CTRL_C)
        assert shown.wait() == 130
    assert shown.lines[-1].startswith("  interrupted after 0:00:0")
    assert blocks(shown) == ["-"]
    assert BAR not in shown.text
    assert "Traceback" not in shown.text


def test_ctrl_c_leaves_no_process_behind(stream: bytes, tmp_path: Path) -> None:
    with reading(tmp_path / "fifo", "-", "--json", "--stream", columns=2000) as (shown, end):
        os.write(end, stream[: len(stream) // 2])
        shown.wait_for('"event": "segment"')
        children = psutil.Process(shown.process.pid).children(recursive=True)
        assert children
        shown.type(CTRL_C)
        assert shown.wait() == 130
    assert not [child for child in children if child.is_running()]
    *events, last = (json.loads(line) for line in shown.lines if line.startswith("{"))
    assert events[0]["event"] == "metadata"
    assert {event["video"] for event in events} == {"-"}
    assert last["interrupted"] is True
    assert last["segments"] == [
        {key: value for key, value in event.items() if key not in ("video", "event")}
        for event in events
        if event["event"] == "segment"
    ]


def test_interrupted_evaluation_says_how_to_continue(served: Served, clip: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endless.mp4")
    held = os.open(tmp_path / "endless.mp4", os.O_RDWR)
    (tmp_path / "data.csv").write_text(f"{clip},pan_right\nendless.mp4,pan_right\n")
    command = ("evaluate", "data.csv", "--out", "out", "--server", served.target)
    with terminal(*command, columns=120, folder=tmp_path) as shown:
        shown.wait_for("1 of 2")
        shown.type(CTRL_C)
        assert shown.wait() == 130
    os.close(held)
    said = "interrupted: 1 of 2 videos are done, in out; run the same command again to continue"
    assert shown.lines == [said]
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("in_order", [False, True])
def test_answers_come_as_completed_or_in_order(
    served: Served, clip: Path, stream: bytes, tmp_path: Path, in_order: bool
) -> None:
    order = ("--in-order",) if in_order else ()
    command = ("-", clip.name, "--server", served.target, *order)
    (tmp_path / clip.name).symlink_to(clip)
    with reading(tmp_path / "fifo", "-", str(clip), *command[2:], columns=200) as (shown, end):
        os.write(end, stream[: len(stream) // 2])
        shown.wait_for("1 of 2")
        os.write(end, stream[len(stream) // 2 :])
        _end_of_input(end)
        assert shown.wait() == 0
    assert blocks(shown) == (["-", str(clip)] if in_order else [str(clip), "-"])


def _end_of_input(end: int) -> None:
    """Replace the write end of the pipe by something that cannot be written."""
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), end)


@pytest.mark.parametrize("command", ["classify CLIP CLIP CLIP --server SERVER", "models list"])
def test_closed_pipe_is_no_error(served: Served, clip: Path, command: str) -> None:
    words = command.replace("CLIP", str(clip)).replace("SERVER", served.target)
    done = subprocess.run(
        f"{TUBELET} {words} | true", shell=True, capture_output=True, text=True, timeout=100
    )
    assert done.stderr == ""


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_full_disk_for_standard_output_is_one_sentence(
    served: Served, clip: Path, form: tuple[str, ...]
) -> None:
    command = [TUBELET, "classify", str(clip), "--server", served.target, *form]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=100)
    assert done.returncode == 1
    assert done.stderr == "cannot write standard output: No space left on device\n"
