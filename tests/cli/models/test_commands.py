"""``tubelet models import``, ``show``, ``list`` and ``verify``."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.support.checkpoints import LABELS, save
from tests.support.cli_process import tubelet
from tubelet.models.checkpoints.importer import default_name, read_source, store_model
from tubelet.models.checkpoints.inflate import inflate
from tubelet.models.errors import CannotImport
from tubelet.models.families.factorised import Factorised, FactorisedDims
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.runtime.precision import choose_dtype
from tubelet.service.cli.app import app
from tubelet.service.engine.model_loader import NoSuchDevice, choose_devices
from tubelet.service.server.app import SAMPLE_CLIP


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUBELET_MODELS__STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    save("videomae", tmp_path / "Their_Model v2")
    return tmp_path / "Their_Model v2"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return tubelet(*map(str, arguments))


def test_imported_model_classifies(store: Path, theirs: Path) -> None:
    done = run("models", "import", theirs, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["model"], report["version"], report["family"]) == ("their_model-v2", "1", "joint")
    assert report["labels"] == list(LABELS)
    assert Path(report["folder"]) == store / "their_model-v2" / "1"

    verified = run("models", "verify", "their_model-v2", "--json")
    assert verified.returncode == 0
    assert json.loads(verified.stdout)["same"]

    shown = json.loads(run("models", "show", "their_model-v2", "--json").stdout)
    assert shown["dims"]["pool"] == "mean"
    assert shown["parameters"] == sum(value.numel() for value in read_source(str(theirs)).state.values())

    listed = [json.loads(line) for line in run("models", "list", "--json").stdout.splitlines()]
    assert "their_model-v2" in [row["model"] for row in listed]

    sample = Path(str(SAMPLE_CLIP))
    answer = json.loads(run("classify", sample, "--model", "their_model-v2", "--json").stdout)
    assert answer["model"] == "their_model-v2"
    assert {label["label"] for label in answer["labels"]} <= set(LABELS)


def test_licence_and_description_are_stored(store: Path, theirs: Path) -> None:
    """The source is stored as given, not only its last part."""
    described = ("--licence", "CC-BY-NC-4.0", "--description", 'Ours: "fights"\nand none.')
    assert run("models", "import", theirs, "--name", "a", *described).returncode == 0
    shown = json.loads(run("models", "show", "a", "--json").stdout)
    assert (shown["licence"], shown["description"]) == ("CC-BY-NC-4.0", 'Ours: "fights"\nand none.')
    assert shown["source"] == str(theirs)
    assert "CC-BY-NC-4.0" in (store / "a" / "1" / "CARD.md").read_text()


def test_show_prints_cost_and_device() -> None:
    """By hand: 4 units of one tubelet, of 36 patches of 4 x 8 x 8 and a class token."""
    done = run("models", "show", "camera-motion", "--json")
    shown = json.loads(done.stdout)
    tokens, width, hidden = 37, 160, 480
    embed = 4 * 36 * (4 * 8 * 8 * 3) * width
    layers = tokens * (4 * width * width + 2 * width * hidden) + 2 * tokens * tokens * width
    assert shown["gflops_a_window"]["spatial"] == pytest.approx(2e-9 * (embed + 4 * 4 * layers), rel=0.2)
    assert shown["parameters"] == sum(
        each.numel() for each in ModelStore().find("camera-motion").load().parameters()
    )
    assert shown["weights_mib"]["fp32"] == pytest.approx(shown["parameters"] * 4 / 2**20)
    devices = choose_devices("auto")
    assert shown["device"] == ",".join(map(str, devices))
    assert shown["precision"] == str(choose_dtype("auto", *devices)).removeprefix("torch.")


def test_import_needs_replace_to_overwrite(store: Path, theirs: Path) -> None:
    assert run("models", "import", theirs, "--name", "a").returncode == 0
    before = (store / "a" / "1" / "weights.safetensors").read_bytes()
    again = run("models", "import", theirs, "--name", "a")
    assert again.returncode == 1
    assert "a 1 is already in the store" in again.stderr
    assert (store / "a" / "1" / "weights.safetensors").read_bytes() == before
    assert run("models", "import", theirs, "--name", "a", "--replace").returncode == 0
    assert run("models", "import", theirs, "--name", "a", "--version", "2").returncode == 0
    assert [spec.version for spec in ModelStore(store).specs()] == ["1", "2"]


def test_verify_finds_changed_logits(store: Path, theirs: Path) -> None:
    assert run("models", "import", theirs, "--name", "a").returncode == 0
    spec = store / "a" / "1" / "model.toml"
    text = spec.read_text()
    before = text.partition("logits = [")[2].partition(",")[0]
    spec.write_text(text.replace(before, str(float(before) + 0.1), 1))
    done = run("models", "verify", "a")
    assert done.returncode == 1
    assert "NOT the same" in done.stdout


def embedded(store: Path, version: str) -> Path:
    """Store a copy of the default model as another version of it."""
    folder = store / "camera-motion" / version
    shutil.copytree(ZOO / "camera-motion", folder)
    spec = folder / "model.toml"
    spec.write_text(re.sub(r'(?m)^version = ".*"', f'version = "{version}"', spec.read_text()))
    return folder


def test_list_marks_one_version_as_default(store: Path) -> None:
    embedded(store, "99")
    rows = [json.loads(line) for line in run("models", "list", "--json").stdout.splitlines()]
    assert [row["version"] for row in rows if row["default"]] == ["99"]
    assert [row["version"] for row in rows if row["loaded"]] == ["99"]


def test_version_is_pinned_by_configuration_and_commands(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration pins it for requests without a version, and so does each command."""
    embedded(store, "99")
    (ours,) = {spec.version for spec in ModelStore().specs() if spec.name == "camera-motion"}
    shown = run("models", "show", f"camera-motion:{ours}", "--json")
    assert json.loads(shown.stdout)["version"] == ours
    monkeypatch.setenv("TUBELET_MODELS__DEFAULT", f"camera-motion:{ours}")
    listed = [json.loads(line) for line in run("models", "list", "--json").stdout.splitlines()]
    loaded = {row["version"]: row["default"] for row in listed if row["loaded"]}
    assert loaded == {ours: True, "99": False}
    for model, version in (("camera-motion", ours), ("camera-motion:99", "99")):
        answer = run("classify", SAMPLE_CLIP, "--model", model, "--json")
        assert json.loads(answer.stdout)["version"] == version


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("camera-motion:1", "--version", "2"), "the version beside it is '2'"),
        (("camera-motion:",), "NAME or NAME:VERSION, not 'camera-motion:'"),
    ],
)
def test_invalid_model_reference_is_rejected(arguments: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(app, ["models", "show", *arguments], env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.replace("│", " ").split())  # whatever the width of the box


def test_list_reports_a_missing_default(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded(store, "99")
    monkeypatch.setenv("TUBELET_MODELS__DEFAULT", "camera-motion:3")
    done = run("models", "list")
    assert done.returncode == 0
    assert "models.default is 'camera-motion:3'; no server starts with it" in done.stderr
    assert "it has camera-motion:" in done.stderr
    assert "camera-motion:99" in done.stderr
    assert " default" not in done.stdout


def test_list_reports_a_missing_store(store: Path) -> None:
    done = run("models", "list", "--json")
    assert done.returncode == 0
    assert f"models.store is {str(store)!r}, but that folder does not exist" in done.stderr
    assert "camera-motion" in [json.loads(line)["model"] for line in done.stdout.splitlines()]
    store.mkdir()
    assert run("models", "list").stderr == ""


@pytest.mark.parametrize("file", ["weights.safetensors", "labels.txt"])
def test_verify_rejects_a_damaged_model(store: Path, file: str) -> None:
    """A model that is left out because it is damaged is not reported as missing."""
    (embedded(store, "99") / file).write_text("damaged")
    done = run("models", "verify", "camera-motion", "--version", "99", "--json")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert (error["code"], error["reason"]) == ("FAILED_PRECONDITION", "BROKEN_MODEL")
    assert f"{file} has sha256" in error["message"]
    assert error["message"] in done.stderr
    assert "no model" not in done.stderr


def test_invalid_source_is_one_sentence(store: Path, tmp_path: Path) -> None:
    done = run("models", "import", tmp_path / "nothing")
    assert done.returncode == 1
    assert "is neither a folder nor a file" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not store.exists()


@torch.inference_mode()
def test_import_inflates_an_image_model(tmp_path: Path) -> None:
    save("vit", tmp_path / "theirs")
    image = read_source(str(tmp_path / "theirs"))
    video = inflate(image, frames=8, tubelet=2)
    store_model(image, tmp_path / "store", "image", "1")
    store_model(video, tmp_path / "store", "video", "1")
    store = ModelStore(tmp_path / "store")
    seen, inflated = store.find("image").load(), store.find("video").load()
    assert isinstance(inflated, Factorised)
    assert store.find("video").dims == replace(FactorisedDims((2, 8, 8), 4, 48, 2, 4, 3, 96), norm_eps=1e-12)
    units = torch.randint(0, 256, (3, 2, 32, 32, 3), dtype=torch.uint8)
    torch.testing.assert_close(inflated.encode(units), seen.encode(units[:, 1:]), atol=1e-5, rtol=0)
    with pytest.raises(CannotImport, match="do not divide a window of 9"):
        inflate(image, frames=9, tubelet=2)
    with pytest.raises(CannotImport, match="only an image ViT"):
        inflate(video, frames=8, tubelet=2)


def test_import_warns_of_random_weights(store: Path, tmp_path: Path) -> None:
    save("vit", tmp_path / "theirs")
    command = ("models", "import", tmp_path / "theirs", "--json")
    whole = run(*command, "--name", "image")
    assert json.loads(whole.stdout)["untrained"] == []
    assert "warning" not in whole.stderr
    start = run(*command, "--name", "video", "--inflate-to", "factorised", "--frames", "8")
    assert start.returncode == 0, start.stderr
    assert json.loads(start.stdout)["untrained"] == ["temporal"]
    assert "the checkpoint has no weights for temporal: that part is random" in start.stderr


def test_old_name_of_a_flag_is_refused_with_its_new_one(store: Path) -> None:
    for arguments in (("--as", "factorised"), ("--as=factorised",)):
        done = run("models", "import", "torchvision:resnet50", *arguments)
        assert done.returncode == 2
        assert "--as was renamed to --inflate-to" in done.stderr


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf:MCG-NJU/videomae-base@main", "videomae-base"),
        ("torchvision:r3d_18:KINETICS400_V1", "r3d_18"),
        ("some/folder/My Model/", "my-model"),
        ("/weights/vit.pth", "vit"),
    ],
)
def test_default_name_comes_from_the_source(source: str, name: str) -> None:
    assert default_name(source) == name


def test_unreachable_hub_says_what_to_download(store: Path, tmp_path: Path) -> None:
    done = tubelet("models", "import", "hf:some/model", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "some/model cannot be fetched from the hub" in said
    assert "put them into one folder and import that" in said


@pytest.mark.parametrize("names", ["cpu,cpu", "cuda,cuda:0"])
def test_a_device_that_is_named_twice_is_refused(names: str) -> None:
    with pytest.raises(NoSuchDevice, match="names a device twice"):
        choose_devices(names)
