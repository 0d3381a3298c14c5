"""torchvision's ``VisionTransformer`` checkpoints (vit_b_16 and its siblings) for our ViT."""

import re

from torch import Tensor

# Pattern in torchvision's name -> ours.
RENAMES = (
    # torchvision names the patch projection after its operation, timm after its part.
    (r"^conv_proj\.", "patch_embed.proj."),
    # The class token is the model's there and the encoder's here, since factorised models have two encoders.
    (r"^class_token$", "spatial.cls_token"),
    (r"^encoder\.pos_embedding$", "spatial.pos_embed"),
    (r"^encoder\.ln\.", "spatial.norm."),
    # Blocks are an OrderedDict "encoder_layer_N" there and a plain sequence here.
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"spatial.blocks.\1."),
    (r"\.ln_1\.", ".norm1."),
    (r"\.ln_2\.", ".norm2."),
    # nn.MultiheadAttention keeps q, k and v in one bare parameter; the rows are in our qkv's order.
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    # Checkpoints from before torchvision 0.12 call the two layers linear_1 and linear_2, later ones 0 and 3.
    (r"\.mlp\.(?:linear_1|0)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:linear_2|3)\.", ".mlp.fc2."),
    # A hidden layer makes the head two linear layers.
    (r"^heads\.pre_logits\.", "head.fc1."),
)


def from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict under our names; no value changes."""
    last = "head.fc2." if "heads.pre_logits.weight" in state else "head."
    renamed = {}
    for name, value in state.items():
        ours = re.sub(r"^heads\.head\.", last, name)
        for pattern, replacement in RENAMES:
            ours = re.sub(pattern, replacement, ours)
        renamed[ours] = value
    return renamed
