"""How far the logits of a model are from those that its folder has."""

import math

from tubelet.models.repository.fingerprint import relative_difference


def test_the_largest_difference_is_a_share_of_the_largest_logit() -> None:
    assert relative_difference((1.0, -4.0), (1.0, -5.0)) == 0.2
    assert relative_difference((1.0,), (1.0, 2.0)) == math.inf


def test_a_logit_that_is_no_number_is_never_the_same() -> None:
    assert relative_difference((0.5, math.nan), (0.5, 0.2)) == math.inf
    assert relative_difference((math.nan, 0.2), (0.5, 0.2)) == math.inf
