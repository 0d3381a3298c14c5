"""The model store: what is written is read back, and what is broken is refused in one sentence."""

import dataclasses
import hashlib
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.stored_models import DIMS, PREPROCESSING, SPEC, model
from tubelet.models.errors import BrokenModel, UnknownModel
from tubelet.models.families.framewise import FramewiseDims, TemporalDims
from tubelet.models.families.registry import build_model
from tubelet.models.families.vit import ViT
from tubelet.models.repository.model_folder import write_folder
from tubelet.models.repository.repository import ModelStore
from tubelet.models.spec import ModelSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "tiny", SPEC, DIMS, model(), "# tiny\n")
    return tmp_path / "tiny"


def test_a_folder_without_activation_has_softmax(folder: Path) -> None:
    spec = folder / "model.toml"
    spec.write_text(spec.read_text().replace('activation = "softmax"\n', ""))
    assert ModelStore(folder.parent).specs() == (SPEC,)


def test_the_activation_is_written_and_read(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, activation="sigmoid")
    write_folder(tmp_path / "tiny", spec, DIMS, model(), "")
    assert ModelStore(tmp_path).specs() == (spec,)


@torch.inference_mode()
def test_what_is_written_is_read_back(folder: Path) -> None:
    store = ModelStore(folder.parent)
    assert store.specs() == (SPEC,)
    loaded = store.find("tiny").load()
    assert not loaded.training
    units = torch.randint(0, 256, (3, 1, 16, 24, 3), dtype=torch.uint8)
    assert torch.equal(loaded.encode(units), model().encode(units))
    assert sorted(file.name for file in folder.iterdir()) == [
        *("CARD.md", "labels.txt", "model.toml", "weights.safetensors")
    ]


def test_dims_that_are_absent_are_none_again(tmp_path: Path) -> None:
    dims = dataclasses.replace(DIMS, representation_dim=20)
    with_head = ViT(dims, PREPROCESSING, 3)
    write_folder(tmp_path / "tiny", SPEC, dims, with_head, "")
    loaded = ModelStore(tmp_path).find("tiny").load()
    assert loaded.state_dict().keys() == with_head.state_dict().keys()


def test_a_model_is_replaced_whole(folder: Path) -> None:
    newer = dataclasses.replace(SPEC, version="1.10.0")
    write_folder(folder, newer, DIMS, model(seed=5), "# newer\n")
    assert [entry.name for entry in folder.parent.iterdir()] == ["tiny"]
    entry = ModelStore(folder.parent).find("tiny")
    assert entry.spec == newer
    wanted = model(seed=5).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in entry.load().state_dict().items())


def test_the_newest_version_is_the_default(folder: Path) -> None:
    newer = folder.parent / "named as it pleases" / "1.10.0"
    write_folder(newer, dataclasses.replace(SPEC, version="1.10.0"), DIMS, model(), "")
    store = ModelStore(folder.parent)
    assert store.find("tiny").spec.version == "1.10.0"
    assert store.find("tiny", "1.2.0").spec.version == "1.2.0"
    assert len(store.specs()) == 2


@pytest.mark.parametrize(("name", "version"), [("huge", ""), ("tiny", "9")])
def test_unknown_models_are_named_with_the_known_ones(folder: Path, name: str, version: str) -> None:
    with pytest.raises(UnknownModel, match=re.escape(f"{name}:{version}".strip(":"))) as caught:
        ModelStore(folder.parent).find(name, version)
    assert caught.value.known == ("tiny:1.2.0",)
    assert (caught.value.name, caught.value.version) == (name, version)


def test_changed_weights_are_refused(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BrokenModel, match="sha256"):
        ModelStore(folder.parent).find("tiny").load()


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    with pytest.raises(BrokenModel, match="cannot be read"):
        ModelStore(folder.parent).find("tiny").load()


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("mlp_dim = 64", "mlp_dim = 1_000_000_000_000", "fc1.weight has shape .*, the model's is .10000000"),
        ("depth = 1", "depth = 1001", "at most 1000 blocks, this one has 1001"),
    ],
)
def test_dims_that_no_memory_holds_take_none(folder: Path, right: str, wrong: str, says: str) -> None:
    spec = folder / "model.toml"
    assert right in spec.read_text()
    spec.write_text(spec.read_text().replace(right, wrong))
    with pytest.raises(BrokenModel, match=says):
        ModelStore(folder.parent).find("tiny").load()


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_are_refused(folder: Path, change: str) -> None:
    weights, spec = folder / "weights.safetensors", folder / "model.toml"
    before = hashlib.sha256(weights.read_bytes()).hexdigest()
    state = load_file(weights)
    match change:
        case "missing":
            del state["spatial.norm.weight"]
        case "unexpected":
            state["spatial.extra"] = torch.zeros(1)
        case _:
            state["head.weight"] = torch.zeros(2, 32)
    save_file(state, weights)
    after = hashlib.sha256(weights.read_bytes()).hexdigest()
    spec.write_text(spec.read_text().replace(before, after))
    name = {"missing": "spatial.norm.weight", "unexpected": "spatial.extra", "shape": "head.weight"}[change]
    with pytest.raises(BrokenModel, match=name):
        ModelStore(folder.parent).find("tiny").load()


@pytest.mark.parametrize(
    ("wrong", "right", "says"),
    [
        ("not toml [", 'name = "tiny"', "FILE is not TOML: Expected '=' after a key "),
        ('family = "unheard-of"', 'family = "vit"', "family 'unheard-of' is not one of tubelet's"),
        ("", 'licence = "MIT"', "licence: missing$"),
        ("window_s = 9.0", "window_s = 2.0", "window lengths must satisfy"),
        ("patch = 8", "patch_size = 8", "dims.patch: no such key; there are patch_size, embed_dim, depth, "),
        ("", "patch_size = 8", "dims.patch_size: missing$"),
        ("[sizes]", "[dims]", "dims: missing$"),
        ("[prints]", "[fingerprint]", "fingerprint: missing$"),
        ("numbers = [", "logits = [", "fingerprint.logits: missing$"),
        ('"label.txt" = ', '"labels.txt" = ', "sha256.labels.txt: missing$"),
        (f"deep = {'[' * 20_000}", 'name = "tiny"', "FILE is not TOML: "),
        (f'version = "{"1" * 5000}"', 'version = "1.2.0"', ".* at most 100 characters each"),
        (f"version = {'1' * 5000}", 'version = "1.2.0"', "FILE is not TOML: "),
    ],
)
def test_a_model_toml_that_contradicts_itself_is_refused(
    folder: Path, wrong: str, right: str, says: str
) -> None:
    spec = folder / "model.toml"
    assert right in spec.read_text()
    spec.write_text(spec.read_text().replace(right, wrong, 1))
    write_folder(folder.with_name("whole"), dataclasses.replace(SPEC, name="whole"), DIMS, model(), "")
    store = ModelStore(folder.parent)
    assert [type(problem) for problem in store.broken] == [BrokenModel]
    said = str(store.broken[0])
    assert re.search(f"^{folder} is no usable model: {says.replace('FILE', str(spec))}", said), said
    assert "Error" not in said
    assert [spec.name for spec in store.specs()] == ["whole"]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("labels.txt", None, "cannot be read: No such file or directory"),
        ("labels.txt", b"\xff", "is not UTF-8: "),
        ("model.toml", b"\xff", "is not UTF-8: "),
    ],
)
def test_a_file_that_is_no_text_is_named(folder: Path, file: str, content: bytes | None, says: str) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    (problem,) = ModelStore(folder.parent).broken
    assert str(problem).startswith(f"{folder} is no usable model: {folder / file} {says}")


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        (r'description = ".*"', "description = 5", "description: Input should be a valid string; found 5"),
        (r'licence = "MIT"', "licence = true", "licence: .* valid string; found True"),
        (
            r'family = "vit"',
            'family = "cnn"',
            "family 'cnn' is not one of tubelet's, and no installed package",
        ),
        (r"top1 = 0.75", 'top1 = "high"', "accuracy.top1: .* valid number; found 'high'"),
        (r"top1 = 0.75", "top1 = nan", "accuracy.top1: .* finite number; found nan"),
        (r"max_window_s = 4.0", "max_window_s = inf", "sampling.max_window_s: .* finite number; found inf"),
        (r"max_window_s = 4.0", "max_window_s = 1e300", "default <= max <= 86400 s, .*1e.300"),
        (r"height = 16", "height = 16.0", "preprocessing.height: .* valid integer; found 16.0"),
        (r"mean = \[0.1, ", "mean = [", "preprocessing.mean.2: Field required; found"),
        (r"std = \[0.5,", 'std = ["a",', "preprocessing.std.0: .* valid number; found 'a'"),
        (r"depth = 1", "depth = true", "dims.depth: .* valid integer; found True"),
        (r'"labels.txt" = ".*"', '"labels.txt" = 7', "sha256: .* valid string; found 7"),
        (r"logits = \[", 'logits = ["a", ', "fingerprint.logits.0: .* valid number; found 'a'"),
        (r"\[dims\]", "[[dims]]", "dims: Input should be a table; found"),
    ],
)
def test_a_value_of_another_type_is_named(folder: Path, right: str, wrong: str, says: str) -> None:
    spec = folder / "model.toml"
    content, changed = re.subn(right, wrong, spec.read_text(), count=1)
    assert changed
    spec.write_text(content)
    (problem,) = ModelStore(folder.parent).broken
    assert re.search(f"tiny is no usable model: .*{says}", str(problem)), problem


def test_labels_that_were_changed_are_refused(folder: Path) -> None:
    (folder / "labels.txt").write_text("a\nc\nd\n")
    (problem,) = ModelStore(folder.parent).broken
    assert "labels.txt has sha256" in str(problem)


def test_a_broken_folder_says_why(folder: Path) -> None:
    """It is there: that no such model is known would send its owner looking elsewhere."""
    (folder / "labels.txt").write_text("a\nc\nd\n")
    shutil.copytree(folder, folder.parent / "other" / "2")
    store = ModelStore(folder.parent)
    for name, version in ((folder.name, ""), (folder.name, "1.2.0"), ("other", ""), ("other", "2")):
        with pytest.raises(BrokenModel, match=r"labels\.txt has sha256"):
            store.find(name, version)
    with pytest.raises(UnknownModel):
        store.find("other", "1")


def test_a_duplicate_model_is_read_once(folder: Path) -> None:
    write_folder(folder.with_name("twin"), SPEC, DIMS, model(seed=3), "")
    store = ModelStore(folder.parent)
    assert store.specs() == (SPEC,)
    assert "tiny 1.2.0" in str(store.broken[0])


def test_a_write_that_was_cut_off_is_not_listed(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name(".tiny-cut"))
    assert ModelStore(folder.parent).broken == []


@pytest.mark.parametrize("key", ["name", "version"])
def test_names_are_short(key: str) -> None:
    """They become names of folders, and the parts of a version numbers."""
    dataclasses.replace(SPEC, **{key: "1" * 100})
    with pytest.raises(ValueError, match=r"at most 100 characters each, these have .*101"):
        dataclasses.replace(SPEC, **{key: "1" * 101})


@pytest.mark.parametrize("name", ["", "../up", "a b", ".hidden"])
def test_names_must_be_usable_as_folders(name: str) -> None:
    with pytest.raises(ValueError, match="name and version"):
        dataclasses.replace(SPEC, name=name)


def test_the_fingerprint_is_of_what_the_model_computes(tmp_path: Path, folder: Path) -> None:
    def fingerprint(name: str, spec: ModelSpec = SPEC, seed: int = 0) -> str:
        write_folder(tmp_path / "others" / name, spec, DIMS, model(seed=seed), "")
        return ModelStore(tmp_path / "others").find(spec.name, spec.version).fingerprint

    wanted = ModelStore(folder.parent).find("tiny").fingerprint
    assert re.fullmatch(r"[0-9a-f]{16}", wanted)
    renamed = dataclasses.replace(SPEC, name="other", version="7", description="another", licence="MIT")
    assert fingerprint("same", renamed) == wanted
    longer = dataclasses.replace(SPEC.sampling, window_s=SPEC.sampling.max_window_s)
    darker = dataclasses.replace(SPEC.preprocessing, mean=(0.4, 0.5, 0.6))
    others = {
        fingerprint("weights", dataclasses.replace(SPEC, name="weights"), seed=1),
        fingerprint("labels", dataclasses.replace(SPEC, name="labels", labels=("x", "y", "z"))),
        fingerprint("sampling", dataclasses.replace(SPEC, name="sampling", sampling=longer)),
        fingerprint("pixels", dataclasses.replace(SPEC, name="pixels", preprocessing=darker)),
    }
    assert len(others | {wanted}) == 5


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """The folder of a model whose dims have tables inside."""
    dims = FramewiseDims(vit=DIMS, temporal=TemporalDims(4, 16, 1, 2, 32))
    spec = dataclasses.replace(SPEC, family="framewise")
    write_folder(tmp_path / "tiny", spec, dims, build_model(dims, PREPROCESSING, 3).eval(), "")
    return tmp_path / "tiny"


def test_dims_with_tables_inside_are_read_as_they_were_written(nested: Path) -> None:
    entry = ModelStore(nested.parent).find("tiny")
    assert entry.dims == FramewiseDims(vit=DIMS, temporal=TemporalDims(4, 16, 1, 2, 32))
    entry.load()


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("patch_size = 8", "patch = 8", "dims.vit.patch: no such key; there are patch_size, embed_dim"),
        ("units_per_window = 4\nembed", "embed", "dims.temporal.units_per_window: missing$"),
        ("[dims.vit]", "[dims.timm]\nname = 'resnet18'\n[dims.vit]", "one image model .*; 2 are given$"),
        ("[dims.temporal]", "[dims.temporal.deeper]", "dims.temporal.deeper: no such key"),
    ],
)
def test_a_wrong_table_inside_dims_is_named(nested: Path, right: str, wrong: str, says: str) -> None:
    spec = nested / "model.toml"
    assert right in spec.read_text()
    spec.write_text(spec.read_text().replace(right, wrong, 1))
    (problem,) = ModelStore(nested.parent).broken
    assert re.search(f"tiny is no usable model: {says}", str(problem)), problem
