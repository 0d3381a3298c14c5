"""Checkpoints as transformers writes them: imported, they give transformers' logits."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.checkpoints import (
    CASES,
    COMMON,
    FRAMES,
    LABELS,
    SIZE,
    VIDEO,
    bring,
    clips,
    edit,
    hf,
    ours,
    reference,
    save,
)
from tests.support.precisions import needs_bf16
from tubelet.models.checkpoints.huggingface_config import read_preprocessing
from tubelet.models.checkpoints.importer import read_source, store_model
from tubelet.models.checkpoints.inflate import inflate
from tubelet.models.errors import CannotImport
from tubelet.models.families.huggingface import HfDims, HfModel
from tubelet.models.repository.repository import ModelStore
from tubelet.models.spec import Preprocessing


@pytest.fixture(params=CASES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@torch.inference_mode()
def test_logits_equal_transformers(kind: str, tmp_path: Path) -> None:
    model = save(kind, tmp_path / "theirs")
    entry = bring(tmp_path / "theirs", tmp_path / "store")
    assert entry.spec.labels == LABELS
    frames = clips(3)
    wanted = reference(model, kind, tmp_path / "theirs", frames)
    assert wanted.std() > 0.1
    torch.testing.assert_close(ours(entry, frames), wanted, atol=1e-4, rtol=0)


@needs_bf16
@torch.inference_mode()
def test_bf16_keeps_the_answers(kind: str, tmp_path: Path) -> None:
    model = save(kind, tmp_path / "theirs")
    frames = clips(200)
    wanted = reference(model, kind, tmp_path / "theirs", frames)
    found = ours(bring(tmp_path / "theirs", tmp_path / "store"), frames, torch.bfloat16)
    cosine = torch.nn.functional.cosine_similarity(found, wanted)
    assert cosine.min() >= 0.9995
    assert (found.argmax(1) == wanted.argmax(1)).float().mean() >= 0.99


def test_sharded_and_pickled_checkpoints_are_read(kind: str, tmp_path: Path) -> None:
    whole, sharded, pickled = (tmp_path / name for name in ("whole", "sharded", "pickled"))
    model = save(kind, whole)
    model.save_pretrained(sharded, max_shard_size="40KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    shutil.copytree(whole, pickled)
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    for file in whole.glob("*preprocessor_config.json"):
        shutil.copy(file, sharded)
    wanted = read_source(str(whole)).state
    for folder in (sharded, pickled):
        found = read_source(str(folder)).state
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


OPTIONS: dict[str, tuple[str, Callable[[], Any]]] = {
    "joint": (
        "timesformer",
        lambda: hf.TimesformerForVideoClassification(
            hf.TimesformerConfig(**VIDEO, patch_size=8, attention_type="joint_space_time")
        ),
    ),
    "first token": (
        "videomae",
        lambda: hf.VideoMAEForVideoClassification(
            hf.VideoMAEConfig(**VIDEO, tubelet_size=2, patch_size=8, use_mean_pooling=False)
        ),
    ),
    "relu": (
        "vivit",
        lambda: hf.VivitForVideoClassification(
            hf.VivitConfig(**VIDEO, tubelet_size=[2, 8, 8], hidden_act="relu")
        ),
    ),
}


@pytest.mark.parametrize("option", OPTIONS)
@torch.inference_mode()
def test_options_that_no_family_has_run_through_transformers(tmp_path: Path, option: str) -> None:
    torch.manual_seed(0)
    kind, build = OPTIONS[option]
    model = build().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "theirs")
    CASES[kind][1]().save_pretrained(tmp_path / "theirs")
    entry = bring(tmp_path / "theirs", tmp_path / "store")
    assert entry.spec.family == "hf"
    wanted = reference(model, kind, tmp_path / "theirs", clips(2))
    torch.testing.assert_close(ours(entry, clips(2)), wanted, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_an_embedding_is_the_input_of_the_classifier(tmp_path: Path) -> None:
    model = save("vjepa2", tmp_path / "theirs")
    inputs: list[torch.Tensor] = []
    model.classifier.register_forward_pre_hook(lambda _, seen: inputs.append(seen[0]))
    reference(model, "vjepa2", tmp_path / "theirs", clips(2))
    found = bring(tmp_path / "theirs", tmp_path / "store").load().encode(clips(2))
    torch.testing.assert_close(found, inputs[0], atol=1e-4, rtol=0)


CODE_OF_OTHERS: Any = {
    "attn_implementation": "some-org/some-kernel",
    "_attn_implementation": "some-org/some-kernel",
    "experts_implementation": "some-org/some-kernel",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "auto_map": {"AutoModelForVideoClassification": "some-org/some-code--code.Model"},
}


@pytest.mark.parametrize("key", CODE_OF_OTHERS)
@torch.inference_mode()
def test_code_named_in_a_config_is_not_run(tmp_path: Path, key: str) -> None:
    model = save("vjepa2", tmp_path / "theirs")
    edit(tmp_path / "theirs", "config.json", **{key: CODE_OF_OTHERS[key]})
    entry = bring(tmp_path / "theirs", tmp_path / "store")
    assert "some-" not in (tmp_path / "store" / "imported" / "1" / "model.toml").read_text()
    wanted = reference(model, "vjepa2", tmp_path / "theirs", clips(1))
    torch.testing.assert_close(ours(entry, clips(1)), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("key", CODE_OF_OTHERS)
def test_code_named_in_a_model_toml_is_not_run(key: str) -> None:
    config = CASES["vjepa2"][0]().config.to_diff_dict()
    half = (0.5, 0.5, 0.5)
    plain, named = (
        HfModel(HfDims(json.dumps(each), FRAMES), Preprocessing(SIZE, SIZE, "crop", half, half), 7)
        for each in (config, config | {key: CODE_OF_OTHERS[key]})
    )
    assert named.net.config.to_dict() == plain.net.config.to_dict()
    assert named.net.config._attn_implementation == plain.net.config._attn_implementation


def test_qv_biases_may_be_absent(tmp_path: Path) -> None:
    config = hf.VideoMAEConfig(**VIDEO, tubelet_size=2, patch_size=8, qv_bias=False)
    model = hf.VideoMAEForVideoClassification(config).eval()
    model.save_pretrained(tmp_path / "theirs")
    CASES["videomae"][1]().save_pretrained(tmp_path / "theirs")
    entry = bring(tmp_path / "theirs", tmp_path / "store")
    with torch.inference_mode():
        wanted = reference(model, "videomae", tmp_path, clips(1))
        torch.testing.assert_close(ours(entry, clips(1)), wanted, atol=1e-4, rtol=0)


def test_equal_labels_get_the_numbers_of_their_logits(tmp_path: Path) -> None:
    """ImageNet has two kinds of crane."""
    save("vit", tmp_path / "theirs")
    edit(
        tmp_path / "theirs",
        "config.json",
        id2label={str(n): "crane" if n in (1, 4) else f"l{n}" for n in range(7)},
    )
    labels = read_source(str(tmp_path / "theirs")).labels
    assert labels == ("l0", "crane (1)", "l2", "l3", "crane (4)", "l5", "l6")


@pytest.mark.parametrize("kind", ["vit", "videomae", "vivit"])
def test_a_size_of_one_number_means_what_the_processor_says(kind: str, tmp_path: Path) -> None:
    CASES[kind][1]().save_pretrained(tmp_path)
    file = "preprocessor_config.json"
    edit(tmp_path, file, size=SIZE)
    theirs = {
        "vit": hf.ViTImageProcessor,
        "videomae": hf.VideoMAEImageProcessor,
        "vivit": hf.VivitImageProcessor,
    }
    size = theirs[kind].from_pretrained(tmp_path).size
    is_edge = "shortest_edge" in dict(size) and dict(size)["shortest_edge"] is not None
    assert read_preprocessing(tmp_path, kind, (SIZE, SIZE)).resize == ("crop" if is_edge else "stretch")


def test_a_backbone_without_a_head_can_be_inflated(tmp_path: Path) -> None:
    torch.manual_seed(0)
    hf.ViTModel(hf.ViTConfig(**COMMON, patch_size=8)).save_pretrained(tmp_path / "theirs")
    CASES["vit"][1]().save_pretrained(tmp_path / "theirs")
    foreign = replace(read_source(str(tmp_path / "theirs")), labels=())
    with pytest.raises(CannotImport, match="no head; name the labels"):
        inflate(foreign, 32, 2)
    start = inflate(replace(foreign, labels=("a", "b")), 32, 2)
    assert start.untrained == ("temporal", "head")
    store_model(start, tmp_path / "store", "started", "1")
    loaded = ModelStore(tmp_path / "store").find("started").load()
    assert loaded(torch.zeros(1, 16, 2, SIZE, SIZE, 3, dtype=torch.uint8)).shape == (1, 2)


def test_normalisation_with_an_offset_equals_the_processor(tmp_path: Path) -> None:
    processor = CASES["vivit"][1]()
    processor.save_pretrained(tmp_path)
    ours = read_preprocessing(tmp_path, "vivit", (SIZE, SIZE))
    assert ours == Preprocessing(
        SIZE, SIZE, "crop", ours.mean, ours.std, resize_height=36, resize_width=36, resample="bilinear"
    )
    levels = torch.arange(256).float()
    picture = torch.arange(SIZE * SIZE * 3, dtype=torch.int64).reshape(SIZE, SIZE, 3) % 256
    theirs = processor([picture.to(torch.uint8).numpy()], do_resize=False, return_tensors="pt")[
        "pixel_values"
    ]
    mapped = (levels / 255 - ours.mean[0]) / ours.std[0]
    torch.testing.assert_close(theirs[0, 0].permute(1, 2, 0), mapped[picture], atol=1e-5, rtol=0)
