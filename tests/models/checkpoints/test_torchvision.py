"""torchvision's and timm's checkpoints: imported, they give their library's logits on its pixels."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.data
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.models import WeightsEnum

from tests.support.precisions import needs_bf16
from tubelet.models.checkpoints.importer import read_source, store_model
from tubelet.models.checkpoints.labels import LABEL_SETS, read_labels
from tubelet.models.errors import CannotImport
from tubelet.models.families.framewise import FramewiseDims
from tubelet.models.families.timm import TimmDims
from tubelet.models.families.vit import ViTDims
from tubelet.models.repository.model_folder import Entry
from tubelet.models.repository.repository import ModelStore

timm_data: Any = timm.data

# Model -> (frames of a clip, pixels of its side, (resized height, width), resampling).
CASES = {
    "resnet18": (1, 224, (256, 256), "bilinear"),
    "efficientnet_b0": (1, 224, (256, 256), "bicubic"),
    "googlenet": (1, 224, (256, 256), "bilinear"),
    "vit_b_16": (1, 224, (256, 256), "bilinear"),
    "r3d_18": (16, 112, (128, 171), "bilinear_aliased"),
    "mc3_18": (16, 112, (128, 171), "bilinear_aliased"),
    "s3d": (128, 224, (256, 256), "bilinear_aliased"),
    "swin3d_t": (32, 224, (256, 256), "bilinear_aliased"),
    "mvit_v2_s": (16, 224, (256, 256), "bilinear_aliased"),
}
WITHIN = ("googlenet",)  # brings pixels to another mean and std itself, once it has weights
HEAVY = ("s3d",)  # 128 frames of 224 pixels: imported, but not computed


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where torchvision looks for weights before it downloads them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def put(hub: Path, name: str) -> Any:
    """A random model of torchvision where its default weights would lie."""
    torch.manual_seed(0)
    weights: WeightsEnum = torchvision.models.get_model_weights(name)["DEFAULT"]
    model: Any = torchvision.models.get_model(name, weights=None, num_classes=len(weights.meta["categories"]))
    if name in WITHIN:
        model.transform_input = True
    if name == "vit_b_16":
        torch.nn.init.normal_(model.heads.head.weight, std=0.1)
    torch.save(model.state_dict(), hub / Path(weights.url).name)
    return model.eval()


def imported(store: Path) -> Entry:
    return ModelStore(store).find("imported")


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_logits_equal_torchvisions(hub: Path, tmp_path: Path, name: str) -> None:
    theirs = put(hub, name)
    store_model(read_source(f"torchvision:{name}"), tmp_path / "store", "imported", "1")
    entry = imported(tmp_path / "store")
    frames, side, resized, resample = CASES[name]
    wanted_size = entry.spec.preprocessing
    assert (wanted_size.height, wanted_size.width) == (side, side)
    assert (wanted_size.resize_height, wanted_size.resize_width) == resized
    assert wanted_size.resample == resample
    assert entry.spec.sampling.frames_per_unit == frames
    weights = torchvision.models.get_model_weights(name)["DEFAULT"]
    assert list(entry.spec.labels) == weights.meta["categories"]
    assert entry.spec.accuracy[0].top1 == pytest.approx(
        next(iter(weights.meta["_metrics"].values()))["acc@1"] / 100
    )
    if name in HEAVY:
        return
    units = torch.randint(0, 256, (1, frames, side, side, 3), dtype=torch.uint8)
    preset = weights.transforms()
    pixels = (units.float() / 255 - torch.tensor(preset.mean)) / torch.tensor(preset.std)
    shown = pixels[:, 0].permute(0, 3, 1, 2) if frames == 1 else pixels.permute(0, 4, 1, 2, 3)
    found = entry.load()(units[:, None])
    torch.testing.assert_close(found, theirs(shown), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_released_files_of_old_are_read(hub: Path, tmp_path: Path, name: str) -> None:
    """Without batch norm's counters; DenseNet's layers under the names of its first release."""
    put(hub, name)
    (file,) = hub.iterdir()
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12])", r"\1.\2", key): value
        for key, value in torch.load(file).items()
        if not key.endswith("num_batches_tracked")
    }
    torch.save(state, file)
    store_model(read_source(f"torchvision:{name}"), tmp_path / "store", "imported", "1")


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x80\x02}q\x00(X"])
def test_a_truncated_download_is_named(hub: Path, content: bytes) -> None:
    put(hub, "resnet18")
    (file,) = hub.iterdir()
    file.write_bytes(content)
    with pytest.raises(CannotImport, match=file.name):
        read_source("torchvision:resnet18")


def test_a_download_prints_nothing_on_standard_output(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(hub, "resnet18")
    (file,) = hub.iterdir()
    there = file.rename(tmp_path / "where it is fetched from")
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda _url, to, *_, **__: there.rename(to))
    read_source("torchvision:resnet18")
    said = capsys.readouterr()
    assert said.out == ""
    assert "Downloading" in said.err


@needs_bf16
@torch.inference_mode()
@pytest.mark.parametrize("source", ["torchvision:resnet18", "torchvision:r3d_18", "vit.pth"])
def test_bf16_keeps_the_answers(hub: Path, tmp_path: Path, source: str) -> None:
    torch.manual_seed(0)
    if source.endswith(".pth"):
        vit: Any = torchvision.models.VisionTransformer(32, 16, 2, 2, 128, 256, num_classes=400)
        torch.nn.init.normal_(vit.heads.head.weight, std=0.1)
        torch.save(vit.state_dict(), tmp_path / source)
        foreign = read_source(str(tmp_path / source))
        foreign = dataclasses.replace(foreign, labels=tuple(map(str, range(400))))
    else:
        put(hub, source.removeprefix("torchvision:"))
        foreign = read_source(source)
    store_model(foreign, tmp_path / "store", "imported", "1")
    t, size = foreign.sampling.frames_per_unit, 32
    coarse = torch.randint(0, 256, (200, t, size // 4, size // 4, 3))
    units = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3).to(torch.uint8)
    entry = imported(tmp_path / "store")
    answers = [entry.load().to(dtype)(units[:, None]).float() for dtype in (torch.float32, torch.bfloat16)]
    assert torch.nn.functional.cosine_similarity(*answers).min() >= 0.9995
    same = answers[0].argmax(1) == answers[1].argmax(1)
    # Random weights tell clips apart by little: what changes its place was as good as equal.
    top = answers[0].gather(1, answers[1].argmax(1, keepdim=True))[:, 0]
    nearly = answers[0].amax(1) - top <= 0.01 * answers[0].std()
    assert (same | nearly).float().mean() >= 0.99


@pytest.mark.parametrize(("width", "heads"), [(192, 3), (1024, 16), (1280, 16)])
def test_heads_are_those_of_the_variant(tmp_path: Path, width: int, heads: int) -> None:
    vit = torchvision.models.VisionTransformer(32, 16, 1, heads, width, 64, num_classes=3)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    dims = read_source(str(tmp_path / "vit.safetensors")).dims
    assert isinstance(dims, ViTDims)
    assert dims.num_heads == heads


def test_a_width_of_no_variant_is_refused(tmp_path: Path) -> None:
    vit = torchvision.models.VisionTransformer(32, 16, 1, 3, 96, 64, num_classes=3)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(CannotImport, match="no known image ViT is 96 wide"):
        read_source(str(tmp_path / "vit.safetensors"))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("torchvision:resnet1", "no classifier 'resnet1'; it has alexnet"),
        ("torchvision:resnet18:NEWEST", "no weights 'NEWEST'; it has IMAGENET1K_V1"),
        ("torchvision:fcn_resnet50", "no classifier 'fcn_resnet50'"),
        ("no/such/path", "no/such/path is neither a folder nor a file"),
    ],
)
def test_unknown_sources_are_named_with_the_known_ones(source: str, says: str) -> None:
    with pytest.raises(CannotImport, match=says):
        read_source(source)


def test_a_failed_download_says_where_to_put_the_weights(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy where nobody listens is a machine without a network.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(
        CannotImport, match=r"resnet18-f37072fd.pth cannot be fetched and read.*put it into"
    ) as caught:
        read_source("torchvision:resnet18")
    assert str(hub) in str(caught.value)


def test_labels_by_name() -> None:
    assert [len(read_labels(name)) for name in LABEL_SETS] == [1000, 400]
    with pytest.raises(CannotImport, match=r"imagenet-1k, kinetics-400"):
        read_labels("no-such-labels")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("library", ["torchvision", "timm"])
@torch.inference_mode()
def test_bare_state_dicts_of_image_transformers(tmp_path: Path, library: str, suffix: str) -> None:
    torch.manual_seed(0)
    theirs: Any
    if library == "torchvision":
        theirs = torchvision.models.VisionTransformer(64, 16, 2, 2, 128, 256, num_classes=3)
        torch.nn.init.normal_(theirs.heads.head.weight, std=0.1)
    else:
        theirs = timm.models.VisionTransformer(64, 16, embed_dim=128, depth=2, num_heads=2, num_classes=3)
    file = tmp_path / f"theirs{suffix}"
    if suffix == ".pth":
        torch.save({"model": torch.nn.DataParallel(theirs).state_dict(), "epoch": 3}, file)
    else:
        save_file(theirs.state_dict(), file)
    foreign = read_source(str(file), window_s=5)
    assert (foreign.sampling.window_s, foreign.sampling.max_window_s) == (5, 20)
    assert "does not say how pictures are prepared: mean 0." in foreign.warnings[0]
    with pytest.raises(CannotImport, match="3 logits, but there are no labels"):
        store_model(foreign, tmp_path / "store", "imported", "1")
    labelled = dataclasses.replace(foreign, labels=tuple("abc"))
    store_model(labelled, tmp_path / "store", "imported", "1")
    model = imported(tmp_path / "store").load()
    units = torch.randint(0, 256, (2, 1, 64, 64, 3), dtype=torch.uint8)
    pixels = model.normalise(units)[:, 0].permute(0, 3, 1, 2)
    torch.testing.assert_close(
        model.classify(model.encode(units)[:, None]), theirs.eval()(pixels), atol=1e-4, rtol=0
    )


def test_unknown_state_dicts_are_named_by_their_keys(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(CannotImport, match=r"starts with conv1.weight, bn1.weight"):
        read_source(str(tmp_path / "resnet.pth"))


@torch.inference_mode()
def test_folders_of_timm(tmp_path: Path) -> None:
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=4).eval()
    timm.models.save_for_hf(theirs, str(tmp_path / "theirs"), safe_serialization=True)
    foreign = read_source(str(tmp_path / "theirs"))
    assert foreign.dims == ViTDims(16, 192, 12, 3, 768)
    data = timm_data.resolve_model_data_config(theirs)
    assert foreign.preprocessing.mean == data["mean"]
    assert foreign.preprocessing.resample == data["interpolation"]
    transform: Any = timm_data.create_transform(**data)
    assert foreign.preprocessing.resize_height == transform.transforms[0].size
    foreign = dataclasses.replace(foreign, labels=tuple("abcd"))
    store_model(foreign, tmp_path / "store", "imported", "1")
    model = imported(tmp_path / "store").load()
    units = torch.randint(0, 256, (2, 1, 224, 224, 3), dtype=torch.uint8)
    pixels = model.normalise(units)[:, 0].permute(0, 3, 1, 2)
    torch.testing.assert_close(
        model.classify(model.encode(units)[:, None]), theirs(pixels), atol=1e-4, rtol=0
    )


@torch.inference_mode()
@pytest.mark.parametrize(
    "name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "vit_wee_patch16_reg1_gap_256"]
)
def test_folders_of_timms_other_image_models(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=4).eval()
    timm.models.save_for_hf(theirs, str(tmp_path / "theirs"), safe_serialization=True)
    foreign = read_source(str(tmp_path / "theirs"))
    assert foreign.dims == FramewiseDims(timm=TimmDims(name))
    foreign = dataclasses.replace(foreign, labels=tuple("abcd"))
    store_model(foreign, tmp_path / "store", "imported", "1")
    model = imported(tmp_path / "store").load()
    side = foreign.preprocessing.height
    units = torch.randint(0, 256, (2, 1, side, side, 3), dtype=torch.uint8)
    pixels = model.normalise(units)[:, 0].permute(0, 3, 1, 2)
    wanted = theirs(pixels)
    assert wanted.std() > 1e-3
    torch.testing.assert_close(model.classify(model.encode(units)[:, None]), wanted, atol=1e-5, rtol=1e-4)


def test_timms_models_with_two_heads_are_refused(tmp_path: Path) -> None:
    theirs = timm.create_model("levit_128s", num_classes=4)
    timm.models.save_for_hf(theirs, str(tmp_path / "theirs"), safe_serialization=True)
    with pytest.raises(CannotImport, match=r"levit_128s, which has several heads: head.linear, head_dist"):
        read_source(str(tmp_path / "theirs"))
