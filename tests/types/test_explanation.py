"""The options of an explanation: what is no label or no whole number is refused with a sentence."""

from typing import Any

import numpy as np
import pytest

import tubelet
from tubelet.service.types.explanation import ExplainOptions

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"labels": "shake"}, "labels is the string 'shake'; it must be a list or tuple, such as ('shake',)"),
    ({"labels": ("shake", 3)}, "labels holds 3; all must be strings"),
    ({"labels": None}, "labels is None; it must be a list or tuple of strings"),
    ({"layer": 1.5}, "layer is 1.5; it must be a whole number"),
    ({"layer": True}, "layer is True; it must be a whole number"),
    ({"head": "1"}, "head is '1'; it must be a whole number"),
    ({"best": None}, "best is None; it must be a whole number"),
]


@pytest.mark.parametrize(("asked", "sentence"), WRONG)
def test_values_of_a_wrong_type_are_refused(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TypeError) as caught:
        ExplainOptions("attention", **asked)
    assert str(caught.value) == sentence
    with pytest.raises(TypeError) as caught:  # before the video is looked at
        tubelet.explain("no-such-clip.mp4", method="attention", **asked)
    assert str(caught.value) == sentence


def test_whole_numbers_of_numpy_are_taken() -> None:
    layer: Any = np.int64(1)
    assert ExplainOptions("attention", layer=layer).layer == 1
