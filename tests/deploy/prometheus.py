"""What PromQL expressions ask for, and a real Prometheus to ask it, where one is installed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import promql_parser as promql
import requests
import yaml
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from serving.torchserve.config import Ports

OPS = Path(__file__).parents[2] / "deploy" / "ops"
ALERTS, DASHBOARD, UNIT_TESTS = OPS / "alerts.yaml", OPS / "dashboard.json", OPS / "alerts_test.yaml"
OF_PROMETHEUS = {"up"}  # series that Prometheus makes itself
SCRAPE = 1  # seconds


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def panel_queries() -> dict[str, str]:
    """Expressions of the dashboard by panel and letter, as Grafana sends them."""
    queries = {"annotation": dashboard()["annotations"]["list"][0]["expr"]}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            queries[f"{panel['title']} {target['refId']}"] = target["expr"].replace("$__rate_interval", "1m")
    return queries


def selectors(expression: str) -> list[promql.VectorSelector]:
    """Every selector of an expression. Raises ValueError where it is no PromQL."""
    return list(_selectors(promql.parse(expression)))


def _selectors(node: Any) -> Iterator[promql.VectorSelector]:
    if isinstance(node, promql.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        inner = getattr(node, name, None)
        if inner is not None and not isinstance(inner, str):
            yield from _selectors(inner)
    for inner in getattr(node, "args", None) or []:
        yield from _selectors(inner)


@contextmanager
def running(binary: str, folder: Path, targets: list[str]) -> Iterator[str]:
    """Prometheus with our alerts, which scrapes these addresses every second; its URL, on loopback."""
    config = {
        "global": {"scrape_interval": f"{SCRAPE}s", "evaluation_interval": f"{SCRAPE}s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [{"job_name": "car", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{Ports.choose().inference}"
    command = [binary, f"--config.file={folder / 'prometheus.yaml'}", f"--web.listen-address={address}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={folder / 'data'}"], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait(f"http://{address}", process, len(targets))
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(timeout=60)


def ask(url: str, expression: str) -> list[dict[str, Any]]:
    """The value of an expression now, a row a series."""
    reply = requests.get(f"{url}/api/v1/query", params={"query": expression}, timeout=30).json()
    assert reply["status"] == "success", (expression, reply)
    result = reply["data"]["result"]
    return list(result) if reply["data"]["resultType"] == "vector" else [{"metric": {}, "value": result}]


@retry(stop=stop_after_delay(120), wait=wait_fixed(0.5), retry=retry_if_result(lambda up: not up))
def _wait(url: str, process: subprocess.Popen[bytes], targets: int) -> bool:
    """Until every target was scraped a few times."""
    assert process.poll() is None
    try:
        rows = ask(url, "sum_over_time(up[5m]) >= 3")
    except (requests.ConnectionError, ValueError):
        return False
    return len(rows) == targets
