"""Families of other packages: found by their entry points, named when they fail, no harm to others."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support import example_family
from tubelet.models.errors import BrokenModel
from tubelet.models.families.plugins import PluginDims
from tubelet.models.repository.model_folder import write_folder
from tubelet.models.repository.repository import ModelStore
from tubelet.models.spec import ModelSpec, Preprocessing, Sampling
from tubelet.models.video_model import VideoModel

DIMS = PluginDims("mean_colour", {"hidden_dim": 8})
SPEC = ModelSpec(
    name="colours",
    version="1",
    family="mean_colour",
    description="an example",
    licence="Apache-2.0",
    labels=("red", "green", "blue"),
    sampling=Sampling(1, 4, 1.0, 0.5, 0.5, 2.0),
    preprocessing=Preprocessing(16, 16, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages in which the example is installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "example_family.py").write_bytes(Path(example_family.__file__).read_bytes())
    described = folder / "example_family-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: example-family\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[tubelet.families]\nmean_colour = example_family:build\n")
    return folder


@pytest.fixture
def model() -> VideoModel:
    torch.manual_seed(0)
    return example_family.build({"hidden_dim": 8}, SPEC.preprocessing, 3).eval()


@pytest.fixture
def store(tmp_path: Path, site: Path, model: VideoModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that holds a model of the example's family."""
    monkeypatch.syspath_prepend(site)
    write_folder(tmp_path / "store" / "colours", SPEC, DIMS, model, "# colours\n")
    return tmp_path / "store"


def test_a_plugin_model_is_read_as_it_was_written(store: Path, model: VideoModel) -> None:
    read = ModelStore(store).find("colours").load()
    units = torch.randint(0, 256, (4, 1, 16, 16, 3), dtype=torch.uint8)
    assert torch.equal(read.encode(units), model.encode(units))


def test_the_code_of_the_readme_writes_a_model_that_is_read(
    tmp_path: Path, site: Path, model: VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    torch.save(model.state_dict(), "colours.pt")
    readme = (Path(__file__).parents[3] / "models" / "README.md").read_text()
    (code,) = (
        block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "write_folder" in block
    )
    exec(code, {})
    read = ModelStore(tmp_path / "store").find("colours").load()
    assert all(map(torch.equal, read.state_dict().values(), model.state_dict().values()))


def test_the_command_classifies_with_it(store: Path, site: Path, sample: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(sample)
    done = _tubelet("classify", "clip.mp4", "--model", "colours", "--json", store=store, site=site)
    answer = json.loads(done.stdout)
    assert answer["model"] == "colours"
    assert {label["label"] for label in answer["labels"]} == {"red", "green", "blue"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def build(*_): raise RuntimeError('no luck')", "family mean_colour: RuntimeError: no luck"),
        ("import no_such_library", "No module named 'no_such_library'"),
        ("def build(*_): return 7", "built a int for family mean_colour"),
    ],
)
def test_errors_of_a_plugin_name_its_package(store: Path, site: Path, source: str, message: str) -> None:
    (site / "example_family.py").write_text(source)
    verified = _tubelet("models", "verify", "colours", store=store, site=site)
    assert verified.returncode == 1
    assert "example-family" in verified.stderr
    assert message in verified.stderr
    assert "Traceback" not in verified.stderr
    listed = _tubelet("models", "list", "--json", store=store, site=site)
    assert "camera-motion" in listed.stdout


def test_an_unknown_family_is_named(store: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    sys.path_importer_cache.clear()
    models = ModelStore(store)
    assert [str(each) for each in models.broken]
    with pytest.raises(BrokenModel, match="family 'mean_colour' is not one of tubelet's"):
        models.find("colours")


def _tubelet(*arguments: str, store: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("tubelet"), *arguments],
        env=os.environ | {"PYTHONPATH": str(site), "TUBELET_MODELS__STORE": str(store)},
        cwd=store.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
