"""The alert rules name metrics and labels that the workers export."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from topology import metrics, topics
from topology.records import Speech
from topology.settings import Settings
from topology.worker import Worker

RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((Path(__file__).parents[3] / "deploy" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
NAMES = {
    family.name + suffix
    for family in REGISTRY.collect()
    if family.name.startswith("cope_")
    for suffix in SUFFIXES[family.type]
}
LABELS = {
    label
    for metric in vars(metrics).values()
    if hasattr(metric, "_labelnames")
    for label in (*metric._labelnames, "instance", "le")
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_names_what_is_exported(rule: dict[str, Any]) -> None:
    expression = rule["expr"]
    named = set(re.findall(r"\bcope_\w+", expression))
    assert named
    assert named <= NAMES
    for labels in re.findall(r"by \(([^)]*)\)", expression):
        assert {label.strip() for label in labels.split(",")} <= LABELS
    told = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", told)) <= LABELS
    assert {"summary", "description"} == rule["annotations"].keys()
    assert rule["labels"]["severity"] in ("critical", "warning")


async def _ignore(_: object) -> None: ...


def test_lost_records_are_alerted_from_the_first_on() -> None:
    assert any("cope_records_lost_total" in rule["expr"] for rule in RULES)
    worker = Worker("transcribe", Settings(_env_file=None, broker="127.0.0.1:1"), serve_http=False)
    worker.delivery.agent(topics.LIVE_SPEECH, Speech, _ignore)
    labels = {"role": "transcribe", "topic": topics.LIVE_SPEECH}
    assert REGISTRY.get_sample_value("cope_records_lost_total", labels) == 0
