"""Debian's Prometheus at the daemon's second address, with the shipped scrape configuration and rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.rest.conftest import Start
from tests.support.fixtures.http_client import ask, await_open
from tests.support.harness.daemon import ROOT, Daemon, free_port

SHIPPED = ROOT / "desired-state"
ALERTS = SHIPPED / "config" / "service-manager-alerts.yml"
DASHBOARD = SHIPPED / "grafana" / "dashboards" / "service-manager.json"
KEY = "a-key-of-the-environment-that-is-long-enough"


def promtool(*arguments: str | Path, stdin: bytes | None = None, cwd: Path | None = None) -> None:
    done = subprocess.run(
        ["promtool", *arguments], input=stdin, cwd=cwd, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def until(condition: Callable[[], Any], within: float = 30.0) -> Any:
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


class Prometheus:
    """A running Prometheus, queried over its HTTP API."""

    def __init__(self, port: int) -> None:
        self._at = f"http://127.0.0.1:{port}/api/v1"

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        answer = self._get("query", query=expression)
        return [(sample["metric"], float(sample["value"][1])) for sample in answer["result"]]

    def up(self) -> bool:
        try:
            return any(value == 1 for _, value in self.query('up{job="service-manager"}'))
        except OSError:
            return False

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **query: str) -> Any:
        url = f"{self._at}/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]


@contextmanager
def a_prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run Prometheus with the shipped configuration, but with this one target and short intervals."""
    config = YAML(typ="safe").load(SHIPPED / "config" / "prometheus.yml")
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "service-manager"]
    job["static_configs"] = [{"targets": [target]}]
    config["scrape_configs"] = [job]
    config["global"] = {"scrape_interval": "250ms", "evaluation_interval": "250ms"}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    shutil.copy(ALERTS, folder)
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            yield Prometheus(port)
        finally:
            process.terminate()
            process.wait(20)


def expressions() -> list[str]:
    """Return the queries of the dashboard, with Grafana's variables filled in, and those of the alerts."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = YAML(typ="safe").load(ALERTS)["groups"]
    alerts = [rule["expr"] for group in rules for rule in group["rules"]]
    return [expr.replace("$__rate_interval", "1m") for expr in (*queries, *alerts)]


def test_the_alert_rules_are_valid_and_fire(tmp_path: Path) -> None:
    for path in (ALERTS, Path(__file__).with_name("alerts_test.yml")):
        shutil.copy(path, tmp_path)
    promtool("check", "rules", ALERTS)
    promtool("check", "config", SHIPPED / "config" / "prometheus.yml")
    promtool("test", "rules", "alerts_test.yml", cwd=tmp_path)


def test_every_alert_is_tested() -> None:
    rules = YAML(typ="safe").load(ALERTS)["groups"]
    tests = YAML(typ="safe").load(Path(__file__).with_name("alerts_test.yml"))["tests"]
    fired = {rule["alertname"] for test in tests for rule in test["alert_rule_test"] if rule["exp_alerts"]}
    assert fired == {rule["alert"] for group in rules for rule in group["rules"]}


def test_a_real_prometheus_scrapes_and_answers(a_daemon: Start, tmp_path: Path) -> None:
    second = f"127.0.0.1:{free_port()}"
    daemon = a_daemon(metrics_listen=second, api_key=KEY)
    await_open(daemon)
    assert_key_needed(daemon)
    with a_prometheus(tmp_path, second) as prometheus:
        until(prometheus.up)
        until(lambda: value(prometheus, "service_manager_converged") == 1)
        assert value(prometheus, 'service_manager_group_ready{group="kafka"}') == 1
        assert value(prometheus, "sum(service_manager_services_running)") == 3
        assert value(prometheus, "sum(service_manager_services_expected)") == 3
        assert value(prometheus, "service_manager_generation") == 1
        until(
            lambda: value(prometheus, 'service_manager_service_memory_bytes{service="kafka"}') == 50_000_000
        )
        started = ask(daemon, "POST", "/services/start/optional?wait=30", headers={"x-api-key": KEY})
        assert started.value["progress"]["state"] == "converged", started.value
        until(lambda: value(prometheus, "service_manager_observed_generation") == 2)
        until(lambda: value(prometheus, 'service_manager_actions_total{action="start"}') == 4)
        until(lambda: value(prometheus, 'service_manager_http_requests_total{method="POST"}') == 1)
        assert_queries_work(prometheus, daemon)
        until(lambda: all(rule["lastEvaluation"] > "0002" for rule in prometheus.rules()))
        assert {rule["health"] for rule in prometheus.rules()} == {"ok"}
        assert [rule["name"] for rule in prometheus.rules() if rule["state"] == "firing"] == []
    text = ask(daemon, "GET", "/metrics", headers={"x-api-key": KEY}).body
    promtool("check", "metrics", stdin=text)
    assert KEY.encode() not in text


def value(prometheus: Prometheus, expression: str) -> float | None:
    found = prometheus.query(expression)
    return found[0][1] if len(found) == 1 else None


def assert_key_needed(daemon: Daemon) -> None:
    """The API needs a key for the metrics; the second address does not."""
    assert ask(daemon, "GET", "/metrics").status == 401


def assert_queries_work(prometheus: Prometheus, daemon: Daemon) -> None:
    """Prometheus accepts every expression, and the daemon has every metric in it."""
    text = ask(daemon, "GET", "/metrics", headers={"x-api-key": KEY}).body.decode()
    families = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    for expression in expressions():
        prometheus.query(expression)
        for name in re.findall(r"service_manager_\w+", expression):
            assert name in families or name.removesuffix("_bucket") in families, name
