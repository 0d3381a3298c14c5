"""Model families of other packages, which offer them under the entry-point group ``tubelet.families``.

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
"""The entry-point group."""


@dataclass(frozen=True, slots=True)
class PluginDims:
    """The ``[dims]`` table of a family that another package offers."""

    family: str
    values: Mapping[str, Any]


def plugin_dims(family: str, table: object) -> PluginDims:
    """Return ``table`` as the dims of ``family``, which an installed package offers.

    Raises:
        ValueError: no package offers the family, or ``table`` is not a table.
    """
    _entry_point(family)
    if not isinstance(table, Mapping):
        raise ValueError(f"dims: Input should be a table; found {table!r:.200}")
    return PluginDims(family, table)


def build_plugin(dims: PluginDims, preprocessing: Preprocessing, num_classes: int) -> VideoModel:
    """Build a model with random weights by the function that its package offers.

    Raises:
        ValueError: the function raised, or did not return a VideoModel; the message names the package.
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
    """Return the entry point of ``family``.

    Raises:
        ValueError: no installed package offers it.
    """
    found = [*entry_points(group=GROUP, name=family)]
    if not found:
        raise ValueError(
            f"family {family!r} is not one of tubelet's, and no installed package offers it "
            f"(entry-point group {GROUP})"
        )
    return found[0]
