"""Parsing of URIs, which has one result only, and of prefixes that cover them."""

import pytest

from tubelet.service.types.uri import is_uri, parse_prefix, parse_uri


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://Good.Example/a.mp4", "https://good.example/a.mp4"),
        ("HTTPS://good.example:443/a.mp4", "https://good.example/a.mp4"),
        ("https://good.example./a.mp4", "https://good.example/a.mp4"),
        ("http://good.example:8080", "http://good.example:8080/"),
        ("https://good.example/A b/ä.mp4?x=/../y&z", "https://good.example/A%20b/%C3%A4.mp4?x=/../y&z"),
        ("https://[2001:DB8::1]:8443/a", "https://[2001:db8::1]:8443/a"),
        ("s3://My_Bucket/a%20b/c%3F.mp4", "s3://My_Bucket/a%20b/c%3F.mp4"),
        ("gs://bucket/a//b.mp4", "gs://bucket/a//b.mp4"),
        ("file:///srv/a.mp4", "file:///srv/a.mp4"),
        ("file://localhost/srv/a..mp4", "file:///srv/a..mp4"),
    ],
)
def test_uris_are_normalised(text: str, url: str) -> None:
    assert parse_uri(text).url == url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("clip.mp4", "must start with one of"),
        ("ftp://good.example/a", "must start with one of"),
        ("https:/good.example/a", "must start with one of"),
        ("https://good.example/a#t=1", "no #"),
        ("https://user:secret@good.example/a", "user name or password"),
        ("https://good.example@evil.example/a", "user name or password"),
        ("https:///a", "needs a host"),
        ("https://good.example\\@evil.example/a", "user name or password"),
        ("https://good.example\\.evil.example/a", "needs a host"),
        ("https://good example/a", "needs a host"),
        ("https://gооd.example/a", "needs a host"),  # two of its letters are Cyrillic
        ("https://good.example%2eevil/a", "needs a host"),
        ("https://good.example:port/a", "port of the URI"),
        ("https://good.example:0/a", "port of the URI"),
        ("https://good.example:65536/a", "port of the URI"),
        ("https://good.example:²/a", "port of the URI"),
        ("https://[::1]evil.example/a", "colon between"),
        ("https://good.example/a/../b", "contains ., .. or a zero byte"),
        ("https://good.example/a/%2e%2E/b", "contains ., .. or a zero byte"),
        ("https://good.example/a/%252e%252e/b", "contains ., .. or a zero byte"),
        ("https://good.example/a/..%2fb", "contains ., .. or a zero byte"),
        ("https://good.example/a/..%5cb", "contains ., .. or a zero byte"),
        ("https://good.example/a/..;x=1/b", "contains ., .. or a zero byte"),
        ("https://good.example/./a", "contains ., .. or a zero byte"),
        ("https://good.example/a\\..\\b", "a backslash"),
        ("https://good.example/a\nb", "a control character"),
        ("https://good.example/a?b\r\nHost: evil", "a control character"),
        ("https://good.example/100%", "two hex digits"),
        ("file:///srv/%00.mp4", "contains ., .. or a zero byte"),
        ("file://other.machine/srv/a.mp4", "must not name a host"),
        ("file://", "needs a path"),
        ("file:///srv/a.mp4?x", "must not have a query"),
        ("s3://bucket:9000/a", "must not have a port"),
        ("s3://arn:aws:s3:eu-west-1:1:accesspoint/a", "must not have a port"),
        ("s3://bucket/a?versionId=3", "must not have a query"),
        ("https://good.example/" + "a" * 9000, "the limit is 8192"),
    ],
)
def test_refused_uris_say_why(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace(".", r"\.")):
        parse_uri(text)


@pytest.mark.parametrize(
    ("prefix", "covered", "not_covered"),
    [
        (
            "https://good.example",
            ["https://good.example/", "https://GOOD.example./a/b.mp4?q=1", "https://good.example:443/a"],
            [
                "https://good.example.evil/a",
                "https://evil.example/good.example",
                "https://sub.good.example/a",
                "https://good.example:8443/a",
                "http://good.example/a",
                "http://good.example:443/a",
            ],
        ),
        (
            "https://good.example:8443/videos/",
            ["https://good.example:8443/videos/a.mp4", "https://good.example:8443/videos"],
            [
                "https://good.example/videos/a.mp4",
                "https://good.example:8443/videos-of-others/a.mp4",
                "https://good.example:8443/Videos/a.mp4",
                "https://good.example:8443/v%69deos/a.mp4",
                "https://good.example:8443/videos%2fa.mp4",
            ],
        ),
        ("https://good.example/a.mp4", ["https://good.example/a.mp4"], ["https://good.example/a.mp4x"]),
        ("https://good.example/my clips", ["https://good.example/my%20clips/1"], []),
        (
            "https://",
            ["https://any.example/a", "https://10.0.0.1/a"],
            ["https://any.example:22/a", "http://any.example/a", "s3://any.example/a"],
        ),
        ("s3://bucket", ["s3://bucket/a"], ["s3://bucket2/a", "s3://BUCKET/a", "gs://bucket/a"]),
        ("gs://bucket/train/", ["gs://bucket/train/a"], ["gs://bucket/training/a"]),
        ("file:///srv/videos", ["file:///srv/videos/a"], ["file:///srv/videos2/a", "file:///srv/"]),
        ("file:///", ["file:///etc/passwd"], []),
    ],
)
def test_prefixes_cover_whole_path_segments(prefix: str, covered: list[str], not_covered: list[str]) -> None:
    parsed = parse_prefix(prefix)
    assert [uri for uri in covered if not parsed.covers(parse_uri(uri))] == []
    assert [uri for uri in not_covered if parsed.covers(parse_uri(uri))] == []


@pytest.mark.parametrize("prefix", ["good.example", "https://good.example/?a", "https://a@b/", "file://"])
def test_invalid_prefixes_are_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"URI|prefix"):
        parse_prefix(prefix)


def test_logs_leave_out_the_signature() -> None:
    uri = parse_uri("https://good.example/a.mp4?X-Amz-Signature=secret")
    assert str(uri) == "https://good.example/a.mp4"
    assert uri.url.endswith("?X-Amz-Signature=secret")


@pytest.mark.parametrize(
    ("video", "is_one"),
    [
        ("https://a/b", True),
        ("S3://a/b", True),
        ("ftp://a/b", True),
        ("clip.mp4", False),
        ("/a/https://b", False),
        ("https", False),
    ],
)
def test_paths_are_not_taken_for_uris(video: str, is_one: bool) -> None:
    assert is_uri(video) == is_one
