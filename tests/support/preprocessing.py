"""Preprocessing for tests of the decoder, which ignores mean and std."""

from typing import Any

from tubelet.models.spec import Preprocessing, Resize


def preprocessing(height: int, width: int, resize: Resize, *resized: Any, **filters: Any) -> Preprocessing:
    """Return a preprocessing with some mean and std."""
    return Preprocessing(height, width, resize, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), *resized, **filters)


SMALL = preprocessing(64, 64, "stretch")
