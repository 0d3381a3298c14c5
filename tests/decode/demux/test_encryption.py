"""Tests that an encrypted video is rejected as encrypted, not as damaged."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.videos import decode_file, probe_file, remux, render
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.protocol import VideoRejected
from tubelet.service.errors import UnsupportedVideo

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

_KEY = ["-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb"]
_KEY += ["-encryption_kid", "a7e61c373e219033c21091fa607bf3b8"]
_TS_PACKET = 188


def _assert_rejected_as_encrypted(path: Path, scheme: str) -> None:
    with pytest.raises(VideoRejected) as refused, probe_file(path):
        pass
    assert refused.value.reason == "UNSUPPORTED_VIDEO"
    assert f"encrypted ({scheme})" in refused.value.message


def _encrypted(path: Path, *options: str) -> Path:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc=r=10:d=1:s=128x96"]
    subprocess.run([*command, *options, *_KEY, str(path)], check=True, stderr=subprocess.DEVNULL)
    return path


@needs_ffmpeg
@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "libvpx-vp9", "libsvtav1"])
def test_encrypted_mp4(tmp_path: Path, codec: str) -> None:
    _assert_rejected_as_encrypted(_encrypted(tmp_path / "clip.mp4", "-c:v", codec), "cenc")


@needs_ffmpeg
def test_encrypted_mp4_with_leading_movie_box(tmp_path: Path) -> None:
    _assert_rejected_as_encrypted(_encrypted(tmp_path / "clip.mp4", "-movflags", "faststart"), "cenc")


@needs_ffmpeg
def test_encrypted_fragmented_mp4(tmp_path: Path) -> None:
    """FFmpeg cannot open the file that ffmpeg 5.1 writes here."""
    _assert_rejected_as_encrypted(
        _encrypted(tmp_path / "clip.mp4", "-movflags", "frag_keyframe+empty_moov"), "cenc"
    )


@needs_ffmpeg
@pytest.mark.parametrize("scheme", ["cbcs", "cens", "cbc1"])
def test_other_mp4_encryption_schemes(tmp_path: Path, scheme: str) -> None:
    path = _encrypted(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes().replace(b"schm\0\0\0\0cenc", b"schm\0\0\0\0" + scheme.encode()))
    _assert_rejected_as_encrypted(path, scheme)


@needs_ffmpeg
async def test_pool_reports_encryption_to_the_client(tmp_path: Path) -> None:
    path = _encrypted(tmp_path / "clip.mp4")
    async with DecodePool(DecodeConfig(workers=1)) as pool, pool.session() as session:
        with pytest.raises(UnsupportedVideo, match="encrypted"):
            await decode_file(session, path)


def test_encrypted_webm(tmp_path: Path) -> None:
    """The track gets ContentEncodings (RFC 9559): one encryption, by AES, with this key ID."""
    clip = remux(render(tmp_path / "clip.mp4", 10), tmp_path / "clip.mkv", {"live": "1"})
    key = _element("47e2", bytes(16))
    encryption = _element("5035", _element("47e1", b"\x05") + key)
    encoding = _element(
        "6240", _element("5031", b"\0") + _element("5032", b"\x01") + _element("5033", b"\x01") + encryption
    )
    encodings = _element("6d80", encoding)
    data = clip.read_bytes()
    cluster = data.index(bytes.fromhex("1f43b675"))
    tracks = data.rindex(bytes.fromhex("1654ae6b"), 0, cluster)  # an index of elements names it too
    body, end = _body(data, tracks + 4)
    entry = data.index(b"\xae", body + (6 if data[body] == 0xBF else 0))  # after a checksum
    start, _ = _body(data, entry + 1)
    added = _element("ae", data[start:end] + encodings)
    clip.write_bytes(data[:tracks] + _element("1654ae6b", added) + data[end:])
    _assert_rejected_as_encrypted(clip, "WebM")


def _element(identifier: str, body: bytes) -> bytes:
    """Return a Matroska element whose size takes eight bytes."""
    return bytes.fromhex(identifier) + b"\x01" + len(body).to_bytes(7) + body


def _body(data: bytes, place: int) -> tuple[int, int]:
    """Return the start and end of an element's body, whose size is at ``place``."""
    length = 9 - data[place].bit_length()
    size = int.from_bytes(data[place : place + length]) & ((1 << 7 * length) - 1)
    return place + length, place + length + size


def test_scrambled_mpeg_ts(tmp_path: Path) -> None:
    path = render(tmp_path / "clip.ts", 50)
    data = bytearray(path.read_bytes())
    for start in range(0, len(data), _TS_PACKET):
        if (data[start + 1] & 0x1F) << 8 | data[start + 2] == 0x100:  # ffmpeg's PID of the first stream
            data[start + 3] |= 0x80
            payload = start + 4 + (1 + data[start + 4] if data[start + 3] & 0x20 else 0)
            data[payload : start + _TS_PACKET] = (byte ^ 0xA5 for byte in data[payload : start + _TS_PACKET])
    path.write_bytes(data)
    _assert_rejected_as_encrypted(path, "MPEG-TS scrambling")


@pytest.mark.parametrize("size", [0, 7, 2**31, 2**32 - 1])
def test_invalid_box_sizes_are_not_reported_as_encryption(tmp_path: Path, size: int) -> None:
    """The search for boxes ends, and reports no encryption if it finds none."""
    path = tmp_path / "clip.mp4"
    head = b"\0\0\0\x10ftypisom\0\0\0\0"
    path.write_bytes(head + size.to_bytes(4) + b"moov" + (size.to_bytes(4) + b"trak") * 1000)
    with pytest.raises(VideoRejected) as refused, probe_file(path):
        pass
    assert refused.value.reason in ("NOT_A_VIDEO", "NO_VIDEO_STREAM")
    assert "encrypted" not in refused.value.message
