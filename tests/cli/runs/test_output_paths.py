"""Names of files that a command writes for its videos."""

from tubelet.service.cli.runs.output_paths import file_name


def test_a_name_leaves_room_for_what_stands_around_it() -> None:
    assert file_name("clips/a b.mp4") == "a_b"
    assert len(file_name("x" * 150 + ".mp4")) == 100
    kanji = file_name("\u6620" * 83 + ".mp4")  # 253 bytes, a file may have 255
    assert kanji == "\u6620" * 66
