"""The dashboard for Grafana in examples/ asks for metrics and labels that the collector has, and for all of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from chatpool import ChatPool, Limits
from chatpool.contrib.prometheus import Collector
from chatpool.testing import FakeServer

DASHBOARD = Path(__file__).parents[2] / "examples" / "grafana-dashboard.json"


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def families():
    registry = CollectorRegistry()
    limits = Limits(requests_per_minute=600)
    with FakeServer() as server, ChatPool("m", base_url=server.base_url, limits=limits) as pool:
        Collector(pool, registry)
        pool.chat("a")
        return list(registry.collect())


def queries(dashboard):
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_every_metric_in_a_query_is_exported_and_every_exported_one_is_shown(dashboard, families):
    asked = set(re.findall(r"\bchatpool_\w+", " ".join(queries(dashboard))))
    exported = {sample.name for family in families for sample in family.samples}
    assert asked <= exported
    assert [family.name for family in families if not any(name.startswith(family.name) for name in asked)] == []


def test_every_label_in_a_query_is_one_of_the_metric(dashboard, families):
    labels = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    for query in queries(dashboard):
        for name, matchers in re.findall(r"\b(chatpool_\w+)\{([^}]*)\}", query):
            wanted = set(re.findall(r"(\w+)=", matchers))
            wanted |= {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
            assert wanted <= labels[name], query


def test_every_legend_names_labels_that_its_query_keeps(dashboard):
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            kept = {
                label.strip() for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in group.split(",")
            }
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept


def test_it_can_be_imported(dashboard):
    """The fields that Grafana's schema of a dashboard asks for, and a data source that is chosen on import."""
    assert dashboard.keys() >= {"title", "uid", "schemaVersion", "panels", "templating", "time", "version"}
    assert dashboard["schemaVersion"] >= 36  # data sources are objects from there on
    assert "id" not in dashboard  # the number of it in another Grafana
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["pool"]["definition"] == "label_values(chatpool_in_flight, pool)"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken = set()
    for panel in dashboard["panels"]:
        assert panel.keys() >= {"type", "title", "gridPos", "fieldConfig", "options", "targets"}
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
