"""Alerts and dashboard: valid, documented, and about series that live servers really export."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from serving.asgi.app import AsgiMetrics
from serving.metrics.observer import InstrumentedResponder
from tests.deploy.prometheus import ALERTS, DASHBOARD, UNIT_TESTS, dashboard, panel_queries, rules, selectors
from tests.serving.metrics.metered import recommender

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"
PROMTOOL = shutil.which("promtool")
WITH_PROMTOOL = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (it is in Prometheus)")
DURATION = re.compile(r"\d+[smh]")
COLUMNS = 24


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_is_complete(rule: dict) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["alert"].startswith("Car")
    assert DURATION.fullmatch(rule.get("for", "1m"))
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "runbook"}
    assert selectors(rule["expr"])


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_the_docs_say_what_to_do(rule: dict) -> None:
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert Path(file).name == DOCS.name
    headings = re.findall(r"^#+ (\w+)$", DOCS.read_text(), re.MULTILINE)
    assert anchor == rule["alert"].lower()
    assert rule["alert"] in headings


def test_the_docs_tell_of_no_alert_that_is_gone() -> None:
    documented = set(re.findall(r"^#+ (Car[A-Z]\w+)$", DOCS.read_text(), re.MULTILINE))
    assert documented == {rule["alert"] for rule in rules()}


def test_the_docs_explain_every_metric_and_no_other() -> None:
    table = DOCS.read_text().partition("## What each metric means")[2].partition("\n\nProbes")[0]
    documented = set(
        re.findall(r"`(car_\w+)`", " ".join(row.split("|")[1] for row in table.strip().splitlines()))
    )
    metrics = AsgiMetrics()
    InstrumentedResponder(recommender(), metrics)
    exported = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in metrics.registry.collect()
        if family.name.startswith("car_")
    }
    assert documented == exported


def test_every_rule_that_can_fire_and_stay_silent_is_seen_to() -> None:
    """The unit tests below hold each alert's text and its silence."""
    text = UNIT_TESTS.read_text()
    for rule in rules():
        assert len(re.findall(rf"alertname: {rule['alert']}\b", text)) >= 2, rule["alert"]
        assert f"runbook: {rule['annotations']['runbook']}" in text


@WITH_PROMTOOL
@pytest.mark.parametrize("command", [["check", "rules", str(ALERTS)], ["test", "rules", str(UNIT_TESTS)]])
def test_prometheus_itself_agrees(command: list[str]) -> None:
    result = subprocess.run([str(PROMTOOL), *command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_dashboard_has_what_grafana_needs() -> None:
    board = dashboard()
    assert board["schemaVersion"] >= 36
    assert board["uid"] == "car-serving"
    assert "id" not in board  # Grafana's own number: an import must not overwrite another board
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    kinds = {"row", "timeseries", "stat", "table", "bargauge"}
    for panel in panels:
        assert panel["type"] in kinds
        assert panel["title"]
        if panel["type"] != "row":
            sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
            letters = [target["refId"] for target in panel["targets"]]
            assert letters == sorted(set(letters))
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource"]
    assert "http" not in DASHBOARD.read_text()


def test_panels_lie_side_by_side() -> None:
    covered: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        position = panel["gridPos"]
        assert 0 <= position["x"] <= position["x"] + position["w"] <= COLUMNS
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert not cells & covered, panel["title"]
        covered |= cells
    rows = max(y for _, y in covered) + 1
    assert len(covered) == COLUMNS * rows


@pytest.mark.parametrize("title", panel_queries())
def test_a_panel_asks_in_promql(title: str) -> None:
    assert selectors(panel_queries()[title])


def test_the_parser_refuses_what_is_no_promql() -> None:
    for wrong in ("sum(rate(x[5m])", "rate(x)", "sum by (a) x", "", "x{a=}"):
        with pytest.raises(ValueError, match=r".+"):
            selectors(wrong)
    parsed = selectors('(sum(rate(a[5m])) or b) / scalar(c{d="e"}) > max(topk(3, f))')
    assert {selector.name for selector in parsed} == {"a", "b", "c", "f"}


@pytest.mark.parametrize("drift", ["CarScoreDrift", "CarCodeDrift"])
def test_the_bound_of_drift_is_the_usual_one(drift: str) -> None:
    [rule] = [rule for rule in rules() if rule["alert"] == drift]
    assert rule["expr"].endswith("> 0.25")
