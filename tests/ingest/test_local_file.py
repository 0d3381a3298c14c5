"""Files of this machine that may be read in place."""

from pathlib import Path

from tubelet.service.ingest.local_file import LocalFiles
from tubelet.service.types.uri import parse_prefix, parse_uri


async def test_a_folder_that_may_be_read_may_have_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"1")
    files = LocalFiles([parse_prefix(folder.as_uri())])
    async with files.open(parse_uri((folder / "a.mp4").as_uri())) as video:
        assert video.size_bytes == 1
