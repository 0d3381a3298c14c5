"""The model that gradient descent starts from: the base's weights, and a head fitted to embeddings.

W windows of a clip, S units in a window, D width of a unit's embedding, E width of a window's vector.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tubelet.models.families.framewise import Framewise
from tubelet.models.families.registry import Dims
from tubelet.models.training.probe_fit import ProbeData, choose
from tubelet.models.training.probes import fit_linear
from tubelet.models.training.start import build_from, head_parameters, set_principal_
from tubelet.models.video_model import VideoModel
from tubelet.service.cli.train.base import Untrained
from tubelet.service.cli.train.data.division import FOLDS
from tubelet.service.cli.train.data.scene_clusters import scene_folds
from tubelet.service.cli.train.levels.true_labels import true_labels
from tubelet.service.cli.train.levels.tuning import SEED
from tubelet.service.cli.train.prepare import Prepared

_MOST_UNITS = 20_000  # of which principal components are computed


@torch.no_grad()
def start_model(
    prepared: Prepared, dims: Dims, windows: Mapping[int, Tensor], labels: Sequence[str]
) -> VideoModel:
    """Return a model of ``dims`` that starts as a linear probe on the base, as far as its family allows.

    ``windows`` are the embeddings (W, S, D) of each training clip by its number.
    """
    base = prepared.base
    assert not isinstance(base, Untrained)
    torch.manual_seed(SEED)
    state = base.load().state_dict()
    model = build_from(dims, base.dims, state, base.spec.preprocessing, len(labels)).eval()
    embeddings = torch.cat(list(windows.values()))
    is_new = isinstance(model, Framewise) and not any(name.startswith("adapter.") for name in state)
    if is_new and isinstance(model.adapter, nn.Linear):
        units = embeddings.flatten(0, 1)
        set_principal_(model.adapter, units[:: -(-len(units) // _MOST_UNITS)])
    _fit_head_(prepared, model, windows, labels)
    return model


def _fit_head_(
    prepared: Prepared,
    model: VideoModel,
    windows: Mapping[int, Tensor],
    labels: Sequence[str],
) -> None:
    """Fit a head of one linear layer to the training clips; other heads stay random."""
    if (parameters := head_parameters(model)) is None:
        return
    numbers, clips = list(windows), prepared.checked.survey.clips
    scenes = prepared.checked.scenes[numbers].tolist()
    chosen = [clips[number] for number in numbers]
    folds = scene_folds(scenes, [clip.labels for clip in chosen], min(FOLDS, len(set(scenes))))
    repeats = torch.tensor([len(windows[number]) for number in numbers])

    def of_windows(values: Sequence[int]) -> Tensor:
        return torch.tensor(values).repeat_interleave(repeats)

    data = ProbeData(
        {"vectors": torch.cat([model.pool(windows[number]) for number in numbers])},
        true_labels(chosen, labels).repeat_interleave(repeats, dim=0),
        of_windows(numbers),
        of_windows(folds.tolist()),
        len(labels),
    )
    with torch.enable_grad():
        decay = choose(data).decay
        layer = fit_linear(data.vectors["vectors"], data.labels, len(labels), decay)
    weight, bias = parameters
    weight.copy_(layer.weight.reshape(weight.shape))
    bias.copy_(layer.bias)
