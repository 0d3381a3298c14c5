"""``tubelet train`` on rendered clips: a model that serves, and a sentence for what cannot be trained."""

import json
import math
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from typer.testing import CliRunner, Result

from tests.cli.train.conftest import FRAMES, SCENES
from tests.support.train_fields import documented
from tubelet.models.errors import CannotTrain
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.spec import Sampling
from tubelet.service.cli.app import app
from tubelet.service.cli.train.disk_space import full_disk_said, require_space
from tubelet.service.cli.train.levels.run_folder import name_lock
from tubelet.service.cli.train.new_model import Request, new_spec, store_model
from tubelet.service.cli.train.prepare import with_window


def train(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def report(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_a_trained_model_classifies_clips(clips: Path, store: Path, tmp_path: Path) -> None:
    done = train(clips, "--name", "moves", "--json")
    said = report(done)
    assert "camera-motion, which knows motion in 48 x 48 pixels and no objects" in done.stderr
    assert set(said) == documented("object", "models", "probes")
    assert set(said["figures"]) == documented("figures", "one label a clip")
    assert said["labels"] == {"pans": SCENES, "stands": SCENES}
    assert said["scenes"] >= SCENES
    assert said["figures"]["accuracy"] >= 0.9
    low, high = said["figures"]["interval"]
    assert low < said["figures"]["accuracy"] <= high
    for error in ("ece", "ece_before", "window_ece", "window_ece_before"):
        low, high = said["figures"][f"{error}_interval"]
        assert 0 <= low <= high <= 1
    assert said["window_s"] == pytest.approx(FRAMES / 10, abs=0.05)

    entry = ModelStore(store).find("moves")
    assert entry.spec.labels == ("pans", "stands")
    assert entry.spec.provenance is not None
    assert entry.spec.provenance.source == "tubelet train, probe on camera-motion 1.2.0"
    assert "Temperature: " in (entry.folder / "CARD.md").read_text()
    errors = said["figures"]
    before = f"{errors['window_ece_before']:.3f} ("
    assert f"of windows: {errors['window_ece']:.3f} (" in (entry.folder / "CARD.md").read_text()
    assert f"before the temperature {before}" in (entry.folder / "CARD.md").read_text()
    assert before in (entry.folder / "report.html").read_text()
    assert "It sees 48x48 pixels, and 16 frames of a window" in (entry.folder / "CARD.md").read_text()
    assert set(said["costs"]) == {"checks", "embedding", "training"}
    for cost in said["costs"].values():
        assert cost["processor_s"] > cost["workers_s"] >= 0
    assert said["costs"]["checks"]["workers_s"] > 0, "clips are decoded in workers"
    assert said["clip_processor_s"] > 0
    assert "- processor time: checks " in (entry.folder / "CARD.md").read_text()
    assert said["page"] == str(entry.folder / "report.html")
    assert "Accuracy on unknown scenes" in (entry.folder / "report.html").read_text()
    kept = [json.loads(line) for line in (entry.folder / "clips.jsonl").read_text().splitlines()]
    assert {(each["video"], each["label"], each["split"]) for each in kept} == {
        (f"{label}/{scene}.mp4", label, "train") for label in ("pans", "stands") for scene in range(SCENES)
    }
    assert kept[0]["blake3"] == blake3((clips / kept[0]["video"]).read_bytes()).hexdigest()
    right = sum(each["labels"][0]["label"] == each["label"] for each in kept)
    assert right / len(kept) == said["figures"]["accuracy"]
    for label in ("pans", "stands"):
        answer = CliRunner().invoke(
            app, ["classify", str(clips / label / "0.mp4"), "--model", "moves", "--json"]
        )
        assert json.loads(answer.stdout)["labels"][0]["label"] == label

    # The name is taken now; with --replace, embeddings come from the cache.
    taken = train(clips, "--name", "moves")
    assert taken.exit_code == 1
    assert "moves 1 is already in the store: choose another version, or give --replace" in taken.stderr
    again = train(clips, "--name", "moves", "--replace")
    assert again.exit_code == 0
    assert "tubelet classify clip.mp4 --model moves" in again.stdout
    assert "processor time: checks " in again.stdout


def test_parts_of_one_file_a_test_split_and_bad_videos(clips: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("not a video")
    lines = ["path,label,start,end,group,split"]
    for scene in range(SCENES):
        split = "test" if scene == 0 else "train"
        for label in ("pans", "stands"):
            lines += [f"{clips}/{label}/{scene}.mp4,{label},0.1,1.1,town {scene},{split}"]
    lines += [f"{tmp_path}/bad.mp4,pans,,,elsewhere,", f"{clips}/pans/1.mp4,pans,9,10,town 1,"]
    lines += [f"{clips}/pans/2.mp4,pans,1.1,3,town 2,", f"{clips}/pans/3.mp4,pans,0,1e-12,town 3,"]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    done = train(tmp_path / "clips.csv", "--name", "parts", "--json")
    said = report(done)
    notes = done.stderr.index("note: label 'pans' is rare")
    assert notes < done.stderr.index("embedding with"), "what stands out is said before the long part"
    assert said["labels"] == {"pans": SCENES, "stands": SCENES}
    assert said["scenes"] == SCENES
    assert said["figures"]["clips"] == 2 * (SCENES - 1)
    assert said["test"]["clips"] == 2
    assert len(said["left_out"]) == 4
    assert any("shorter than a nanosecond" in reason for reason in said["left_out"].values())
    assert any("before the part ends at 3 s" in reason for reason in said["left_out"].values())
    assert any("before the part starts at 9 s" in reason for reason in said["left_out"].values())

    # The same list is evaluated: its parts, and only those that training did not see.
    evaluate = ["evaluate", str(tmp_path / "clips.csv"), "--model", "parts", "--out", str(tmp_path / "out")]
    unseen = CliRunner().invoke(app, [*evaluate, "--only", "unseen", "--json"])
    found = report(unseen)
    assert (found["videos"], found["only"], found["seen_in_training"]) == (3, "unseen", 0)
    assert len(found["skipped"]) == 3
    cost = found["cost_per_video"]
    assert cost["processor_s"] > cost["workers_s"] >= 0, "three such short parts may take less than a tick"
    trained = (Path(said["folder"]) / "clips.jsonl").read_text().splitlines()
    kept = [each for each in map(json.loads, trained) if each["split"] == "test"]
    answers = {each["video"]: each["labels"][0] for each in kept}
    results = (tmp_path / "out" / "results.jsonl").read_text().splitlines()[1:]
    again = {each["video"]: each["labels"][0] for each in map(json.loads, results)}
    assert again.keys() > answers.keys()
    for name, answer in answers.items():
        assert again[name]["label"] == answer["label"]
        assert again[name]["score"] == pytest.approx(answer["score"], abs=0.02)
    everything = CliRunner().invoke(app, [*evaluate[:-1], str(tmp_path / "all"), "--json"])
    assert report(everything)["seen_in_training"] == 2 * (SCENES - 1)
    assert "8 of 14 clips were in the training of parts: the figures flatter it" in everything.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--name", "camera-motion"), 1, "camera-motion is the name of an embedded model"),
        (("--name", "a/b"), 1, "a model's name and version are letters, digits"),
        (("--name", "m", "--from", "nothing"), 1, "no model 'nothing' in the store"),
        (
            ("--name", "m", "--from", "camera-motion-stack", "--level", "probe"),
            1,
            "a probe needs an image model",
        ),
        (
            ("--name", "m", "--window", "99"),
            1,
            r"--window must be 1 to 4 s with the base camera-motion; found 99",
        ),
    ],
)
def test_what_cannot_be_trained_is_said(
    clips: Path, store: Path, arguments: tuple[str, ...], status: int, says: str
) -> None:
    done = train(clips, *arguments)
    assert done.exit_code == status
    assert says in done.stderr
    assert not store.exists()


def test_data_that_no_model_can_be_trained_on(clips: Path, store: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    shutil.copytree(clips / "pans", one / "pans")
    done = train(one, "--name", "m", "--from", "camera-motion")
    assert (done.exit_code, done.stderr) == (
        2,
        "all clips have the label 'pans': at least 2 labels are needed\n",
    )
    for label in ("a", "b"):
        (one / label).mkdir()
        (one / label / "bad.mp4").write_text(label)
    shutil.rmtree(one / "pans")
    done = train(one, "--name", "m", "--from", "camera-motion")
    assert done.exit_code == 2
    assert "none of the 2 clips can be decoded; a/bad.mp4: " in done.stderr
    same = tmp_path / "same"
    for label in ("a", "b"):
        (same / label).mkdir(parents=True)
        for number in range(3):
            shutil.copy(clips / "stands" / "1.mp4", same / label / f"{number}.mp4")
    done = train(same, "--name", "m", "--from", "camera-motion", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "the clips show 1 scene; at least 3 are needed" in done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "nothing is trained yet" in page
    assert "have the same content, but the labels &#39;a&#39; and &#39;b&#39;" in page


def test_a_page_replaces_no_other_file(clips: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>of another program")
    done = train(clips, "--name", "m", "--out", tmp_path)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "report.html: it exists, and tubelet did not write it" in done.stderr


def test_a_store_that_cannot_be_written(clips: Path, store: Path) -> None:
    store.write_text("no folder")
    done = train(clips, "--name", "m", "--from", "camera-motion")
    assert (done.exit_code, done.stderr) == (
        1,
        f"{store} is no folder that can be written; see models.store\n",
    )


def test_weights_that_are_not_finite_are_no_model(tmp_path: Path) -> None:
    entry = ModelStore(ZOO).find("camera-motion")
    model = entry.load()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(CannotTrain, match="m/1 cannot be written: "):
        store_model(tmp_path / "m" / "1", entry.spec, entry.dims, model, "card", {})
    assert list(tmp_path.iterdir()) == []


def test_data_whose_name_is_no_text_is_named_in_the_specification(tmp_path: Path) -> None:
    base = ModelStore(ZOO).find("camera-motion")
    data = tmp_path / os.fsdecode(b"caf\xe9")
    request = Request(data, "m", "1", None, None, replace=False, level="probe")
    spec = new_spec(request, base, ("a", "b"), base.spec.sampling, base.dims)
    assert spec.description.startswith("2 labels of caf\\xe9, ")


def test_versions_are_trained_beside_each_other(tmp_path: Path, store: Path) -> None:
    one, other = (Request(tmp_path, "m", version, None, None, replace=False) for version in ("1.0", "1.1"))
    says = r"m 1\.0 is being trained by another process"
    first, second = name_lock(one, store / "m" / "1.0"), name_lock(other, store / "m" / "1.1")
    with first, second, pytest.raises(CannotTrain, match=says), name_lock(one, store / "m" / "1.0"):
        pass


@pytest.mark.parametrize(("wanted_s", "window_s"), [(10.0, 64 / 15), (0.1, 8 / 15), (2.00049, 2.0)])
def test_windows_stay_within_the_limits_of_the_base(wanted_s: float, window_s: float) -> None:
    """Limits of torchvision's video models are no whole milliseconds."""
    was = Sampling(16, 1, window_s=16 / 15, stride_s=1, min_window_s=8 / 15, max_window_s=64 / 15)
    assert with_window(was, 1, wanted_s).window_s == window_s


def test_a_disk_that_is_nearly_full_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    require_space(tmp_path / "store" / "m", free // 2, "the model", "models.store")
    with pytest.raises(
        CannotTrain, match=r"has \d+\.\d MiB free, and the model may need \d+\.\d MiB: free some"
    ):
        require_space(tmp_path / "store" / "m", 4 * free, "the model", "models.store")


def test_a_disk_that_gets_full_in_training_is_said(tmp_path: Path) -> None:
    request = Request(tmp_path, "m", "1", None, None, replace=False, level="temporal", out=tmp_path / "out")
    says = f"no space is left on the disk of {tmp_path}/out or of {tmp_path}/m: free some, then .* --resume"
    with pytest.raises(CannotTrain, match=says), full_disk_said(request, tmp_path / "m"):
        Path("/dev/full").write_text("x")
    with pytest.raises(FileNotFoundError), full_disk_said(request, tmp_path / "m"):
        (tmp_path / "none" / "x").write_text("x")


def test_a_full_disk_leaves_nothing_of_a_model(tmp_path: Path) -> None:
    entry = ModelStore(ZOO).find("camera-motion")
    model, folder = entry.load(), tmp_path / "store" / "m" / "1"
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CannotTrain, match=r"store/m/1 cannot be written: .*; see models.store"):
            store_model(folder, entry.spec, entry.dims, model, "card", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not folder.parent.exists()


def test_embeddings_that_cannot_be_kept_stop_nothing(
    clips: Path,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = train(clips, "--name", "m", "--from", "camera-motion")
    assert done.exit_code == 0, done.stderr
    assert caplog.text.count("embeddings are not kept") == 1


def test_a_label_of_one_clip_is_trained_without_a_figure(clips: Path, store: Path, tmp_path: Path) -> None:
    lines = [f"{clips}/{label}/{scene}.mp4,{label}" for label in ("pans", "stands") for scene in range(4)]
    (tmp_path / "clips.csv").write_text("\n".join([*lines, f"{clips}/pans/4.mp4,once"]))
    done = train(tmp_path / "clips.csv", "--name", "once", "--from", "camera-motion", "--json")
    said = report(done)
    assert "label 'once' has 1 clip, all of one scene: it is trained, but no figure can tell" in done.stderr
    assert said["labels"] == {"once": 1, "pans": 4, "stands": 4}
    assert said["figures"]["clips"] == 8
    assert said["figures"]["recalls"]["once"] is None
    assert said["temperature"] < 5
    assert ModelStore(store).find("once").spec.labels == ("once", "pans", "stands")


def test_labels_of_one_scene_each_and_paths_of_no_file(clips: Path, store: Path, tmp_path: Path) -> None:
    lines = [f"{clips}/pans/{number}.mp4,{number}" for number in range(3)]
    long = f"{'x' * 300}.mp4"
    (tmp_path / "clips.csv").write_text("\n".join([*lines, "gone.mp4,0", f"{clips}/pans,0", f"{long},0"]))
    done = train(tmp_path / "clips.csv", "--name", "m", "--from", "camera-motion")
    assert done.exit_code == 2
    assert f"left out {long}: it cannot be read: File name too long" in done.stderr
    assert "left out gone.mp4: there is no such file; paths are relative to the folder of" in done.stderr
    assert "it is a folder: one file is wanted" in done.stderr
    assert "the clips of each label show one scene" in done.stderr
    assert not store.exists()
