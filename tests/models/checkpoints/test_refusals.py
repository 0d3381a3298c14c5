"""Checkpoints of transformers that are damaged, or do not fit: refused in a sentence, and nothing is left."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import bring, edit, save
from tubelet.models.checkpoints import foreign_checkpoint
from tubelet.models.checkpoints.importer import read_source, store_model
from tubelet.models.errors import CannotImport
from tubelet.models.repository.repository import ZOO

_ATTENTION = "videomae.encoder.layer.0.attention.attention"


def test_an_unsupported_activation_is_named(tmp_path: Path) -> None:
    save("vit", tmp_path / "theirs")
    edit(tmp_path / "theirs", "config.json", hidden_act="relu")
    with pytest.raises(CannotImport, match="hidden_act 'relu'"):
        bring(tmp_path / "theirs", tmp_path / "store")


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        (
            "config.json",
            {"model_type": "bert"},
            "model type 'bert'; supported are timesformer, videomae, .*vit, vivit",
        ),
        ("config.json", {"use_mean_pooling": False}, "missing_keys: videomae.layernorm"),
        ("config.json", {"num_hidden_layers": 3}, "missing, such as spacetime.blocks.2"),
        ("config.json", {"num_hidden_layers": 1}, "unexpected, such as spacetime.blocks.1"),
        ("config.json", {"intermediate_size": 64}, "has shape"),
        ("config.json", {"intermediate_size": 10**12}, "has shape"),
        ("config.json", {"id2label": {"0": "a", "1": "b"}}, "7 logits, but there are 2 labels"),
        ("config.json", {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "there are no labels"),
        (
            "config.json",
            {"id2label": {"1": "a", "2": "b"}},
            "no labels: id2label .* for logits 1 to 2",
        ),
        ("preprocessor_config.json", {"do_resize": False}, "turns do_resize off"),
        ("preprocessor_config.json", {"crop_size": {"height": 64, "width": 64}}, "pictures of 64 x 64"),
        ("preprocessor_config.json", {"resample": 4}, "resample 4"),
        ("preprocessor_config.json", {"size": {"longest_edge": 9}}, "longest_edge"),
    ],
)
def test_what_does_not_fit_the_model_is_named(
    tmp_path: Path, file: str, changes: dict[str, object], says: str
) -> None:
    save("videomae", tmp_path / "theirs")
    edit(tmp_path / "theirs", file, **changes)
    with pytest.raises(CannotImport, match=says):
        bring(tmp_path / "theirs", tmp_path / "store")
    assert not list((tmp_path / "store").rglob("*.toml"))


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("image_size", "pictures of 32 x 32 pixels, the model takes 224 x 224"),
        ("patch_size", r"has shape \(48, 3, 2, 8, 8\), the model's is \(48, 3, 2, 16, 16\)"),
        ("hidden_size", r"the model's is \(768, 3, 2, 8, 8\)"),
    ],
)
def test_a_missing_size_gets_its_default(tmp_path: Path, key: str, says: str) -> None:
    save("videomae", tmp_path / "theirs")
    file = tmp_path / "theirs" / "config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != key}))
    with pytest.raises(CannotImport, match=says):
        bring(tmp_path / "theirs", tmp_path / "store")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: edit(folder, "config.json", hidden_size=49), "transformers cannot load"),
        (lambda folder: edit(folder, "config.json", hidden_size=96), "mismatched_keys: "),
        (lambda folder: edit(folder, "config.json", hidden_size=3 << 20), "model of .* GiB of memory"),
        (lambda folder: _cut(folder / "model.safetensors"), "cannot be read safely"),
    ],
)
def test_what_transformers_cannot_load_is_told(
    tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    save("vjepa2", tmp_path / "theirs")
    damage(tmp_path / "theirs")
    with pytest.raises(CannotImport, match=says):
        bring(tmp_path / "theirs", tmp_path / "store")


def test_non_finite_weights_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    save("vit", tmp_path / "theirs")
    file = tmp_path / "theirs" / "model.safetensors"
    state = load_file(file)
    state["classifier.weight"][0, 0] = float("nan")
    save_file(state, file)
    with pytest.raises(CannotImport, match="weight holds numbers that are not finite"):
        bring(tmp_path / "theirs", tmp_path / "store")
    assert not list((tmp_path / "store").rglob("*"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "the preprocessing is unknown"),
        (lambda folder: (folder / "model.safetensors").unlink(), "neither model.safetensors nor"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x09"), "cannot be read safely"),
        (lambda folder: _cut(folder / "model.safetensors"), "cannot be read safely"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "config.json cannot be read"),
        (
            lambda folder: _change(folder, f"{_ATTENTION}.key.weight", torch.zeros(48, 10)),
            "theirs is malformed: Sizes of tensors must match",
        ),
        (lambda folder: _without(folder, "fc_norm.weight"), "missing, such as spacetime.fc_norm.weight"),
        (
            lambda folder: _without(folder, f"{_ATTENTION}.key.weight"),
            "no key.weight for blocks.0.attn.qkv",
        ),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    save("videomae", tmp_path / "theirs")
    damage(tmp_path / "theirs")
    with pytest.raises(CannotImport, match=says):
        bring(tmp_path / "theirs", tmp_path / "store")


@pytest.mark.parametrize("shard", ["../other.safetensors", "a/b.safetensors", "model.bin", "", 5])
def test_shards_lie_beside_their_index(tmp_path: Path, shard: object) -> None:
    save("videomae", tmp_path / "theirs")
    index = {"weight_map": {"videomae.fc_norm.weight": shard}}
    (tmp_path / "theirs" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(
        CannotImport, match=f"the shard {re.escape(repr(shard))}, which is not the name of a .safetensors"
    ):
        bring(tmp_path / "theirs", tmp_path / "store")


def test_an_archive_larger_than_free_memory_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"conv_proj.weight": torch.zeros(1 << 20)}, plain)
    with zipfile.ZipFile(plain) as parts, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in parts.namelist():
            archive.writestr(name, parts.read(name))
    assert packed.stat().st_size < 1 << 16
    monkeypatch.setattr(foreign_checkpoint, "free_bytes", lambda: 1 << 20)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it is unpacked"))
    with pytest.raises(CannotImport, match=r"packed\.pth needs about 0\.0 GiB of memory"):
        read_source(str(packed))


def test_a_tensor_expanded_from_one_number_is_refused(tmp_path: Path) -> None:
    torch.save({"conv_proj.weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "wide.pth")
    with pytest.raises(CannotImport, match=r"wide\.pth needs about 4096\.0 GiB of memory"):
        read_source(str(tmp_path / "wide.pth"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: ZOO / "camera-motion", "is already a model of tubelet"),
        (lambda folder: folder, "does not hold a checkpoint: it has no config.json"),
        (lambda folder: _text(folder / "README.md"), "README.md is not a checkpoint: that is"),
        (lambda folder: _text(folder / "a.pth"), "truncated, or pickles more than tensors"),
    ],
)
def test_other_paths_are_refused_with_the_reason(
    tmp_path: Path, make: Callable[[Path], Path], says: str
) -> None:
    with pytest.raises(CannotImport, match=says):
        read_source(str(make(tmp_path)))


def _text(file: Path) -> Path:
    file.write_text("# What it is\n")
    return file


def test_the_name_of_an_embedded_model_is_refused(tmp_path: Path) -> None:
    save("vit", tmp_path / "theirs")
    foreign = read_source(str(tmp_path / "theirs"))
    with pytest.raises(CannotImport, match="camera-motion is the name of an embedded model"):
        store_model(foreign, tmp_path / "store", "camera-motion", "2")
    assert not (tmp_path / "store").exists()


def test_a_pickle_that_holds_code_is_not_run(tmp_path: Path) -> None:
    save("videomae", tmp_path / "theirs")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    canary = tmp_path / "canary"
    torch.save({"weight": _Bomb(canary)}, tmp_path / "theirs" / "pytorch_model.bin")
    with pytest.raises(CannotImport, match="cannot be read safely"):
        bring(tmp_path / "theirs", tmp_path / "store")
    assert not canary.exists()


class _Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.canary,)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _change(folder: Path, name: str, value: torch.Tensor) -> None:
    file = folder / "model.safetensors"
    save_file(load_file(file) | {name: value}, file)


def _without(folder: Path, name: str) -> None:
    state = load_file(folder / "model.safetensors")
    del state[name]
    save_file(state, folder / "model.safetensors")
