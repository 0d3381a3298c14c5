"""``tubelet classify --embeddings``: one file for all videos, whatever happens to some of them."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from tests.support.cli_process import TUBELET, tubelet
from tests.support.running_server import Served
from tests.support.sample_clip import panning_clip
from tubelet.service.cli.app import app
from tubelet.service.client import Client
from tubelet.service.types.embeddings import EmbeddingLevel
from tubelet.service.types.request import Options


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two videos, of 4 and 3 s, and a file that is no video."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "four.mp4").write_bytes(panning_clip(4.0))
    (tmp_path / "videos" / "three.mp4").write_bytes(panning_clip(3.0))
    (tmp_path / "videos" / "bad.mp4").write_text("not a video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def classify(served: Served, *arguments: str) -> Result:
    """Run the command in this process, which is faster than starting another."""
    return CliRunner().invoke(app, ["classify", *arguments, "--server", served.target])


def names() -> list[str]:
    return sorted(path.name for path in Path.cwd().iterdir())


def test_vectors_of_several_videos_are_in_one_file(served: Served, folder: Path) -> None:
    done = classify(served, "-r", "videos", "--json", "--embeddings", "new/out.npz", "--in-order")
    assert done.exit_code == 1  # for bad.mp4
    assert "5 embeddings of 2 videos are in new/out.npz" in done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 3
    assert all(answer["segments"] for answer in answers if "error" not in answer)
    with np.load("new/out.npz") as file:
        assert sorted(file["videos"]) == ["videos/four.mp4", "videos/three.mp4"]
        videos = file["videos"][file["video"]]
        with Client(served.target) as client:
            for video in ("videos/four.mp4", "videos/three.mp4"):
                wanted = client.classify(video, Options(embeddings=EmbeddingLevel.WINDOW)).embeddings
                assert wanted is not None
                np.testing.assert_allclose(file["vectors"][videos == video], wanted.vectors, atol=2e-2)
                np.testing.assert_array_equal(file["start_s"][videos == video], wanted.start_s)
    assert names() == ["new", "videos"]
    assert [path.name for path in Path("new").iterdir()] == ["out.npz"]


def test_only_vectors_print_no_labels(served: Served, folder: Path) -> None:
    how = ("--only-embeddings", "--embedding-level", "unit", "--embedding-dtype", "float16", "--normalise")
    done = classify(served, "videos/four.mp4", "--embeddings", "out.parquet", *how)
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert "8 embeddings of 1 video are in out.parquet" in done.stderr
    table = pyarrow.parquet.read_table("out.parquet")
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(8, -1)
    assert vectors.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1, atol=1e-3)
    assert table["start_s"].to_pylist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--embeddings", "out.csv"), "--embeddings out.csv must end with .npz or .parquet"),
        (("--embeddings", "there.npz"), "there.npz exists already; name another --embeddings"),
        (("--only-embeddings", "--normalise"), "--normalise and --only-embeddings needs --embeddings"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    served: Served, folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    Path("there.npz").write_text("mine")
    refused = classify(served, "videos/four.mp4", *arguments)
    assert refused.exit_code == 2
    assert says in " ".join(refused.output.replace("│", " ").split())
    assert Path("there.npz").read_text() == "mine"


def test_a_file_that_cannot_be_created_stops_before_the_work(served: Served, folder: Path) -> None:
    refused = classify(served, "videos/four.mp4", "--json", "--embeddings", "videos/bad.mp4/out.npz")
    assert refused.exit_code == 1
    assert "cannot write videos/bad.mp4/out.npz: " in refused.stderr
    assert json.loads(refused.stdout)["error"]["reason"] == "SYSTEM_ERROR"


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_full_disk_loses_no_answer(served: Served, folder: Path, suffix: str) -> None:
    """A limit of 1 KiB on the size of files imitates the full disk."""
    videos = ["videos/four.mp4", "videos/three.mp4"]
    command = [TUBELET, "classify", *videos, "--json", "--embeddings", f"out.{suffix}"]
    limited = ["bash", "-c", 'ulimit -f 1; exec "$0" "$@"', *command, "--server", served.target]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert f"cannot write out.{suffix}: " in done.stderr
    assert "File too large" in done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert names() == ["videos"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_videos_that_are_done(
    served: Served, folder: Path, number: signal.Signals, status: int
) -> None:
    """The second video never arrives: the command reads it from standard input."""
    command = [TUBELET, "classify", "videos/four.mp4", "-", "--json", "--embeddings", "out.npz"]
    with subprocess.Popen(
        [*command, "--server", served.target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["video"] == "videos/four.mp4"
        process.send_signal(number)
        assert process.wait(timeout=60) == status
        assert "3 embeddings of 1 video are in out.npz" in process.stderr.read()
    with np.load("out.npz") as file:
        assert file["videos"].tolist() == ["videos/four.mp4"]
    assert names() == ["out.npz", "videos"]


def test_vectors_of_an_earlier_run_are_said_to_be_missing(served: Served, folder: Path) -> None:
    one = ("videos/four.mp4", "--out", "out.jsonl")
    assert classify(served, *one).exit_code == 0
    done = classify(served, *one, "videos/three.mp4", "--embeddings", "out.npz")
    assert "1 video of an earlier run will have no vectors in out.npz" in done.stderr


def test_parquet_without_pyarrow_is_refused_with_its_extra(served: Served, folder: Path) -> None:
    hide = "import sys; sys.modules['pyarrow'] = None; from tubelet.service.cli.command import main; main()"
    arguments = ["classify", "videos/four.mp4", "--embeddings", "out.parquet", "--server", served.target]
    done = subprocess.run(
        [sys.executable, "-c", hide, *arguments], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1
    assert "out.parquet needs pyarrow: pip install 'tubelet[parquet]'" in done.stderr
    assert names() == ["videos"]


def test_without_a_server_the_vectors_are_the_same(served: Served, folder: Path) -> None:
    done = tubelet("classify", "videos/three.mp4", "--embeddings", "here.npz", "--only-embeddings")
    assert done.returncode == 0, done.stderr
    assert classify(served, "videos/three.mp4", "--embeddings", "there.npz").exit_code == 0
    with np.load("here.npz") as here, np.load("there.npz") as there:
        np.testing.assert_allclose(here["vectors"], there["vectors"], atol=2e-2)
