"""Families that other packages offer under the entry-point group ``tubelet.families``.

An entry point's name is the ``family`` of a model.toml; its object builds the model:

    def build(dims: dict[str, Any], preprocessing: Preprocessing, num_classes: int) -> VideoModel

``dims`` is the ``[dims]`` table of the model.toml. https://packaging.python.org/specifications/entry-points/
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import VideoModel

GROUP = "tubelet.families"


@dataclass(frozen=True, slots=True)
class PluginDims:
    """The ``[dims]`` table of a family that another package builds."""

    family: str
    values: Mapping[str, Any]


def plugin_dims(family: str, table: object) -> PluginDims:
    """Return the dims of a family that an installed package offers.

    Raises:
        ValueError: no package offers the family, or the dims are no table.
    """
    _entry_point(family)
    if not isinstance(table, Mapping):
        raise ValueError(f"dims: Input should be a table; found {table!r:.200}")
    return PluginDims(family, table)


def build_plugin(dims: PluginDims, preprocessing: Preprocessing, num_classes: int) -> VideoModel:
    """Let the package of a family build a model with random weights.

    Raises:
        ValueError: the package failed, or built something else; the message names it.
    """
    entry_point = _entry_point(dims.family)
    package = entry_point.dist.name if entry_point.dist else entry_point.value
    try:
        model = entry_point.load()(dict(dims.values), preprocessing, num_classes)
    except Exception as error:  # foreign code may raise anything
        raise ValueError(
            f"package {package} cannot build family {dims.family}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, VideoModel):
        raise ValueError(
            f"package {package} built a {type(model).__name__} for family {dims.family}, not a "
            "tubelet.models.VideoModel"
        )
    return model


def _entry_point(family: str) -> EntryPoint:
    found = [*entry_points(group=GROUP, name=family)]
    if not found:
        raise ValueError(
            f"family {family!r} is not one of tubelet's, and no installed package offers it "
            f"(entry-point group {GROUP})"
        )
    return found[0]
