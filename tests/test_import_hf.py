"""Checkpoints as transformers writes them: imported, they give transformers' logits."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from models.checkpoints.foreign import CannotImport
from models.checkpoints.hf_preprocessing import read_preprocessing
from models.contract import Preprocessing
from models.importing import read_source, store_model
from models.inflate import inflate
from models.store import LoadedModel, ModelStore

hf: Any = transformers
SIZE, FRAMES = 32, 4
LABELS = tuple(f"label {number}" for number in range(7))
COMMON: Any = {
    "image_size": SIZE,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "id2label": dict(enumerate(LABELS)),
}
VIDEO: Any = COMMON | {"num_frames": FRAMES}
CROP = {"crop_size": {"height": SIZE, "width": SIZE}, "size": {"shortest_edge": SIZE}}
# Model type -> (model, processor's options).
CASES: dict[str, tuple[Callable[[], Any], Any]] = {
    "vivit": (
        lambda: hf.VivitForVideoClassification(hf.VivitConfig(**VIDEO, tubelet_size=[2, 8, 8])),
        lambda: hf.VivitImageProcessor(**CROP | {"size": {"shortest_edge": 36}}),
    ),
    "videomae": (
        lambda: hf.VideoMAEForVideoClassification(hf.VideoMAEConfig(**VIDEO, tubelet_size=2, patch_size=8)),
        lambda: hf.VideoMAEImageProcessor(**CROP),
    ),
    "timesformer": (
        lambda: hf.TimesformerForVideoClassification(hf.TimesformerConfig(**VIDEO, patch_size=8)),
        lambda: hf.VideoMAEImageProcessor(**CROP, image_mean=[0.45] * 3, image_std=[0.225] * 3),
    ),
    "vjepa2": (
        lambda: hf.VJEPA2ForVideoClassification(
            hf.VJEPA2Config(
                crop_size=SIZE,
                frames_per_clip=FRAMES,
                patch_size=8,
                hidden_size=48,
                num_hidden_layers=2,
                num_attention_heads=3,
                num_pooler_layers=1,
                pred_hidden_size=48,
                pred_num_attention_heads=3,
                pred_num_hidden_layers=1,
                id2label=COMMON["id2label"],
            )
        ),
        lambda: hf.VJEPA2VideoProcessor(crop_size=SIZE),
    ),
    "vit": (
        lambda: hf.ViTForImageClassification(hf.ViTConfig(**COMMON, patch_size=8)),
        lambda: hf.ViTImageProcessor(size={"height": SIZE, "width": SIZE}),
    ),
}


@pytest.fixture(params=CASES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def save(kind: str, folder: Path) -> Any:
    """A random model of transformers in a folder, with its processor; returns the model."""
    torch.manual_seed(0)
    model, processor = (build() for build in CASES[kind])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval()


def bring(folder: Path, store: Path, dtype: torch.dtype = torch.float32) -> LoadedModel:
    store_model(read_source(str(folder)), store, "imported", "1")
    return ModelStore(store).load("imported", device=torch.device("cpu"), dtype=dtype)


def clips(count: int) -> torch.Tensor:
    """(count, T, H, W, 3) uint8: coarse noise, so that patches differ."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (count, FRAMES, SIZE // 4, SIZE // 4, 3), generator=generator)
    return coarse.repeat_interleave(4, 2).repeat_interleave(4, 3).to(torch.uint8)


def reference(model: Any, kind: str, folder: Path, frames: torch.Tensor) -> torch.Tensor:
    """transformers' logits (B, K) for pictures that need no resizing."""
    processor = CASES[kind][1]()
    if kind == "vjepa2":
        videos = list(frames.permute(0, 1, 4, 2, 3))
        return model(**processor(videos, do_resize=False, do_sample_frames=False, return_tensors="pt")).logits
    same_size = {"do_resize": False} if kind == "vivit" else {}
    if kind == "vit":
        pixels = processor(list(frames.flatten(0, 1).numpy()), return_tensors="pt")["pixel_values"]
        return model(pixels).logits.unflatten(0, frames.shape[:2]).mean(dim=1)
    pixels = [
        processor(list(clip.numpy()), return_tensors="pt", **same_size)["pixel_values"] for clip in frames
    ]
    return model(torch.cat(pixels)).logits


def ours(loaded: LoadedModel, frames: torch.Tensor) -> torch.Tensor:
    sampling = loaded.spec.sampling
    units = frames.unflatten(1, (-1, sampling.frames_per_unit))
    return loaded.model(units).float()


@torch.inference_mode()
def test_logits_equal_transformers(kind: str, tmp_path: Path) -> None:
    model = save(kind, tmp_path / "theirs")
    loaded = bring(tmp_path / "theirs", tmp_path / "store")
    assert loaded.spec.labels == LABELS
    frames = clips(3)
    wanted = reference(model, kind, tmp_path / "theirs", frames)
    assert wanted.std() > 0.1
    torch.testing.assert_close(ours(loaded, frames), wanted, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_bf16_keeps_the_answers(kind: str, tmp_path: Path) -> None:
    model = save(kind, tmp_path / "theirs")
    frames = clips(200)
    wanted = reference(model, kind, tmp_path / "theirs", frames)
    found = ours(bring(tmp_path / "theirs", tmp_path / "store", torch.bfloat16), frames)
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
    loaded = bring(tmp_path / "theirs", tmp_path / "store")
    assert loaded.spec.family == "hf"
    wanted = reference(model, kind, tmp_path / "theirs", clips(2))
    torch.testing.assert_close(ours(loaded, clips(2)), wanted, atol=1e-4, rtol=0)


def test_an_activation_that_no_image_model_here_has_is_named(tmp_path: Path) -> None:
    save("vit", tmp_path / "theirs")
    edit(tmp_path / "theirs", "config.json", hidden_act="relu")
    with pytest.raises(CannotImport, match="hidden_act 'relu'"):
        bring(tmp_path / "theirs", tmp_path / "store")


def test_qv_biases_may_be_absent(tmp_path: Path) -> None:
    config = hf.VideoMAEConfig(**VIDEO, tubelet_size=2, patch_size=8, qv_bias=False)
    model = hf.VideoMAEForVideoClassification(config).eval()
    model.save_pretrained(tmp_path / "theirs")
    CASES["videomae"][1]().save_pretrained(tmp_path / "theirs")
    loaded = bring(tmp_path / "theirs", tmp_path / "store")
    with torch.inference_mode():
        wanted = reference(model, "videomae", tmp_path, clips(1))
        torch.testing.assert_close(ours(loaded, clips(1)), wanted, atol=1e-4, rtol=0)


def edit(folder: Path, file: str, **changes: object) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | changes))


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
        ("config.json", {"id2label": {"0": "a", "1": "b"}}, "7 logits, but there are 2 labels"),
        ("config.json", {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "there are no labels"),
        ("config.json", {"id2label": {"1": "a", "2": "b"}}, "theirs has no 0"),
        ("preprocessor_config.json", {"do_normalize": False}, "turns do_normalize off"),
        ("preprocessor_config.json", {"crop_size": {"height": 64, "width": 64}}, "pictures of 64 x 64"),
        ("preprocessor_config.json", {"resample": 0}, "resample 0"),
        ("preprocessor_config.json", {"size": {"longest_edge": 9}}, "longest_edge"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, file: str, changes: dict[str, object], says: str) -> None:
    save("videomae", tmp_path / "theirs")
    edit(tmp_path / "theirs", file, **changes)
    with pytest.raises(CannotImport, match=says):
        bring(tmp_path / "theirs", tmp_path / "store")
    assert not list((tmp_path / "store").rglob("*.toml"))


@pytest.mark.parametrize("key", ["image_size", "num_frames", "patch_size", "hidden_size", "layer_norm_eps"])
def test_a_config_that_lacks_a_size_is_refused(tmp_path: Path, key: str) -> None:
    save("videomae", tmp_path / "theirs")
    file = tmp_path / "theirs" / "config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != key}))
    with pytest.raises(CannotImport, match=f"theirs has no {key}"):
        bring(tmp_path / "theirs", tmp_path / "store")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: _cut(folder / "model.safetensors"), "transformers cannot load"),
        (lambda folder: edit(folder, "config.json", hidden_size=96), "mismatched_keys: "),
    ],
)
def test_what_transformers_cannot_load_is_told(
    tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    save("vjepa2", tmp_path / "theirs")
    damage(tmp_path / "theirs")
    with pytest.raises(CannotImport, match=says):
        bring(tmp_path / "theirs", tmp_path / "store")


def test_names_that_stand_for_two_logits_get_their_numbers(tmp_path: Path) -> None:
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
def test_a_size_of_one_number_is_what_the_processor_takes_it_for(kind: str, tmp_path: Path) -> None:
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


def test_weights_that_are_not_finite_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    save("vit", tmp_path / "theirs")
    file = tmp_path / "theirs" / "model.safetensors"
    state = load_file(file)
    state["classifier.weight"][0, 0] = float("nan")
    save_file(state, file)
    with pytest.raises(CannotImport, match="weight holds numbers that are not finite"):
        bring(tmp_path / "theirs", tmp_path / "store")
    assert not list((tmp_path / "store").rglob("*"))


def test_a_backbone_without_a_head_starts_a_video_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    hf.ViTModel(hf.ViTConfig(**COMMON, patch_size=8)).save_pretrained(tmp_path / "theirs")
    CASES["vit"][1]().save_pretrained(tmp_path / "theirs")
    foreign = replace(read_source(str(tmp_path / "theirs")), labels=())
    with pytest.raises(CannotImport, match="no head; name the labels"):
        inflate(foreign, 32, 2)
    store_model(inflate(replace(foreign, labels=("a", "b")), 32, 2), tmp_path / "store", "started", "1")
    loaded = ModelStore(tmp_path / "store").load("started", device=torch.device("cpu"))
    assert loaded.model(torch.zeros(1, 16, 2, SIZE, SIZE, 3, dtype=torch.uint8)).shape == (1, 2)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "how pixels are prepared"),
        (lambda folder: (folder / "model.safetensors").unlink(), "neither model.safetensors nor"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x09"), "no tensors"),
        (lambda folder: _cut(folder / "model.safetensors"), "no tensors"),
        (lambda folder: _without(folder, "fc_norm.weight"), "missing, such as spacetime.fc_norm.weight"),
        (
            lambda folder: _without(folder, "videomae.encoder.layer.0.attention.attention.key.weight"),
            "no key.weight for blocks.0.attn.qkv",
        ),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    save("videomae", tmp_path / "theirs")
    damage(tmp_path / "theirs")
    with pytest.raises(CannotImport, match=says):
        bring(tmp_path / "theirs", tmp_path / "store")


def test_a_pickle_that_holds_code_is_not_run(tmp_path: Path) -> None:
    save("videomae", tmp_path / "theirs")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    canary = tmp_path / "canary"
    torch.save({"weight": _Bomb(canary)}, tmp_path / "theirs" / "pytorch_model.bin")
    with pytest.raises(CannotImport, match="no tensors that can be read safely"):
        bring(tmp_path / "theirs", tmp_path / "store")
    assert not canary.exists()


def test_normalisation_with_an_offset_is_the_processors(tmp_path: Path) -> None:
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


class _Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.canary,)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _without(folder: Path, name: str) -> None:
    state = load_file(folder / "model.safetensors")
    del state[name]
    save_file(state, folder / "model.safetensors")
