"""Pictures of lines: where marks are, that they are valid XML, and that names cannot break them."""

from xml.etree import ElementTree

import pytest

from tubelet.service.report.line_picture import Line, LinePicture, Mark, draw_lines

SVG = "{http://www.w3.org/2000/svg}"


def picture(*lines: Line) -> ElementTree.Element:
    """Return a picture's parsed document."""
    return ElementTree.fromstring(draw_lines(LinePicture("Title", "x", "y", lines, chance=0.1)))


def line(name: str, *values: tuple[float, float]) -> Line:
    return Line(name, tuple(Mark(x, y, y - 0.05, y + 0.05) for x, y in values))


def points(root: ElementTree.Element) -> list[tuple[float, float]]:
    """Return the corners of the first line."""
    text = root.findall(f".//{SVG}polyline")[0].attrib["points"]
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]


def test_equal_ratios_are_equal_distances_and_more_is_higher() -> None:
    (x1, y1), (x2, y2), (x3, y3) = points(picture(line("a", (10, 0.2), (100, 0.4), (1000, 0.8))))
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11)
    assert y1 - y2 == pytest.approx((y2 - y3) / 2, abs=0.2)
    assert y1 > y2


def test_whiskers_reach_from_low_to_high() -> None:
    root = picture(line("a", (10, 0.5)))
    (whisker,) = (each for each in root.iter(f"{SVG}line") if each.attrib["class"] == "whisker")
    grid = [float(each.attrib["y1"]) for each in root.iter(f"{SVG}line") if each.attrib["class"] == "grid"]
    unit = max(grid) - min(grid)
    assert float(whisker.attrib["y1"]) - float(whisker.attrib["y2"]) == pytest.approx(0.1 * unit, abs=0.2)


def test_names_are_text_whatever_they_hold() -> None:
    root = picture(line("</svg><script>alert(1)</script>", (10, 0.5)))
    assert not list(root.iter(f"{SVG}script"))
    assert any("</svg>" in (each.text or "") for each in root.iter(f"{SVG}text"))


def test_a_dark_page_has_colours_of_its_own() -> None:
    drawn = draw_lines(LinePicture("Title", "x", "y", (line("a", (10, 0.5)),), chance=0.1))
    assert "@media (prefers-color-scheme: dark)" in drawn
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("mark", [(0, 0.5, 0.4, 0.6), (1, 0.5, 0.6, 0.7), (1, 1.1, 0.9, 1.2)])
def test_impossible_marks_are_refused(mark: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="found Mark"):
        Mark(*mark)


def test_more_than_four_lines_are_refused() -> None:
    with pytest.raises(ValueError, match="found 5"):
        LinePicture("Title", "x", "y", tuple(line(str(n), (1, 0.5)) for n in range(5)), chance=0.1)
