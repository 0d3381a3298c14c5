"""Uploads that refer to other files or addresses: none is opened, and the client gets INVALID_ARGUMENT.

The files exist and would decode, in a folder where the kernel reports each opened file; at the address, a
server listens. Each upload is decoded by a worker, and by the worker's own code outside of the sandbox.
"""

import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import av
import grpc
import pytest
import pytest_asyncio

from tests.support.file_access_monitor import FileAccessMonitor
from tests.support.mp4_boxes import box, boxes, edit_boxes
from tests.support.videos import decode_file, render
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.demux.container import open_container
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.protocol import VideoRejected
from tubelet.service.errors import ClientError, CorruptVideo, NotAVideo, UnsupportedVideo

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the files that uploads refer to: a video in three containers, and a sequence of images."""
    folder = tmp_path_factory.mktemp("targets")
    render(folder / "clip.ts", 30)
    render(folder / "clip.mp4", 30)
    render(folder / "init.mp4", 30, options={"movflags": "frag_keyframe+empty_moov"})
    for number in range(3):
        render(folder / f"image{number}.png", 1, codec="png", pix_fmt="rgb24")
    return folder


@pytest.fixture(scope="module")
def monitor(targets: Path) -> Iterator[FileAccessMonitor]:
    with closing(FileAccessMonitor(targets)) as monitor:
        yield monitor


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


_HLS = (
    "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:10\n{more}#EXTINF:3,\n{base}/clip.ts\n#EXT-X-ENDLIST\n"
)
_DASH = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT3S"
 profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">
<Representation id="1" bandwidth="1000" codecs="avc1.42c01e" width="128" height="64">
<BaseURL>{base}/init.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>
"""
_TEXTS = {
    "hls": _HLS.replace("{more}", ""),
    "hls, key": _HLS.replace("{more}", '#EXT-X-KEY:METHOD=AES-128,URI="{base}/clip.ts"\n'),
    "hls, map": _HLS.replace("{more}", '#EXT-X-MAP:URI="{base}/init.mp4"\n'),
    "hls, master": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n{base}/clip.ts\n",
    "hls, behind a protocol": "#EXTM3U\n#EXTINF:3,\nconcat:{base}/clip.ts|{base}/clip.ts\n#EXT-X-ENDLIST\n",
    "m3u": "#EXTM3U\n{base}/clip.ts\n",
    "dash": _DASH,
    "ffconcat": "ffconcat version 1.0\nfile '{base}/clip.mp4'\n",
    "concat": "file '{base}/clip.mp4'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\na=control:{base}/clip.ts\n",
    "image sequence": "{base}/image%d.png",
    "link": "{base}/clip.mp4\n",
    "smil": '<smil><body><video src="{base}/clip.mp4"/></body></smil>',
    "asx": '<asx version="3.0"><entry><ref href="{base}/clip.mp4"/></entry></asx>',
    "pls": "[playlist]\nNumberOfEntries=1\nFile1={base}/clip.mp4\n",
    "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
    "<Id>urn:uuid:00000000-0000-0000-0000-000000000000</Id></CompositionPlaylist>{base}/clip.mp4",
}


def _text(text: str) -> Callable[[Path, str, int], bytes]:
    return lambda folder, base, port: text.format(base=base, port=port).encode()


def _image(folder: Path, base: str, port: int) -> bytes:
    return (folder / "image0.png").read_bytes()


def _external(entry: Callable[[str], bytes]) -> Callable[[Path, str, int], bytes]:
    """Return a maker of a mov with an index, but with its samples in another file, which ``entry`` names."""

    def make(folder: Path, base: str, port: int) -> bytes:
        data = edit_boxes(
            (folder / "clip.mp4").read_bytes(),
            "moov/trak/mdia/minf/dinf/dref",
            lambda _: box(b"dref", struct.pack(">II", 0, 1) + entry(f"{base}/clip.mp4")),
        )
        return b"".join(box(name, body) for name, body in boxes(data) if name != b"mdat")

    return make


def _url(target: str) -> bytes:
    return box(b"url ", struct.pack(">I", 0) + target.encode() + b"\0")


def _alias(target: str) -> bytes:
    """Return a Macintosh alias record: an absolute path after fields that name volume and file."""
    path = target.encode().rjust(len(target) + len(target) % 2, b"/")  # of even length
    record = (
        bytes(10) + b"\x04disk".ljust(28, b"\0") + bytes(12) + b"\x08clip.mp4".ljust(64, b"\0") + bytes(16)
    )
    record += bytes(20) + struct.pack(">HH", 2, len(path)) + path + struct.pack(">HH", 0xFFFF, 0)
    return box(b"alis", struct.pack(">I", 0) + record)


_UPLOADS = {
    **{name: _text(text) for name, text in _TEXTS.items()},
    "image": _image,
    "mov, url": _external(_url),
    "mov, alias": _external(_alias),
}


@pytest.mark.parametrize("scheme", ["file", "http"])
@pytest.mark.parametrize("name", _UPLOADS)
async def test_references_in_an_upload_are_never_opened(
    name: str,
    scheme: str,
    targets: Path,
    monitor: FileAccessMonitor,
    listener: socket.socket,
    pool: DecodePool,
    tmp_path: Path,
) -> None:
    port = listener.getsockname()[1]
    base = str(targets) if scheme == "file" else f"http://127.0.0.1:{port}"
    upload = tmp_path / "upload"
    upload.write_bytes(_UPLOADS[name](targets, base, port))
    monitor.pop_opened()  # forget the accesses of this test
    with pytest.raises(ClientError) as caught:
        async with pool.session() as session:
            await decode_file(session, upload)
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(caught.value, NotAVideo | UnsupportedVideo | CorruptVideo)
    _demux_without_sandbox(upload)
    assert monitor.pop_opened() == set()
    assert not _has_connected(listener)


def _demux_without_sandbox(path: Path) -> None:
    """Read all packets without a sandbox, so that only the options given to FFmpeg protect."""
    fd = os.open(path, os.O_RDONLY)
    try:
        with open_container(ByteSource(fd)) as container:
            for _ in container.demux():
                pass
    except VideoRejected:
        pass
    finally:
        os.close(fd)


def _has_connected(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


async def test_opened_files_and_connections_are_detected(
    targets: Path, monitor: FileAccessMonitor, listener: socket.socket
) -> None:
    monitor.pop_opened()
    (targets / "clip.ts").read_bytes()
    assert monitor.pop_opened() == {"clip.ts"}
    with socket.create_connection(listener.getsockname()):
        assert _has_connected(listener)


@pytest.mark.parametrize(
    ("name", "ending", "opened"),
    [("hls", "m3u8", "clip.ts"), ("ffconcat", "ffconcat", "clip.mp4"), ("mov, alias", "mov", "clip.mp4")],
)
async def test_ffmpeg_opens_the_references_by_default(
    name: str, ending: str, opened: str, targets: Path, monitor: FileAccessMonitor, tmp_path: Path
) -> None:
    """Without our restrictions, FFmpeg follows the references: the test above could fail."""
    upload = tmp_path / f"upload.{ending}"
    upload.write_bytes(_UPLOADS[name](targets, str(targets), 0))
    monitor.pop_opened()
    permissive = {"safe": "0", "enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(upload), options=permissive) as container:
        assert len(list(container.demux())) > 30
    assert monitor.pop_opened() == {opened}
