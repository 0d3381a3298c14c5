"""Pages: their policy, their escaping, how they are written."""

import os
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from tubelet.service.cli.pages.answer_pages import IndexRow
from tubelet.service.report.own_files import write_own
from tubelet.service.report.page import render_page
from tubelet.service.report.text import printable

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    '"><img src=x onerror=alert(1)>',
    "a\u202egpj.exe",
    "line\u2028separator\u2029",
    "{{ 7 * 7 }}",
    "x" * 10_000,
]


class _Parsed(HTMLParser):
    """The tags of a page, with their attributes, and the text of each element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open, []).append(data)


def _page(name: str = "clip.mp4") -> str:
    return render_page("index.html", ["table.js"], title=name, rows=[], note="")


def test_the_policy_allows_the_page_s_own_style_and_script_and_nothing_else() -> None:
    page = _page()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    policy = policy.replace("&#39;", "'")
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (script,) = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    assert rules["default-src"] == ["'none'"]
    assert rules["style-src"] == [_source(style)]
    assert rules["script-src"] == [_source(script)]
    assert rules["img-src"] == ["data:"]
    assert rules["media-src"] == ["blob:"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text(name: str) -> None:
    plain, hostile = _Parsed(_page("clip")), _Parsed(_page(name))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert not any(key.startswith("on") for _, attributes in hostile.tags for key in attributes)


@pytest.mark.parametrize("name", HOSTILE)
def test_cut_names_of_an_index_have_them_as_titles(name: str) -> None:
    row = IndexRow(name, folder=name, href="clip.html", label=name)
    page = render_page("index.html", ["table.js"], title="Videos", rows=[row, replace(row, href="")], note="")
    cut = [keys for tag, keys in _Parsed(page).tags if tag == "bdi" and "clip" in (keys.get("class") or "")]
    assert [keys["title"] for keys in cut] == [printable(name[:1000])] * 6


def test_nothing_that_the_policy_refuses_is_in_a_page() -> None:
    for tag, attributes in _Parsed(_page(escape("a & b"))).tags:
        assert "style" not in attributes, tag
        assert not {"src", "href"} & {key for key, value in attributes.items() if "//" in (value or "")}


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render_page("index.html", ["table.js"], title="clip")


def test_a_page_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "pages" / "clip.html"
    write_own(path, _page() + "\ud800")
    before = path.read_text(encoding="utf-8")
    assert before.endswith(r"\ud800")
    path.with_name(f".clip.html.{os.getpid()}.part").mkdir()
    with pytest.raises(OSError, match="part"):
        write_own(path, _page("two"))
    assert path.read_text(encoding="utf-8") == before


def _source(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
