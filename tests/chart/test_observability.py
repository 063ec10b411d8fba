"""Dashboard and alerts speak of metrics that exist, in PromQL that parses, and the alerts fire when they should."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.chart import tools
from tests.chart.tools import CHART, ROOT

from lprl_operator.decide.observed import Key
from lprl_operator.metrics import OperatorMetrics
from lprl_operator.places.kube.summary import summary

ENV_PROMTOOL = "LPRL_PROMTOOL"
"""promtool, where it is not on PATH; without it get-promtool.sh brings Debian's."""
GET_PROMTOOL = Path(__file__).parent / "get-promtool.sh"
DASHBOARD: dict[str, Any] = json.loads((CHART / "dashboards" / "lprl.json").read_text())
RULES = [rule for group in yaml.safe_load((CHART / "alerts" / "lprl.yaml").read_text())["groups"] for rule in group["rules"]]
PANELS = [p for p in DASHBOARD["panels"] if p["type"] != "row"]
EXPRESSIONS = [t["expr"] for p in PANELS for t in p["targets"]]


SCRAPED = {"instance", "namespace", "pod"}
"""Labels Prometheus puts on every series of a pod (not on top of a job's own: see honorLabels)."""


def exported() -> dict[str, set[str]]:
    """Every sample the operator exports and the names of its labels, each metric used once."""
    metrics = OperatorMetrics()
    training = {"step": 1, "steps": 2, "reward": 0.5, "mismatch": 1e-3, "tokensPerSecond": 10.0}
    status = {"attempt": 1, "restartsUsed": 0, "training": training, "conditions": [{"type": "Failed", "status": "False"}]}
    metrics.follow_jobs(lambda: [(Key("n", "j"), summary(status))], per_job=True)
    metrics.api_request("GET", "jobs", 200, 0.1)
    metrics.reconcile_errors.labels("bug").inc()
    metrics.watch_events.labels("Job").inc()
    text = generate_latest(metrics.registry).decode()
    return {sample.name: set(sample.labels) for family in text_string_to_metric_families(text) for sample in family.samples}


def labelled(expression: str) -> set[tuple[str, str]]:
    """Metric and label of every matcher."""
    return {(name, label) for name, inner in re.findall(r"(\w+)\{([^}]*)\}", expression) for label in re.findall(r"(\w+)\s*[=!]", inner)}


def named(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:lprl|process)_[a-z0-9_]+", expression))


def test_only_metrics_that_exist_and_all_of_ours() -> None:
    known = exported()
    queries = [v["query"]["query"] for v in variables()]
    used = {n for e in [*EXPRESSIONS, *queries, *(r["expr"] for r in RULES)] for n in named(e)}
    assert used <= set(known), sorted(used - set(known))
    ours = {family(n) for n in known if n.startswith("lprl_") and not n.endswith("_created")}
    assert ours == {family(n) for n in used if n.startswith("lprl_")}


def test_only_labels_that_exist() -> None:
    known = exported()
    for expression in [*EXPRESSIONS, *(r["expr"] for r in RULES)]:
        assert not [(name, label) for name, label in labelled(expression) if label not in known[name] | SCRAPED], expression
        reachable = SCRAPED.union(*(known[n] for n in named(expression)))
        kept = {w.strip() for inner in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for w in inner.split(",")}
        assert kept <= reachable, (expression, kept - reachable)


def family(sample: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", sample)


def variables() -> list[dict[str, Any]]:
    return [v for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]


def test_the_dashboard_is_whole() -> None:
    ids = [p["id"] for p in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) and DASHBOARD["uid"] == "lprl-overview"
    for panel in PANELS:
        assert panel["title"] and panel["description"] and panel["datasource"]["uid"] == "${datasource}", panel["title"]
        grid = panel["gridPos"]
        assert grid["x"] >= 0 and grid["x"] + grid["w"] <= 24
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in DASHBOARD["panels"]]
    assert len(set(places)) == len(places), "panels overlap"
    mismatch = next(p for p in PANELS if p["title"].startswith("Mismatch"))
    assert mismatch["fieldConfig"]["defaults"]["custom"]["scaleDistribution"]["type"] == "log"


def test_alerts_say_what_and_how_bad() -> None:
    assert len({r["alert"] for r in RULES}) == len(RULES)
    for rule in RULES:
        assert (
            rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"] and rule["annotations"]["description"]
        )
    text = (Path(__file__).parent / "alerts_test.yaml").read_text()
    assert all(rule["alert"] in text for rule in RULES), "an alert without a test of when it fires"


@pytest.fixture(scope="module")
def promtool() -> str:
    found = os.environ.get(ENV_PROMTOOL) or shutil.which("promtool")
    if not found and shutil.which("apt-get"):
        done = tools.run("sh", str(GET_PROMTOOL), str(ROOT / "build" / "promtool"), check=False)
        found = done.stdout.strip()
    if not found:
        pytest.skip(f"promtool is neither on PATH nor to be had with apt, and {ENV_PROMTOOL} is not set")
    return found


def test_alerts_fire_when_they_should(promtool: str) -> None:
    tools.run(promtool, "check", "rules", str(CHART / "alerts" / "lprl.yaml"))
    tools.run(promtool, "test", "rules", str(Path(__file__).parent / "alerts_test.yaml"))


def test_expressions_of_the_dashboard_parse(promtool: str, tmp_path: Path) -> None:
    """As recording rules, Grafana's variables filled in."""
    filled = [e.replace("$__rate_interval", "5m").replace("$namespace", ".*").replace("$job", ".*") for e in EXPRESSIONS]
    assert not [e for e in filled if "$" in e]
    rules = [{"record": f"panel:{n}", "expr": e} for n, e in enumerate(filled)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    tools.run(promtool, "check", "rules", str(tmp_path / "rules.yaml"))
