"""The dashboard and the alerts: they name metrics, labels and values that exist, and every alert can fire."""

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from tests.support.deploy_reference import LABEL_VALUES, declared_metrics
from tests.support.reasons import reasons
from tubelet.service.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "alerts.yaml"
DASHBOARD = json.loads((DEPLOY / "dashboard.json").read_text())

# What Prometheus adds to every series of a scrape.
TARGET_LABELS = {"job", "instance"}
VALUES = {label: set(values) for label, values in LABEL_VALUES.items()} | {
    "code": {code.name for code in grpc.StatusCode},
    "reason": reasons(),
}
_HISTOGRAM_SUFFIXES = ("_bucket", "_sum", "_count")
_SELECTOR = re.compile(r"\b((?:tubelet|process)_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


@cache
def series() -> dict[str, set[str]]:
    """The name of every series that a server shows -> its labels."""
    found = {
        metric.name + suffix: {*metric.labels, *(("le",) if suffix == "_bucket" else ())}
        for metric in declared_metrics()
        for suffix in (_HISTOGRAM_SUFFIXES if metric.kind == "histogram" else ("",))
    }
    process = Metrics().registry.collect()
    return found | {family.name: set[str]() for family in process if family.name.startswith("process_")}


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def dashboard_targets() -> list[dict[str, Any]]:
    return [target for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


EXPRESSIONS = [rule["expr"] for rule in alerts()] + [target["expr"] for target in dashboard_targets()]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_name_existing_metrics_labels_and_values(expression: str) -> None:
    selectors = _SELECTOR.findall(expression)
    assert selectors
    known = set(TARGET_LABELS)
    for name, matchers in selectors:
        assert name in series()
        known |= series()[name]
        for label, operator, value in _MATCHER.findall(matchers):
            assert label in series()[name] | TARGET_LABELS
            if label in VALUES:
                wanted = value.split("|") if operator in ("=~", "!~") else [value]
                assert set(wanted) <= VALUES[label]
    for grouping in re.findall(r"\b(?:by|without|on)\s*\(([^)]*)\)", expression):
        assert {label.strip() for label in grouping.split(",")} <= known


def test_expression_check_fails_for_wrong_names() -> None:
    with pytest.raises(AssertionError):
        test_expressions_name_existing_metrics_labels_and_values("sum(tubelet_no_such_metric)")
    with pytest.raises(AssertionError):
        test_expressions_name_existing_metrics_labels_and_values(
            'tubelet_stage_seconds_bucket{stage="nowhere"}'
        )
    with pytest.raises(AssertionError):
        test_expressions_name_existing_metrics_labels_and_values("sum by (stage) (tubelet_ready)")


def test_legends_name_labels_that_remain_after_grouping() -> None:
    for target in dashboard_targets():
        left = {
            label.strip()
            for grouping in re.findall(r"\bby \(([^)]*)\)", target["expr"])
            for label in grouping.split(",")
        }
        aggregated = re.search(r"\b(sum|max|min)\b", target["expr"])
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert label in (left if aggregated else TARGET_LABELS), target


def test_dashboard_shows_nothing_twice() -> None:
    expressions = [target["expr"] for target in dashboard_targets()]
    assert len(set(expressions)) == len(expressions)


def test_dashboard_shows_every_metric() -> None:
    shown = {name for expression in EXPRESSIONS for name, _ in _SELECTOR.findall(expression)}
    ours = {name for name in series() if name.startswith("tubelet_")}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours}
    missing = {family for family in families if not any(name.startswith(family) for name in shown)}
    assert not missing


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


# For each alert: series, sampled each minute, that must raise it at the given minute, and such that must not.
# "a+bxN" starts at a and grows by b, N times, as promtool writes it.
OK = 'tubelet_requests_total{job="t", code="OK"}'


def seconds_of(model: str, *, under_60: int, all_of_them: int) -> dict[str, str]:
    """The series of videos that take so long, each minute."""
    name = f'tubelet_stage_seconds_bucket{{job="t", model="{model}", stage="total", le='
    return {
        f'{name}"60"}}': f"0+{under_60}x50",
        f'{name}"300"}}': f"0+{all_of_them}x50",
        f'{name}"+Inf"}}': f"0+{all_of_them}x50",
    }


def server(instance: str, *, is_ready: bool) -> dict[str, str]:
    """The series of a server, whether it is ready, and those that no batch has."""
    labels = f'{{job="t", instance="{instance}"}}'
    return {f"tubelet_ready{labels}": f"{int(is_ready)}x20", f"tubelet_connections_limit{labels}": "1000x20"}


CASES: dict[str, tuple[int, dict[str, str], dict[str, str]]] = {
    "TubeletNotReady": (
        10,
        # A batch that runs is no server.
        server("a", is_ready=False) | {'tubelet_ready{job="t", instance="batch"}': "1x20"},
        server("a", is_ready=False) | server("b", is_ready=True),
    ),
    "TubeletReplicaNotReady": (
        30,
        {'tubelet_ready{job="t", instance="a"}': "0x40", 'tubelet_ready{job="t", instance="b"}': "1x40"},
        {'tubelet_ready{job="t", instance="a"}': "0x10 1x30"},
    ),
    "TubeletNoDevice": (
        30,
        {OK: "0+95x40", 'tubelet_failed_requests_total{job="t", model="m", reason="NO_DEVICE"}': "0+1x40"},
        {
            OK: "0+95x40",
            'tubelet_failed_requests_total{job="t", model="m", reason="CORRUPT_VIDEO"}': "0+9x40",
        },
    ),
    "TubeletStorageFull": (
        30,
        {OK: "0+95x40", 'tubelet_failed_requests_total{job="t", reason="STORAGE_FULL"}': "0+1x40"},
        {OK: "0+95x40", 'tubelet_failed_requests_total{job="t", reason="UPLOAD_TOO_LARGE"}': "0+9x40"},
    ),
    "TubeletErrors": (
        30,
        {OK: "0+95x40", 'tubelet_requests_total{job="t", code="INTERNAL"}': "0+5x40"},
        {
            OK: "0+99x40",
            'tubelet_requests_total{job="t", code="INTERNAL"}': "0+1x40",
            'tubelet_requests_total{job="t", code="INVALID_ARGUMENT"}': "0+100x40",
        },
    ),
    "TubeletOverloaded": (
        30,
        {
            OK: "0+90x40",
            'tubelet_rejected_requests_total{job="t", reason="OVERLOADED"}': "0+3x40",
            'tubelet_rejected_requests_total{job="t", reason="DEADLINE_TOO_SHORT"}': "0+3x40",
        },
        {
            OK: "0+99x40",
            'tubelet_rejected_requests_total{job="t", reason="OVERLOADED"}': "0+1x40",
            'tubelet_rejected_requests_total{job="t", reason="UNKNOWN_MODEL"}': "0+50x40",
        },
    ),
    "TubeletQueueGrowing": (
        20,
        {'tubelet_queued_units{model="m"}': "30x30", 'tubelet_batch_units_sum{model="m"}': "7x30"},
        {'tubelet_queued_units{model="m"}': "30x30", 'tubelet_batch_units_sum{model="m"}': "0+600x30"},
    ),
    "TubeletSlow": (
        40,
        # One model is slow, beside one that is asked far more often: together they would be fast enough.
        seconds_of("slow", under_60=90, all_of_them=100)
        | seconds_of("fast", under_60=9900, all_of_them=9900),
        seconds_of("slow", under_60=99, all_of_them=100) | seconds_of("fast", under_60=99, all_of_them=100),
    ),
    "TubeletDecoderFailures": (
        20,
        {
            'tubelet_decoder_failures_total{instance="a", cause="crashed"}': "0+0.5x30",
            'tubelet_decoder_failures_total{instance="a", cause="hung"}': "0+0.5x30",
        },
        {
            'tubelet_decoder_failures_total{instance="a", cause="crashed"}': "0x5 1+0x25",
            'tubelet_decoder_failures_total{instance="b", cause="crashed"}': "0x5 5+0x25",
        },
    ),
    "TubeletSandboxOpen": (
        10,
        {
            'tubelet_decoder_sandbox{instance="a", protection="rlimits"}': "1x20",
            'tubelet_decoder_sandbox{instance="a", protection="landlock"}': "0x20",
            'tubelet_decoder_sandbox{instance="a", protection="seccomp"}': "0x20",
        },
        {
            'tubelet_decoder_sandbox{instance="a", protection="landlock"}': "0x20",
            'tubelet_decoder_sandbox{instance="a", protection="seccomp"}': "1x20",
        },
    ),
    "TubeletDeviceLost": (
        10,
        {
            'tubelet_device_up{instance="a", device="cuda:0"}': "1x20",
            'tubelet_device_up{instance="a", device="cuda:1"}': "1x5 0x20",
        },
        {'tubelet_device_up{instance="a", device="cuda:0"}': "1x20"},
    ),
    "TubeletCertificateExpires": (
        90,
        {'tubelet_certificate_expiry_seconds{instance="a", certificate="server"}': "600000-60x100"},
        {'tubelet_certificate_expiry_seconds{instance="a", certificate="server"}': "800000-60x100"},
    ),
    "TubeletCertificateNotReloaded": (
        30,
        {'tubelet_certificate_reload_failed{instance="a"}': "1x40"},
        {'tubelet_certificate_reload_failed{instance="a"}': "1x5 0x35"},
    ),
    "TubeletIdentitiesNotReloaded": (
        30,
        {'tubelet_identities_reload_failed{instance="a"}': "1x40"},
        {'tubelet_identities_reload_failed{instance="a"}': "1x5 0x35"},
    ),
    "TubeletIssuerKeysNotReloaded": (
        60,
        {'tubelet_issuer_keys_reload_failed{instance="a"}': "1x70"},
        {'tubelet_issuer_keys_reload_failed{instance="a"}': "1x20 0x50"},
    ),
}


def test_every_alert_has_a_case() -> None:
    assert {rule["alert"] for rule in alerts()} == set(CASES)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("alert", CASES)
@pytest.mark.parametrize("fires", [True, False], ids=["fires", "stays silent"])
def test_alert_fires_for_its_bad_case_only(alert: str, fires: bool, tmp_path: Path) -> None:
    minute, bad, good = CASES[alert]
    check = {"eval_time": f"{minute}m", "alertname": alert}
    test = {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": values} for name, values in (bad if fires else good).items()
        ],
        "alert_rule_test": [{**check, "exp_alerts": []}],
    }
    file = tmp_path / "test.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [test]})
    )
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    # Where the alert fires, the expectation of silence fails, and the answer names what was got.
    assert (done.returncode != 0) == fires, done.stdout + done.stderr
    assert (f'alertname="{alert}"' in done.stdout + done.stderr) == fires
