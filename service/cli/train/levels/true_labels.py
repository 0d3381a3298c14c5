"""The labels of clips as a tensor: classes, or independent labels.

C clips, K labels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tubelet.service.cli.train.data.clips import Clip


def true_labels(clips: Sequence[Clip], labels: Sequence[str]) -> Tensor:
    """Return the class of each clip, (C,) int64, or whether it has each label, (C, K), in a multi-label list.

    The class is -1 where ``labels`` has none of that name.
    """
    if any(clip.is_multilabel for clip in clips):
        return torch.tensor([[float(label in clip.labels) for label in labels] for clip in clips])
    index_of = {label: index for index, label in enumerate(labels)}
    return torch.tensor([index_of.get(clip.label, -1) for clip in clips], dtype=torch.int64)
