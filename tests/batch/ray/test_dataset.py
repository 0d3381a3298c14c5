"""``tubelet.classify_dataset`` on a real Ray cluster, as the documentation shows it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tubelet
from tests.support.ray_cluster import ENVIRONMENT, skip_without_ray
from tests.support.sample_clip import panning_clip


def documented_example() -> str:
    """The example of ``deploy/README.md``."""
    (example,) = re.findall(r"```python\n(import ray\n.*?)```", Path("deploy/README.md").read_text(), re.S)
    return example


def test_without_ray_the_name_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "tubelet.service.batch.ray.dataset", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tubelet\[ray\]'"):
        _ = tubelet.classify_dataset


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_documented_example_classifies_a_dataset(tmp_path: Path) -> None:
    skip_without_ray()
    clips = [tmp_path / f"{number}.mp4" for number in range(40)]
    for number, clip in enumerate(clips):
        clip.write_bytes(panning_clip(2.0) + (8).to_bytes(4, "big") + b"free" * (number % 2))
    (tmp_path / "broken.mp4").write_text("no video")
    videos = [*clips, tmp_path / "broken.mp4", tmp_path / "nothing.mp4"]
    lines = [f"{video},{number}" for number, video in enumerate(videos)]
    (tmp_path / "videos.csv").write_text("\n".join(["uri,shot", *lines]))
    found = rows_of(documented_example(), tmp_path)
    assert sorted(row["shot"] for row in found) == list(range(42))
    by_shot = {row["shot"]: row for row in found}
    assert [by_shot[shot]["reason"] for shot in (40, 41)] == ["NOT_A_VIDEO", "URI_NOT_FOUND"]
    wanted = tubelet.classify(str(clips[0]))
    for shot in range(40):
        row = by_shot[shot]
        assert (row["code"], row["labels"][0]) == ("OK", wanted.labels[0].name)
        assert row["scores"][0] == pytest.approx(wanted.labels[0].score, abs=0.02)
        times = [(each["start_s"], each["end_s"]) for each in row["segments"]]
        assert times == [(each.start_s, each.end_s) for each in wanted.segments]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_column_of_bytes_is_classified_and_left_out(tmp_path: Path) -> None:
    skip_without_ray()
    (tmp_path / "clip.mp4").write_bytes(panning_clip(2.0))
    example = """
import ray
from tubelet import classify_dataset
dataset = ray.data.read_binary_files("clip.mp4", include_paths=True)
classified = classify_dataset(dataset, "bytes", actors=1, top_k=2)
"""
    (row,) = rows_of(example, tmp_path)
    assert (row["code"], len(row["labels"]), "bytes" in row) == ("OK", 2, False)
    assert row["path"].endswith("clip.mp4")


def rows_of(example: str, folder: Path) -> list[dict[str, Any]]:
    """Run an example in ``folder``, on a cluster of its own; return the rows of its ``classified``."""
    limits = "num_cpus=2, object_store_memory=100_000_000, include_dashboard=False"
    start = f"import json, ray\nray.init('local', {limits})\n"
    code = f"{start}{example}\nprint()\nprint(json.dumps(classified.take_all()))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])
