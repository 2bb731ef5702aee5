"""docs/metrics.md lists exactly the metrics of the sources, and the dashboard asks for no others."""

import json
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROOMS = ["services", "orchestrator", "learner", "rollout_worker", "reward_server", "weights", "cli"]
KINDS = {"AddCounter": "counter", "AddGauge": "gauge", "AddHistogram": "histogram"}

ADDED = re.compile(r'\b(AddCounter|AddGauge|AddHistogram)\(\s*"(temper_[a-z0-9_]+)"')
DOCUMENTED = re.compile(r"^\| `(temper_[a-z0-9_]+)` \| (counter|gauge|histogram) \|", re.MULTILINE)
ASKED_FOR = re.compile(r"\btemper_[a-z0-9_]+")


def metrics_of_sources():
    """Name -> kind, of every metric that the programs register."""
    metrics = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.cc")):
            for function, name in ADDED.findall(path.read_text(encoding="utf-8")):
                metrics[name] = KINDS[function]
    return metrics


def metrics_of_page():
    return dict(DOCUMENTED.findall((ROOT / "docs/metrics.md").read_text(encoding="utf-8")))


def base_name(name, kinds):
    """The metric behind a series: a histogram's is the name without _bucket, _sum or _count."""
    stem = re.sub(r"_(bucket|sum|count)$", "", name)
    return stem if kinds.get(stem) == "histogram" else name


def dashboard():
    return json.loads((ROOT / "deploy/grafana/temper.json").read_text(encoding="utf-8"))


def targets(panels):
    for panel in panels:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
        yield from targets(panel.get("panels", []))


class Metrics(unittest.TestCase):
    maxDiff = None

    def test_page_lists_exactly_what_the_sources_register(self):
        self.assertEqual(metrics_of_page(), metrics_of_sources())

    def test_every_expression_of_the_dashboard_asks_for_a_metric_that_exists(self):
        kinds = metrics_of_sources()
        for title, expression in targets(dashboard()["panels"]):
            for name in ASKED_FOR.findall(expression):
                self.assertIn(base_name(name, kinds), kinds, f'panel "{title}": {expression}')

    def test_dashboard_shows_every_metric(self):
        kinds = metrics_of_sources()
        shown = {base_name(name, kinds) for _, expression in targets(dashboard()["panels"])
                 for name in ASKED_FOR.findall(expression)}
        self.assertEqual(sorted(set(kinds) - shown), [])

    def test_histograms_are_never_asked_for_without_a_suffix(self):
        kinds = metrics_of_sources()
        for title, expression in targets(dashboard()["panels"]):
            for name in ASKED_FOR.findall(expression):
                self.assertNotEqual(kinds.get(name), "histogram", f'panel "{title}": {expression}')


if __name__ == "__main__":
    unittest.main(verbosity=2)
