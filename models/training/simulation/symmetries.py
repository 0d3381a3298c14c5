"""Augment windows by mirroring and time reversal, with the labels and flows that follow.

B windows, T frames in a window, H W C pixels (H = W).
"""

import torch
from torch import Tensor

from tubelet.models.training.simulation.camera_path import LABELS

_PAN, _TILT, _ZOOM, _ROLL = (
    {"pan_left": "pan_right", "pan_right": "pan_left"},
    {"tilt_up": "tilt_down", "tilt_down": "tilt_up"},
    {"zoom_in": "zoom_out", "zoom_out": "zoom_in"},
    {"roll_cw": "roll_ccw", "roll_ccw": "roll_cw"},
)
_DIAGONAL = {"pan_left": "tilt_up", "tilt_up": "pan_left", "pan_right": "tilt_down", "tilt_down": "pan_right"}
# How each mirror changes labels and flow (shift x, shift y, growth, turn).
LEFT_RIGHT = (_PAN | _ROLL, (-1, 1, 1, -1))
UP_DOWN = (_TILT | _ROLL, (1, -1, 1, -1))
DIAGONAL = (_DIAGONAL | _ROLL, (1, 1, 1, -1))  # x and y change places
BACKWARDS = (_PAN | _TILT | _ZOOM | _ROLL, (-1, -1, -1, -1))


def mirrored(clips: Tensor, labels: Tensor, flow: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mirror each window as ``chosen``: left-right, up-down, diagonal, backwards in time, in this order.

    (B, T, H, W, C), (B,), (B, T - 1, 4), (B, 4) bool -> new tensors of the shapes of the first three.
    """
    clips, labels, flow = clips.clone(), labels.clone(), flow.clone()
    for column, (swaps, signs) in enumerate((LEFT_RIGHT, UP_DOWN, DIAGONAL, BACKWARDS)):
        rows = chosen[:, column]
        if not rows.any():
            continue
        order = torch.tensor([LABELS.index(swaps.get(label, label)) for label in LABELS])
        labels[rows] = order[labels[rows]]
        part, moved = clips[rows], flow[rows] * flow.new_tensor(signs)
        match column:
            case 0:
                part = part.flip(3)
            case 1:
                part = part.flip(2)
            case 2:
                part, moved = part.transpose(2, 3), moved[..., [1, 0, 2, 3]]
            case _:
                part, moved = part.flip(1), moved.flip(1)
        clips[rows], flow[rows] = part, moved
    return clips, labels, flow
