"""The ViT against torchvision's, and its head."""

import torch
from torchvision.models import VisionTransformer, vit_b_16

from tubelet.models.checkpoints.torchvision import from_torchvision
from tubelet.models.families.vit import ViT, ViTDims
from tubelet.models.spec import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def randomise(model: torch.nn.Module) -> None:
    # torchvision starts with a head of zeros, which would hide every difference.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)


def as_torchvision_sees(units: torch.Tensor) -> torch.Tensor:
    pixels = units[:, 0].permute(0, 3, 1, 2).double() / 255
    return ((pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]).float()


@torch.inference_mode()
def test_equals_torchvisions_vit_b_16() -> None:
    torch.manual_seed(1)
    theirs = vit_b_16().eval()
    randomise(theirs)
    ours = ViT(ViTDims(16, 768, 12, 12, 3072), Preprocessing(224, 224, "crop", MEAN, STD), 1000).eval()
    ours.load_state_dict(from_torchvision(theirs.state_dict()))
    units = torch.randint(0, 256, (2, 1, 224, 224, 3), dtype=torch.uint8)
    logits = ours.classify(ours.encode(units)[:, None])
    wanted = theirs(as_torchvision_sees(units))
    assert wanted.std() > 1e-2
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_mlp_head_equals_torchvisions_representation_layer() -> None:
    torch.manual_seed(2)
    theirs = VisionTransformer(
        32, 16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=7, representation_size=24
    ).eval()
    randomise(theirs)
    dims = ViTDims(16, 32, 2, 2, 64, representation_dim=24)
    ours = ViT(dims, Preprocessing(32, 32, "crop", MEAN, STD), 7).eval()
    ours.load_state_dict(from_torchvision(theirs.state_dict()))
    units = torch.randint(0, 256, (3, 1, 32, 32, 3), dtype=torch.uint8)
    torch.testing.assert_close(
        ours.classify(ours.encode(units)[:, None]), theirs(as_torchvision_sees(units)), atol=1e-5, rtol=0
    )
