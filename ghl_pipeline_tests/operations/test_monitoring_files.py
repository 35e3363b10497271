"""The dashboard and the rules ask only for what a scrape has, and ask for nothing in vain."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from ghl_pipeline.operations.metrics import families as f
from ghl_pipeline_tests.docs.reference import ROOT
from ghl_pipeline_tests.fixtures.receiver import RunningReceiver, inbound_sms, receiver, sender_keys

__all__ = ["receiver", "sender_keys"]

DASHBOARD = ROOT / "deploy" / "grafana" / "ghl-pipeline.json"
RULES = ROOT / "deploy" / "prometheus" / "ghl-pipeline-rules.yml"
SCRAPE = ROOT / "deploy" / "prometheus" / "prometheus.yml"
_METRIC = re.compile(r"\bghl_pipeline_[a-z0-9_]+")
_SELECTOR = re.compile(r"(ghl_pipeline_[a-z0-9_]+)\{([^}]*)\}")


def dashboard_expressions() -> Iterator[str]:
    document = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in document["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    return [*dashboard_expressions(), *(rule["expr"] for rule in rules())]


def test_every_metric_asked_for_is_in_a_scrape(receiver: RunningReceiver) -> None:
    client = receiver.add_client()
    receiver.app(inbound_sms(client.location_id))
    told = set()
    for metric in text_string_to_metric_families(receiver.get("/metrics").text):
        # A counter's family lacks the ending that its samples have; a histogram has samples of three names.
        told |= {metric.name, f"{metric.name}_total", *(sample.name for sample in metric.samples)}
    asked = {name for expression in expressions() for name in _METRIC.findall(expression)}
    assert asked - told == set()


def test_every_metric_is_on_the_dashboard_or_said_to_be_for_your_own() -> None:
    shown = {name.removesuffix("_bucket") for expression in expressions() for name in _METRIC.findall(expression)}
    # What the dashboard shows added up, for those who want it by location; whether it is told; how old a reading is.
    for_your_own = {family.name for family in (*f.PER_LOCATION, f.READING_AGE, f.TOLD_APART)}
    assert {family.name for family in f.FAMILIES} - shown - for_your_own == set()


def test_labels_asked_for_are_labels_there_are() -> None:
    labels = {family.name: set(family.labels) for family in f.FAMILIES}
    for expression in expressions():
        for name, inside in _SELECTOR.findall(expression):
            named = {part.split("=")[0].rstrip("!~ ") for part in inside.split(",")}
            assert named <= labels[name], expression


def test_rules_say_what_to_do_where_the_runbook_does_and_need_no_location() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ +(.+)$", runbook, re.MULTILINE)
    }
    per_location = {family.name for family in f.PER_LOCATION}
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert not per_location & set(_METRIC.findall(rule["expr"]))
        if "runbook" in rule["annotations"]:
            path, _, anchor = rule["annotations"]["runbook"].partition("#")
            assert (ROOT / path).exists()
            assert anchor in headings


def test_panels_have_places_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


def test_the_scrape_configuration_is_for_the_route_that_there_is() -> None:
    [job] = yaml.safe_load(SCRAPE.read_text(encoding="utf-8"))["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert Path(job["authorization"]["credentials_file"]).is_absolute()
