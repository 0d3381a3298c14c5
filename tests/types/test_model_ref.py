"""NAME and NAME:VERSION, as requests, commands and the configuration write them."""

import pytest

from tubelet.service.types.model_ref import ModelRef


@pytest.mark.parametrize(
    ("text", "version", "name", "pinned"),
    [
        ("", "", "", ""),
        ("vit", "", "vit", ""),
        ("vit", "2", "vit", "2"),
        ("vit:1.10", "", "vit", "1.10"),
        ("vit:1.10", "1.10", "vit", "1.10"),
        ("", "2", "", "2"),
    ],
)
def test_references_are_parsed(text: str, version: str, name: str, pinned: str) -> None:
    reference = ModelRef.parse(text, version)
    assert (reference.name, reference.version) == (name, pinned)


@pytest.mark.parametrize("text", [":", "vit:", ":1", "a:b:c", "hf:org/name:1"])
def test_invalid_references_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"NAME or NAME:VERSION, not '{text}'"):
        ModelRef.parse(text)


@pytest.mark.parametrize("text", ["vit", "vit:1.10"])
def test_reference_is_formatted_as_it_was_parsed(text: str) -> None:
    assert str(ModelRef.parse(text)) == text


def test_two_different_versions_are_refused() -> None:
    with pytest.raises(ValueError, match="the model is 'vit:1', but the version beside it is '2'"):
        ModelRef.parse("vit:1", "2")


@pytest.mark.parametrize(
    ("asked", "default", "meant"),
    [
        ("", "vit:1", "vit:1"),
        ("vit", "vit:1", "vit:1"),
        ("vit:2", "vit:1", "vit:2"),
        ("other", "vit:1", "other"),
        ("vit", "vit", "vit"),
        ("", "vit", "vit"),
    ],
)
def test_default_version_applies_to_requests_for_its_name(asked: str, default: str, meant: str) -> None:
    assert str(ModelRef.parse(asked).or_default(ModelRef.parse(default))) == meant


def test_version_without_a_name_means_the_default_model() -> None:
    assert ModelRef("", "2").or_default(ModelRef("vit", "1")) == ModelRef("vit", "2")
