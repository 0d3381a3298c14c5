"""The colours of all pages: contrast as WCAG 2.2 computes it, and a perceptual scale, in both themes."""

import re
from importlib.resources import files
from itertools import pairwise

import pytest

_STYLE = (files("tubelet.service.report") / "style.css").read_text()
_THEMES = {"light": 0, "dark": 1}
_STEPS = 9
_SURFACES = ("page", "surface", "sunken")
_INKS = ("ink", "muted", "accent", "good", "warn", "bad")
_AA_TEXT, _AA_GRAPHICS = 4.5, 3.0


@pytest.fixture(params=_THEMES)
def colours(request: pytest.FixtureRequest) -> dict[str, str]:
    """The colour of each role in a theme; the dark theme changes the light one's."""
    blocks = re.findall(r":root \{(.*?)\}", _STYLE, re.DOTALL)
    assert len(blocks) == len(_THEMES)
    found: dict[str, str] = {}
    for block in blocks[: _THEMES[request.param] + 1]:
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    return found


def test_text_has_the_contrast_of_aa(colours: dict[str, str]) -> None:
    low = {
        (ink, surface): ratio
        for ink in _INKS
        for surface in _SURFACES
        if (ratio := _contrast(colours[ink], colours[surface])) < _AA_TEXT
    }
    assert not low
    assert _contrast(colours["on-accent"], colours["accent"]) >= _AA_TEXT


def test_no_two_rules_have_the_same_selector() -> None:
    rules = re.sub(r"/\*.*?\*/|^@media.*?^\}", "", _STYLE, flags=re.DOTALL | re.MULTILINE)
    selectors = [selector.strip() for selector in re.findall(r"([^{}]+)\{[^{}]*\}", rules)]
    assert len(selectors) > 100
    assert sorted(set(selectors)) == sorted(selectors)


@pytest.mark.parametrize("theme", _THEMES)
def test_text_on_every_step_of_the_scale_has_the_contrast_of_aa(theme: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", _STYLE, re.DOTALL)
    roles = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[_THEMES[theme]]))
    inks = dict(re.findall(r"\.scale-(\d) \{ [^}]* color: var\(--ink-on-(\w+)\)", _STYLE))
    if theme == "dark":
        inks |= dict.fromkeys("45", "high")
    assert len(inks) == _STEPS
    low = {
        step: ratio
        for step, ink in inks.items()
        if (ratio := _contrast(roles[f"ink-on-{ink}"], roles[f"scale-{step}"])) < _AA_TEXT
    }
    assert not low


def test_the_scale_has_even_steps_of_lightness(colours: dict[str, str]) -> None:
    lightness = [_oklab_lightness(colours[f"scale-{step}"]) for step in range(_STEPS)]
    steps = [after - before for before, after in pairwise(lightness)]
    assert max(map(abs, steps)) < 1.1 * min(map(abs, steps))
    assert all(step > 0 for step in steps) or all(step < 0 for step in steps)


def test_a_high_score_stands_out_from_the_surface(colours: dict[str, str]) -> None:
    for step in range(5, _STEPS):
        assert _contrast(colours[f"scale-{step}"], colours["surface"]) >= _AA_GRAPHICS


def _linear(colour: str) -> tuple[float, float, float]:
    """Return R, G and B of a colour in linear light, 0..1."""
    values = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return red, green, blue


def _contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2), 1 to 21."""
    low, high = sorted(
        0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in map(_linear, (one, other))
    )
    return (high + 0.05) / (low + 0.05)


def _oklab_lightness(colour: str) -> float:
    """Return the lightness of a colour in Oklab (Ottosson 2020), 0 to 1."""
    red, green, blue = _linear(colour)
    long = 0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue
    medium = 0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue
    short = 0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue
    return 0.2104542553 * long ** (1 / 3) + 0.7936177850 * medium ** (1 / 3) - 0.0040720468 * short ** (1 / 3)
