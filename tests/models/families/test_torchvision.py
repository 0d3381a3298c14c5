"""The embeddings of torchvision's models against what torchvision's own network computes."""

from typing import Any

import pytest
import torch
import torchvision

from tubelet.models.families.torchvision import TorchvisionDims, TorchvisionModel, head_of
from tubelet.models.spec import Preprocessing

# Architecture -> frames of a unit, pixels of its side. S3D needs seven positions along each side at its end.
CASES = {
    "alexnet": (1, 64),
    "mobilenet_v3_small": (1, 32),
    "shufflenet_v2_x0_5": (1, 32),
    "squeezenet1_1": (1, 64),
    "mc3_18": (4, 32),
    "s3d": (16, 224),
}


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_an_embedding_is_the_input_of_the_last_layer(name: str) -> None:
    torch.manual_seed(0)
    frames, side = CASES[name]
    theirs: Any = torchvision.models.get_model(name, weights=None, num_classes=5).eval()
    inputs: list[torch.Tensor] = []
    theirs.get_submodule(head_of(name)).register_forward_pre_hook(lambda _, seen: inputs.append(seen[0]))
    preprocessing = Preprocessing(side, side, "crop", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    ours = TorchvisionModel(TorchvisionDims(name, frames), preprocessing, 5).eval()
    ours.load_state_dict({f"net.{key}": value for key, value in theirs.state_dict().items()})

    units = torch.randint(0, 256, (3, frames, side, side, 3), dtype=torch.uint8)
    pixels = units.permute(0, 4, 1, 2, 3) / 255
    logits = theirs(pixels[:, :, 0] if frames == 1 else pixels)
    embeddings = ours.encode(units)
    features = inputs[0].flatten(2) if inputs[0].ndim > 2 else inputs[0][..., None]
    wanted = features.flatten(1) if name.startswith("squeezenet") else features.mean(dim=-1)
    torch.testing.assert_close(embeddings, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.classify(embeddings[:, None]), logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.head(embeddings), logits, atol=1e-5, rtol=1e-5)
