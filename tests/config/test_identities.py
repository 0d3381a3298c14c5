"""The file of identities: what it may hold, and what is said of one that is wrong."""

from pathlib import Path

import pytest

from tests.support.identities import TABLES, TOKENS, hash_of
from tubelet.service.config.config import load_config
from tubelet.service.config.identities import Identities, Rpc, parse_identities
from tubelet.service.config.problems import BadConfig
from tubelet.service.config.quotas import MOST, QuotasConfig
from tubelet.service.types.request import Priority
from tubelet.service.types.uri import parse_uri
from tubelet.v1 import video_classifier_pb2 as pb

PATH = Path("identities.toml")
HASH = hash_of("secret")
OTHER = hash_of("other")


def parsed(text: str) -> Identities:
    return parse_identities(text.encode(), PATH)


def problem(content: str | bytes) -> str:
    """What is said of a file with this content."""
    with pytest.raises(BadConfig) as caught:
        parse_identities(content.encode() if isinstance(content, str) else content, PATH)
    return str(caught.value)


def test_a_token_leads_to_its_identity() -> None:
    known = parsed(f'[a]\ntoken_sha256 = ["{HASH}", "{OTHER}"]\n[b]\n')
    for token, name in (("secret", "a"), ("other", "a")):
        found = known.of_token(token)
        assert found is not None
        assert found.name == name
    for unknown in ("", "secre", "secret ", "SECRET", HASH, "x" * 1_000_000):
        assert known.of_token(unknown) is None


def test_a_certificate_leads_to_the_identity_of_its_name() -> None:
    known = parsed('[b]\n["spiffe://cluster/ns/x"]\nmodels = []\n')
    found = known.of_name("spiffe://cluster/ns/x")
    assert found is not None
    assert not found.may_use("vit")
    assert known.of_name("a") is None


@pytest.mark.parametrize(
    ("models", "allowed", "refused"),
    [
        ('models = "all"', [("vit", "1"), ("vit", ""), ("mvit", "2")], []),
        ("", [], [("vit", "1"), ("vit", "")]),
        ("models = []", [], [("vit", "1"), ("vit", "")]),
        ('models = ["vit"]', [("vit", "1"), ("vit", "2"), ("vit", "")], [("mvit", "1"), ("vi", "")]),
        ('models = ["vit:2"]', [("vit", "2"), ("vit", "")], [("vit", "1"), ("mvit", "2")]),
    ],
)
def test_models(models: str, allowed: list[tuple[str, str]], refused: list[tuple[str, str]]) -> None:
    identity = parsed(f"[a]\n{models}").by_name["a"]
    assert all(identity.may_use(*model) for model in allowed)
    assert not any(identity.may_use(*model) for model in refused)


@pytest.mark.parametrize(
    ("uris", "uri", "may"),
    [
        ('uris = "all"', "s3://any/thing", True),
        ("", "s3://any/thing", False),
        ("uris = []", "s3://any/thing", False),
        ('uris = ["s3://clips/alice/"]', "s3://clips/alice/a.mp4", True),
        ('uris = ["s3://clips/alice/"]', "s3://clips/alicent/a.mp4", False),
        ('uris = ["s3://clips/alice/"]', "https://clips/alice/a.mp4", False),
    ],
)
def test_uris(uris: str, uri: str, may: bool) -> None:
    assert parsed(f"[a]\n{uris}").by_name["a"].may_fetch(parse_uri(uri)) is may


def test_the_tables_of_the_page_are_right() -> None:
    page = (Path(__file__).parents[2] / "deploy" / "README.md").read_text()
    who, quotas = (page.split(f"\n## {title}\n")[1].split("\n## ")[0] for title in ("Who may call", "Quotas"))
    assert {"alice", "reports.example.com", "prometheus"} == parsed(tables_in(who)).by_name.keys()
    shown = parsed(tables_in(quotas)).by_name["alice"].quotas
    assert shown is not None
    assert all(getattr(shown, key) is not None for key in QuotasConfig.model_fields)
    assert all(f"\n| `{key}` |" in quotas for key in QuotasConfig.model_fields)


def tables_in(chapter: str) -> str:
    """The tables of identities that a chapter of the page shows: its code from ``[alice]`` on."""
    code = [line[4:] for line in chapter.splitlines() if line.startswith("    ")]
    start = code.index("[alice]")
    keys = ("[", "models", "rpcs", "uris", "metrics", "token_sha256", *QuotasConfig.model_fields)
    return "\n".join(line for line in code[start:] if line.startswith(keys))


def test_rpcs_are_those_of_the_protocol() -> None:
    methods = pb.DESCRIPTOR.services_by_name["VideoClassifier"].methods_by_name
    assert set(Rpc.__args__) == set(methods)
    identity = parsed('[a]\nrpcs = ["Classify"]').by_name["a"]
    assert {method for method in methods if identity.may_call(method)} == {"Classify"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no identity; `tubelet token new NAME --file identities.toml` adds one"),
        ("# nobody\n", "holds no identity"),
        (b"\xff\xfe[a]", "not UTF-8 text"),
        ("[a]\n[b", "is not TOML, or only a part of it"),
        (f'[a]\ntoken_sha256 = ["{HASH[:20]}', "is not TOML, or only a part of it"),
        ("[a]\n[a]\n", "is not TOML, or only a part of it: at line 2, column 3"),
        (
            f'[a]\ntoken_sha256 = ["{HASH}"]\n[b]\ntoken_sha256 = ["{HASH}"]\n',
            "[a] and [b] have the same hash",
        ),
        (f'[a]\ntoken_sha256 = ["{HASH}", "{HASH}"]\n', "[a] and [a] have the same hash of a token"),
        ('[a]\ntoken_sha256 = ["SECRET"]', "[a] token_sha256 must be a list of hashes"),
        (f'[a]\ntoken_sha256 = ["{HASH.upper()}"]', "[a] token_sha256 must be a list of hashes"),
        (f'[a]\ntoken_sha256 = "{HASH}"', "[a] token_sha256 must be a list of hashes"),
        ("[a]\ntoken = 'SECRET'", "[a] token: no such key"),
        ("[a]\nmodles = []", "[a] modles: no such key (closest: models)"),
        ("[a]\nmodels = ['a:b:c']", '[a] models must be "all", or a list of NAME and NAME:VERSION'),
        ("[a]\nmodels = 'vit'", '[a] models must be "all", or'),
        ("[a]\nmodels = ['']", '[a] models must be "all", or a list of NAME and NAME:VERSION'),
        (
            "[a]\nrpcs = ['classify']",
            '[a] rpcs must be "all", or a list of some of Classify, ClassifyStreaming',
        ),
        ("[a]\nuris = ['clips']", '[a] uris must be "all", or a list of prefixes of URIs'),
        ("[a]\nmetrics = 'SECRET'", "[a] metrics must be true or false"),
        (
            "[a]\nvideos_in_flight = -1",
            f"[a] videos_in_flight must be a whole number, at least 0 and at most {MOST}",
        ),
        ("[a]\nvideos_per_minute = 'SECRET'", "[a] videos_per_minute must be a whole number"),
        ("[a]\nvideos_per_minute = '60'", "[a] videos_per_minute must be a whole number"),
        ("[a]\nvideos_per_minute = true", "[a] videos_per_minute must be a whole number"),
        ("[a]\nbytes_per_day = 1e9", "[a] bytes_per_day must be a whole number"),
        ("[a]\nbytes_per_day = inf", "[a] bytes_per_day must be a whole number"),
        (f"[a]\nbytes_per_day = {10**16}", "[a] bytes_per_day must be a whole number"),
        (f"[a]\nbytes_per_day = {10**400}", "[a] bytes_per_day must be a whole number"),
        ("[a]\ndevice_seconds_per_hour = [1]", "[a] device_seconds_per_hour must be a whole number"),
        ("[a]\nvideos_per_hour = 1", "[a] videos_per_hour: no such key (closest: videos_per_minute)"),
        ("[a]\nhighest_priority = 'SECRET'", '[a] highest_priority must be one of "low", "normal", "high"'),
        ("[a]\nhighest_priority = 2", '[a] highest_priority must be one of "low", "normal", "high"'),
        ("a = 'SECRET'", "'a' must be a table"),
        ('["a b"]', "a name of an identity has 1 to 200 visible ASCII characters"),
        ('["a\\nb"]', "a name of an identity has 1 to 200 visible ASCII characters"),
        ('[""]', "a name of an identity has 1 to 200 visible ASCII characters"),
        (b"#" * (17 << 20), "the limit is 16777216"),
    ],
)
def test_a_wrong_file_is_described_without_its_values(content: str | bytes, said: str) -> None:
    found = problem(content)
    assert said in found
    assert "SECRET" not in found
    assert HASH[:20] not in found


def test_quotas_are_those_of_the_table_then_the_defaults() -> None:
    text = "[a]\nvideos_per_minute = 0\nbytes_per_day = 7\nhighest_priority = 'low'\n[b]\n"
    defaults = QuotasConfig(videos_per_minute=5, videos_in_flight=3, highest_priority=Priority.HIGH)
    known = parse_identities(text.encode(), PATH, defaults).by_name
    assert known["a"].quotas == QuotasConfig(
        videos_in_flight=3, videos_per_minute=0, bytes_per_day=7, highest_priority=Priority.LOW
    )
    assert known["b"].quotas == defaults
    assert parsed("[a]\nrpcs = 'all'").by_name["a"].quotas is None


def test_a_half_written_file_allows_nothing_more() -> None:
    text = TABLES.format(**{name: hash_of(token) for name, token in TOKENS.items()})
    whole, read = parsed(text), 0
    for cut in range(1, len(text)):
        try:
            part = parsed(text[:cut])
        except BadConfig:
            continue
        read += 1
        for name, identity in part.by_name.items():
            for key, value in identity.allowed:
                assert value in ((), False, None) or value == getattr(whole.by_name[name].allowed, key), (
                    cut,
                    name,
                )
    assert read > 10


def test_the_settings_need_each_other() -> None:
    with pytest.raises(BadConfig, match=r"metrics_token needs server\.access\.identities"):
        load_config(server={"access": {"metrics_token": True}})
    with pytest.raises(BadConfig, match=r"quotas need server\.access\.identities"):
        load_config(server={"access": {"quotas": {"videos_per_minute": 1}}})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("videos_per_minute", -1, "Input should be greater than or equal to 0; found -1"),
        ("bytes_per_day", 10**16, f"Input should be less than or equal to {MOST}"),
        ("bytes_per_day", 1.5, "Input should be a valid integer"),
        ("highest_priority", "urgent", "Input should be 'low', 'normal' or 'high'; found 'urgent'"),
        ("videos_per_hour", 1, "no such key (closest: server.access.quotas.videos_per_minute)"),
    ],
)
def test_wrong_default_quotas_are_described(key: str, value: object, said: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load_config(server={"access": {"identities": "identities.toml", "quotas": {key: value}}})
    assert f"server.access.quotas.{key}: {said}" in str(caught.value)
