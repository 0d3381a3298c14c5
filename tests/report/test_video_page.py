"""The page of one video: what it holds of the answer, and hostile names in it."""

import gzip
import json
import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from tubelet.service.report.video_page import Download, PlayableVideo, least_page_bytes, render_video_page
from tubelet.service.types.result import Classification, Label, Segment
from tubelet.service.types.video import NS_PER_S, Thumbnail, VideoMetadata

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]>--><img src=x onerror=alert(1)>",
    "a\u202egpj.exe",
    "line\u2028separator\u2029",
    "\udce9 a byte that is not UTF-8",
    "{{ 7 * 7 }}{% raw %}",
    "x" * 10_000,
]


def answer(names: tuple[str, str] = ("static", "pan_left"), segments: int = 3) -> Classification:
    """Return an answer whose first label has the scores 0.9, 0.8, ... and the second one the rest."""
    parts = tuple(
        Segment(
            second * NS_PER_S,
            (second + 1) * NS_PER_S,
            (Label(names[0], 0.9 - second % 4 / 10), Label(names[1], 0.1 + second % 4 / 10)),
        )
        for second in range(segments)
    )
    metadata = VideoMetadata("mov,mp4", "h264", 64, 48, 25.0, 75, segments * NS_PER_S or NS_PER_S, 1234)
    thumbnail = Thumbnail(NS_PER_S // 2, 64, 48, b"\xff\xd8 a picture")
    return Classification(
        metadata, "camera-motion", "1.1.0", parts, (Label(names[0], 0.8),), {"total": 0.5}, ("a warning",),
        thumbnails=(thumbnail,), fingerprint="f00d",
    )  # fmt: skip


def page(name: str = "clip.mp4", found: Classification | None = None, **given: Any) -> str:
    values = {"video": None, "notes": [], "downloads": []} | given
    return render_video_page(name, found or answer(), values["video"], values["notes"], values["downloads"])


def embedded(text: str, name: str) -> Any:
    """Return the data of a page, as a script of it reads them."""
    (found,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def test_a_page_holds_the_segments_once_and_their_labels_by_number() -> None:
    data = embedded(page(), "answer")
    assert data["labels"] == ["static", "pan_left"]
    assert data["starts_s"] == [0, 1, 2]
    assert data["ends_s"] == [1, 2, 3]
    assert data["counts"] == [2, 2, 2]
    assert data["ranked"] == [0, 1] * 3
    assert data["scores"] == [0.9, 0.1, 0.8, 0.2, 0.7, 0.3]
    (merged,) = data["merged"]
    assert merged == {
        "start_s": 0, "end_s": 3, "label": 0, "mean": 0.8, "lowest": 0.7, "highest": 0.9, "segments": 3,
    }  # fmt: skip


def test_a_page_states_the_facts_of_the_answer() -> None:
    text = page(notes=["a note"])
    for fact in ("camera-motion 1.1.0", "f00d", "64 × 48", "1,234 bytes", "a warning", "a note", "500 ms"):
        assert fact in text


def test_pictures_video_and_downloads_are_held_byte_for_byte() -> None:
    video = PlayableVideo("video/mp4", bytes(range(256)))
    download = Download("CSV", "clip.csv", "text/csv", "a,b\nü,\u2028\n")
    text = page(video=video, downloads=[download])
    (held,) = re.findall(r'id="video" data-type="video/mp4">(.*?)</script>', text)
    assert b64decode(held) == video.content
    (picture,) = embedded(text, "thumbnails")
    assert b64decode(picture["jpeg"]) == answer().thumbnails[0].jpeg
    (offered,) = embedded(text, "downloads-data")
    assert (offered["name"], offered["type"]) == ("clip.csv", "text/csv")
    assert gzip.decompress(b64decode(offered["gzip"])).decode() == download.text


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_and_labels_add_no_element(name: str) -> None:
    downloads = [Download("JSON", f"{name}.json", "application/json", name)]
    plain = _tags(page(downloads=[Download("JSON", "a.json", "application/json", "a")], notes=["a"]))
    text = page(name, answer((name, "other")), downloads=downloads, notes=[name])
    assert _tags(text) == plain
    assert "\u202e" not in text
    assert len(embedded(text, "answer")["labels"]) == 2


def test_an_answer_without_segments_or_labels_says_so() -> None:
    empty = answer(segments=0)
    text = page(found=Classification(empty.metadata, "m", "1", (), (), {}))
    assert "The answer has no segments" in text
    assert "No label is above the threshold" in text


def test_a_long_label_is_held_once_however_many_segments_have_it() -> None:
    text = page(found=answer(("x" * 10_000, "y"), segments=2000))
    assert len(text) < 250_000


def _tags(text: str) -> list[str]:
    """Return the tags of a page in order."""
    found: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(tag)

    Tags().feed(text)
    return found


@pytest.mark.parametrize("segments", [0, 1, 3000])
def test_no_page_is_smaller_than_the_least_size(segments: int) -> None:
    # The shortest numbers there are: times of one digit, no rest.
    parts = tuple(Segment(0, NS_PER_S, (Label("a", 0.5),) * 3) for _ in range(segments))
    found = replace(answer(), segments=parts)
    least = least_page_bytes(found)
    assert least <= len(render_video_page("clip", found, None, [], [])) - len(
        render_video_page("clip", replace(found, segments=()), None, [], [])
    ) + 2 * len(", ")
    assert least >= 30 * segments
