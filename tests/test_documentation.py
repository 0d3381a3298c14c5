"""What README.md and deploy/README.md say of settings, metrics, errors and messages is true."""

import json
import re
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import Parse

from tests.support import deploy_reference
from tubelet.service.config.config import Config
from tubelet.service.config.renamed import RENAMED_FLAGS, RENAMED_KEYS
from tubelet.service.errors import reasons
from tubelet.v1 import video_classifier_pb2 as pb

README = (Path(__file__).parents[1] / "README.md").read_text()
DEPLOY = deploy_reference.PAGE.read_text()
METRICS = {metric.name for metric in deploy_reference.declared_metrics()}


def section(title: str, page: str = README) -> str:
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def keys() -> set[str]:
    return {f"{table}.{key}" for table, content in Config() for key in type(content).model_fields}


@pytest.mark.parametrize("page", [README, DEPLOY], ids=["README.md", "deploy/README.md"])
def test_pages_name_configuration_keys_that_exist(page: str) -> None:
    text = page.split("\n## Renamed before 1.0\n")[0]
    named = set(re.findall(r"`((?:server|upload|fetch|decode|engine|models)\.[a-z_]+)`", text))
    assert len(named) > 8
    assert named - keys() == set()


def test_generated_tables_are_up_to_date() -> None:
    fresh = deploy_reference.rewritten(DEPLOY)
    assert fresh == DEPLOY, f"run: {deploy_reference.COMMAND}"


def test_deploy_page_names_metrics_that_exist() -> None:
    text = DEPLOY.split("\n## Renamed before 1.0\n")[0]
    named = set(re.findall(r"`(tubelet_\w+)`", text))
    assert named == METRICS


def test_old_names_are_listed_with_their_new_ones() -> None:
    rows = re.findall(r"^\| (\w+) \| `(.+?)` \| `(.+?)` \|$", section("Renamed before 1.0", DEPLOY), re.M)
    assert {old: new for kind, old, new in rows if kind == "key"} == RENAMED_KEYS
    assert {old: new for kind, old, new in rows if kind == "flag"} == RENAMED_FLAGS
    assert set(RENAMED_KEYS.values()) <= keys()
    assert set(RENAMED_KEYS).isdisjoint(keys())
    for kind, known in (("metric", METRICS), ("cause", set(deploy_reference.LABEL_VALUES["cause"]))):
        old, new = ({row[place] for row in rows if row[0] == kind} for place in (1, 2))
        assert new <= known
        assert old.isdisjoint(known)
    written = set(re.findall(r"`([A-Z_]+)`", README))
    reasons_before, reasons_now = ({row[place] for row in rows if row[0] == "reason"} for place in (1, 2))
    assert reasons_now <= written
    assert reasons_before.isdisjoint(written)


def test_reasons_are_all_named_and_exist() -> None:
    table = section("gRPC").split("| code | reasons |")[1]
    said = set(re.findall(r"`([A-Z_]+)`", table))
    codes = {code.name for code in grpc.StatusCode} - {"INTERNAL"}  # which is the name of a reason too
    assert said - codes == reasons() - codes


@pytest.mark.parametrize("message", re.findall(r"-d '(\{.*?\})'|echo '(\{.*?\})'", README))
def test_messages_for_grpcurl_parse(message: tuple[str, str]) -> None:
    text = "".join(message)
    kind = pb.ClassifyRequest if "options" in text else pb.GetModelRequest
    assert Parse(text, kind()) != kind()


def test_the_example_of_json_output_is_json() -> None:
    example = README.split("```json\n")[1].split("```")[0]
    assert set(json.loads(example)) == {
        "video",
        "activation",
        "fetched_bytes",
        "model",
        "version",
        "duration_s",
        "max_frame_offset_s",
        "labels",
        "segments",
        "warnings",
    }
