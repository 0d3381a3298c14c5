"""``tubelet batch --ray``: rows as without it, whatever dies; on a real cluster of two nodes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from tests.support.batches import committed_rows, doubled, named_parts, part_files
from tests.support.cli_process import TUBELET
from tests.support.ray_cluster import ENVIRONMENT, RayCluster, ray_cluster, skip_without_ray
from tests.support.sample_clip import panning_clip
from tubelet.service.batch.ray.end_actors import end_actors
from tubelet.service.cli.app import app

_CLIPS = 120
_KILLS = 8
_NOT_A_VIDEO = "not-a-video.mp4"


def test_without_ray_a_sentence_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    (tmp_path / "clip.mp4").write_bytes(b"")
    for address in (["--ray"], ["--ray", "10.0.0.1:6379"], ["--ray=10.0.0.1:6379", "--actors", "2"]):
        command = ["batch", str(tmp_path), "--out", str(tmp_path / "rows"), *address, "--json"]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert json.loads(result.stdout)["error"] == {
            "code": "FAILED_PRECONDITION",
            "reason": "MISSING_EXTRA",
            "message": "--ray needs a library: pip install 'tubelet[ray]'",
        }
    assert not (tmp_path / "rows").exists()


def test_the_options_of_ray_need_ray(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["batch", str(tmp_path), "--out", "rows", "--actors", "2"])
    assert result.exit_code == 2
    assert "--actors and --actor-cpus need --ray" in result.stderr


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    skip_without_ray()
    with ray_cluster(1, 1) as started:
        yield started


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips, each a file of its own, and a file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    pictures = [panning_clip(1.0 + 0.5 * number) for number in range(4)]
    for number in range(_CLIPS):
        name = f"{number}".encode()
        box = (8 + len(name)).to_bytes(4, "big") + b"free" + name  # ignored by players
        (folder / f"{number}.mp4").write_bytes(pictures[number % len(pictures)] + box)
    (folder / _NOT_A_VIDEO).write_text("no video")
    return folder


@pytest.fixture(scope="module")
def here(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The rows of a batch in one process, by the ids of their videos."""
    dest = tmp_path_factory.mktemp("here") / "rows"
    result = CliRunner().invoke(app, ["batch", str(videos), "--out", str(dest)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return rows_of(dest)


def rows_of(dest: Path) -> dict[str, dict[str, Any]]:
    """Return the committed rows of videos by their ids; no id has two, and no part is left over."""
    rows = committed_rows(dest, "videos")
    assert not doubled(rows)
    assert part_files(dest) == named_parts(dest)
    return {row["id"]: row for row in rows}


def start(
    cluster: RayCluster, videos: Path, dest: Path, *options: str, **variables: str
) -> subprocess.Popen[str]:
    """Start the command on a cluster."""
    command = [
        TUBELET,
        "batch",
        str(videos),
        "--out",
        str(dest),
        "--ray",
        cluster.address,
        "--json",
        *options,
    ]
    environment = os.environ | ENVIRONMENT | variables
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def assert_same(dest: Path, here: dict[str, dict[str, Any]]) -> None:
    """Check that the rows in ``dest`` are those of a batch in one process."""
    rows = rows_of(dest)
    assert rows.keys() == here.keys()
    for name, row in rows.items():
        wanted = here[name]
        assert row["reason"] == wanted["reason"]
        assert row["labels"][:1] == wanted["labels"][:1]
        scores = dict(zip(row["labels"], row["scores"], strict=True))
        for label, score in zip(wanted["labels"], wanted["scores"], strict=True):
            assert scores[label] == pytest.approx(score, abs=0.02)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_is_killed_every_video_has_one_row_as_in_one_process(
    cluster: RayCluster, videos: Path, here: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """A random actor is killed as a part appears, mostly by SIGKILL; SIGTERM lets it commit what is done."""
    random.seed(5)
    dest = tmp_path / "rows"
    run = start(cluster, videos, dest, "--jobs", "4", "--commit-every", "1")
    kills, before = 0, part_files(dest)
    while run.poll() is None:
        time.sleep(0.02)
        if kills == _KILLS or part_files(dest) <= before or not (actors := cluster.actors()):
            continue
        chosen = random.choice(actors)
        if kills % 4 == 3:
            end_actors([chosen])
        else:
            with suppress(psutil.NoSuchProcess):
                chosen.kill()
        kills, before = kills + 1, part_files(dest)
    out, err = run.communicate()
    assert run.returncode == 0, err
    said = json.loads(out)
    assert (said["classified"], said["failures"]) == (_CLIPS, {"NOT_A_VIDEO": 1})
    assert said["committed"] == _CLIPS + 1
    assert said["lost_actors"] >= 3
    assert_same(tmp_path / "rows", here)
    assert (tmp_path / "rows" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_that_is_ended_or_killed_is_continued(
    cluster: RayCluster, videos: Path, here: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    dest = tmp_path / "rows"
    for number in (signal.SIGTERM, signal.SIGKILL):
        run = start(cluster, videos, dest, "--resume", "--jobs", "4", "--commit-every", "1")
        before = len(committed_rows(dest, "videos"))
        while run.poll() is None and len(committed_rows(dest, "videos")) <= before:
            time.sleep(0.2)
        run.send_signal(number)
        out, err = run.communicate()
        if number == signal.SIGTERM:
            assert run.returncode == 128 + signal.SIGTERM, err
            said = json.loads(out)
            assert said["interrupted"]
            assert said["classified"] == said["committed"] == len(rows_of(dest))
    run = start(cluster, videos, dest, "--resume")
    _, err = run.communicate()
    assert run.returncode == 0, err
    assert "resumed: " in err
    assert_same(dest, here)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_actor_that_cannot_start_says_why_once(cluster: RayCluster, videos: Path, tmp_path: Path) -> None:
    run = start(cluster, videos, tmp_path / "rows", TUBELET_ENGINE__DEVICE="cuda:7")
    out, err = run.communicate()
    assert run.returncode == 1
    assert err.count("cuda:7") == 1
    assert "INVALID_CONFIGURATION" in json.loads(out.splitlines()[-1])["error"]["reason"]
    assert not committed_rows(tmp_path / "rows", "videos")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cluster_that_is_not_there_is_a_sentence(videos: Path, tmp_path: Path) -> None:
    skip_without_ray()
    nowhere = RayCluster("127.0.0.1:1", None)  # pyright: ignore[reportArgumentType]
    run = start(nowhere, videos, tmp_path / "rows")
    out, _ = run.communicate()
    assert run.returncode == 1
    assert json.loads(out.splitlines()[-1])["error"]["reason"] == "CLUSTER_UNREACHABLE"
