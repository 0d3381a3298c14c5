"""The maps of a page: what its script gets, and that hostile labels in them are text."""

import re
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest

from tests.report.test_video_page import HOSTILE, answer, embedded, page
from tests.support.segment_maps import segment_map
from tubelet.service.report.maps.heat import GREYNESS, scale_colours
from tubelet.service.report.maps.page_data import METHOD_NOTES, explained
from tubelet.service.report.maps.tracks import MapTrack, difference, map_track
from tubelet.service.report.page import render_page
from tubelet.service.report.text import printable
from tubelet.service.report.video_page import render_video_page
from tubelet.service.types.explanation import EXPLAIN_METHODS, MapQuestion


def track(label: str = "a", question: MapQuestion | None = None, seed: int = 0) -> MapTrack:
    """Return a track of two segments."""
    maps = [segment_map(start, start + 1, steps=4, label=label, seed=seed) for start in (0, 1)]
    return map_track(maps, question or MapQuestion("relevance"))


def mapped(*tracks: MapTrack, name: str = "clip.mp4") -> str:
    """Return a page with tracks."""
    return render_video_page(name, answer(), None, [], [], tracks)


def test_a_page_holds_each_track_with_its_maps() -> None:
    first = track()
    data = embedded(mapped(first, track(question=MapQuestion("rollout"))), "maps")
    assert [each["method"] for each in data["tracks"]] == ["relevance", "rollout"]
    held = data["tracks"][0]
    assert (held["rows"], held["columns"]) == (3, 2)
    assert held["starts_s"] == [0, 0.5, 1, 1.5]
    assert held["ends_s"] == [0.5, 1, 1.5, 2]
    assert held["rectangle"] == [0.25, 0, 0.75, 1]
    assert held["over_time"] == pytest.approx(first.over_time, abs=1e-3)
    assert held["on_no_patch"] == [0.1] * 4
    patches = np.frombuffer(b64decode(held["maps"]), np.uint8).reshape(4, 3, 2)
    shown = patches / 255 * held["most"]
    assert shown == pytest.approx(np.minimum(first.patches, held["most"]), abs=held["most"] / 400)
    colours = np.frombuffer(b64decode(data["colours"]["shares"]), np.uint8).reshape(256, 4)
    assert (colours == scale_colours("shares")).all()


def test_a_page_says_where_maps_are_longer_than_their_segments() -> None:
    whole = map_track([segment_map(0, 2, steps=4)], MapQuestion("relevance"))
    assert "windows are longer than the segments" not in mapped(whole)
    assert "windows are longer than the segments" in mapped(whole, track())


def test_a_difference_names_its_two_sides() -> None:
    tracks = [track(question=MapQuestion("relevance", one, other)) for one, other in (("a", "b"), ("b", "a"))]
    (held,) = embedded(mapped(difference(*tracks)), "maps")["tracks"]
    assert (held["label"], held["sides"], held["scale"]) == ("a or b", ["a", "b"], "difference")
    assert set(b64decode(held["maps"])) == {128}  # both are the same


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (MapQuestion("relevance"), "best label of each segment"),
        (MapQuestion("occlusion", "a"), "a"),
        (MapQuestion("relevance", "a", "b"), "a rather than b"),
        (MapQuestion("rollout"), "any label"),
        (MapQuestion("attention", layer=2, head=1), "any label"),
    ],
)
def test_what_is_explained_is_said_in_words(question: MapQuestion, text: str) -> None:
    assert explained(question) == text


def test_a_page_without_maps_has_none_of_their_parts() -> None:
    text = page()
    for part in ('id="maps"', "map-label", 'id="overlay"', "class MapLayer"):
        assert part not in text
        assert part in mapped(track())


def test_each_method_has_its_sentence() -> None:
    text = mapped(track())
    assert set(METHOD_NOTES) == set(EXPLAIN_METHODS)
    for method in EXPLAIN_METHODS:
        assert f'data-method="{method}"' in text


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_labels_add_no_element(name: str) -> None:
    plain = mapped(track())
    text = mapped(track(name, MapQuestion("relevance", name, name)), name=name)
    assert re.findall(r"<(\w+)", _markup(text)) == re.findall(r"<(\w+)", _markup(plain))
    assert embedded(text, "maps")["tracks"][0]["labels"] == [printable(name)]


def test_pages_and_videos_take_back_as_much_colour() -> None:
    text = render_page("index.html", ["table.js"], title="clip", rows=[], note="")
    assert f"filter: grayscale({GREYNESS})" in text


def test_a_step_without_a_label_has_an_empty_one() -> None:
    found = replace(track(question=MapQuestion("rollout")), labels=("",) * 4)
    (held,) = embedded(mapped(found), "maps")["tracks"]
    assert (held["labels"], held["label_of"]) == ([""], [0] * 4)


def _markup(text: str) -> str:
    """Return a page without its scripts and their data."""
    return re.sub(r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.DOTALL)
