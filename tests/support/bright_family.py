"""A model that answers by brightness alone, as a package of its own: what it looks at is what is bright."""

from pathlib import Path

import torch

from tests.support import example_family
from tubelet.models.families.plugins import PluginDims
from tubelet.models.repository.model_folder import write_folder
from tubelet.models.spec import ModelSpec, Preprocessing, Sampling

NAME = "brightness"
LABELS = ("bright", "dark")
_SIDE = 56  # pixels, of which a grid of occlusion has seven rows and columns
_SPEC = ModelSpec(
    name=NAME,
    version="1",
    family="mean_colour",
    description="how bright frames are",
    licence="Apache-2.0",
    labels=LABELS,
    sampling=Sampling(1, 8, window_s=4.0, stride_s=4.0, min_window_s=0.5, max_window_s=8.0),
    preprocessing=Preprocessing(_SIDE, _SIDE, "crop", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
)


def install(folder: Path) -> Path:
    """Install the example's family in ``folder``, to be added to ``sys.path``."""
    folder.mkdir()
    (folder / "example_family.py").write_bytes(Path(example_family.__file__).read_bytes())
    described = folder / "example_family-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: example-family\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[tubelet.families]\nmean_colour = example_family:build\n")
    return folder


def write_store(store: Path) -> None:
    """Write a store with the model, whose family must be installed."""
    model = example_family.build({"hidden_dim": 1}, _SPEC.preprocessing, len(LABELS)).eval()
    weights = {"head.0.weight": 5.0, "head.0.bias": 1.0, "head.2.bias": 0.0}
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.fill_(weights.get(name, 1.0))
    with torch.no_grad():
        model.get_parameter("head.2.weight")[1] = -1
    write_folder(store / NAME, _SPEC, PluginDims("mean_colour", {"hidden_dim": 1}), model, "# brightness\n")
