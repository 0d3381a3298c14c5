"""The ``r2plus1d`` family: a residual network whose 3D convolutions are split into space, then time.

R(2+1)D (Tran et al., arXiv 1711.11248, section 3.5), in any size; a small one trains on a CPU.
N units in a batch, t frames in a unit, H W C pixels, D embedding width, K classes.
"""

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor, nn

from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import AveragingModel

_TIME = 3  # frames that a temporal convolution sees
_SIDE = 3  # pixels along a side that a spatial convolution sees
_STEM_SIDE = 7  # the same of the stem


@dataclass(frozen=True, slots=True)
class R2Plus1DDims:
    """Sizes of an R(2+1)D over ``frames`` frames.

    ``widths`` are the channels of each stage, ``depths`` its residual blocks. ``stem_dim`` are the channels
    between the two convolutions of the stem. Each stage after the first halves time and both sides.
    """

    frames: int
    stem_dim: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths) or not self.widths:
            raise ValueError(
                f"each stage has a width and a depth; found {len(self.widths)} widths and {len(self.depths)} "
                "depths"
            )
        if min(self.frames, self.stem_dim, *self.widths, *self.depths) < 1:
            raise ValueError(f"frames, widths and depths must be positive; found {self}")


class Conv2Plus1D(nn.Module):
    """A convolution of each frame, then one along time: (N, C, t, H, W) -> (N, C', t', H', W')."""

    def __init__(self, width: int, hidden: int, out: int, side: int, strides: tuple[int, int]) -> None:
        super().__init__()
        over_time, over_space = strides
        self.spatial = nn.Conv3d(
            *(width, hidden, (1, side, side), (1, over_space, over_space), (0, side // 2, side // 2)),
            bias=False,
        )
        self.bn = nn.BatchNorm3d(hidden)
        self.temporal = nn.Conv3d(
            *(hidden, out, (_TIME, 1, 1), (over_time, 1, 1), (_TIME // 2, 0, 0)), bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.temporal(self.bn(self.spatial(x)).relu_())


class ResidualBlock(nn.Module):
    """Two split convolutions beside a shortcut: (N, C, t, H, W) -> (N, C', t', H', W')."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        hidden = hidden_dim(width, out)
        self.conv1 = Conv2Plus1D(width, hidden, out, _SIDE, (stride, stride))
        self.bn1 = nn.BatchNorm3d(out)
        self.conv2 = Conv2Plus1D(out, hidden, out, _SIDE, (1, 1))
        self.bn2 = nn.BatchNorm3d(out)
        self.downsample = None
        if stride != 1 or width != out:
            self.downsample = nn.Sequential(nn.Conv3d(width, out, 1, stride, bias=False), nn.BatchNorm3d(out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu_()
        return (self.bn2(self.conv2(x)) + shortcut).relu_()


class R2Plus1D(AveragingModel):
    """An R(2+1)D: a unit is a whole view of the window, the logits of views are averaged."""

    def __init__(self, dims: R2Plus1DDims, preprocessing: Preprocessing, num_classes: int) -> None:
        super().__init__(preprocessing)
        self.stem = Conv2Plus1D(3, dims.stem_dim, dims.widths[0], _STEM_SIDE, (1, 2))
        self.bn = nn.BatchNorm3d(dims.widths[0])
        stages, width = [], dims.widths[0]
        for number, (out, depth) in enumerate(zip(dims.widths, dims.depths, strict=True)):
            first = ResidualBlock(width, out, stride=1 if number == 0 else 2)
            stages.append(nn.Sequential(first, *(ResidualBlock(out, out, 1) for _ in range(depth - 1))))
            width = out
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(width, num_classes)
        self.apply(_initialise)

    def encode(self, units: Tensor) -> Tensor:
        clips = rearrange(self.normalise(units), "n t h w c -> n c t h w")
        return self.stages(self.bn(self.stem(clips)).relu_()).mean(dim=(2, 3, 4))


def hidden_dim(width: int, out: int) -> int:
    """Return the channels between space and time that make a split convolution as large as a whole one."""
    return _TIME * _SIDE**2 * width * out // (_SIDE**2 * width + _TIME * out)


def _initialise(module: nn.Module) -> None:
    """Draw convolutions as He et al. (arXiv 1502.01852) do, and a small head."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
