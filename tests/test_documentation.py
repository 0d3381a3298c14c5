"""What the README says of settings, metrics, errors and messages is true."""

import json
import re
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import Parse

from tubelet.service.config.config import Config
from tubelet.service.errors import reasons
from tubelet.service.metrics import Metrics
from tubelet.v1 import video_classifier_pb2 as pb

README = (Path(__file__).parents[1] / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_settings_exist() -> None:
    named = re.findall(r"`(server|upload|fetch|decode|engine|models)\.(\w+)`", section("Configuration"))
    assert len(named) > 8
    stages = dict(Config())
    assert [name for name in named if name[1] not in type(stages[name[0]]).model_fields] == []


def test_metrics_are_all_named_and_exist() -> None:
    said = {name.removesuffix("_total") for name in re.findall(r"`(tubelet_\w+)`", section("Metrics"))}
    metrics = Metrics()
    metrics.watch_decoders(lambda: 0, frozenset, tuple)
    metrics.count_decoder_seconds(lambda: 0.0)
    metrics.watch_queues(dict)
    declared = {family.name for family in metrics.registry.collect() if family.name.startswith("tubelet_")}
    assert said == declared


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
        "frames_off_s",
        "labels",
        "segments",
        "warnings",
    }
