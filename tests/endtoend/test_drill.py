"""A test alert through a real agent, both sinks and a real collector."""

from __future__ import annotations

import json
import subprocess

from nbsentinel.report.ocsf_drill import LABEL

from .conftest import NBSENTINEL, Site, wait_for


def test_alert_arrives_and_verifies(site: Site) -> None:
    """Both sinks confirm it, the collector has it with its marks and the command that asked, and all of it verifies."""
    site.start_agent()
    ask = [*NBSENTINEL, "test-alert", "--run-dir", str(site.folder / "run"), "--json"]
    done = subprocess.run(ask, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert {delivery["sink"] for delivery in told["deliveries"]} == {"file", "collector"}
    assert told["uid"] in site.recorded()
    stored = {item["event"]["finding_info"]["uid"]: item["event"] for item in site.get("/v1/findings")["findings"]}
    event = stored[told["uid"]]
    assert (event["severity_id"], event["verdict_id"], event["metadata"]["labels"]) == (1, 6, [LABEL])
    assert "test-alert" in event["evidences"][0]["process"]["cmd_line"]
    result = site.verify()
    assert result.returncode == 0, result.stdout
    again = subprocess.run(ask, capture_output=True, text=True)
    assert (again.returncode, "once in 10 s" in again.stderr) == (4, True)
    status = [*NBSENTINEL, "status", "--run-dir", str(site.folder / "run"), "--json"]
    counters = json.loads(subprocess.run(status, capture_output=True).stdout)["counters"]
    assert (counters["test_alerts"], counters["test_alerts_refused"]) == (1, 1)


def test_collector_that_is_away_is_named(site: Site) -> None:
    """Without its collector the file sink confirms, the collector sink says why not; what was sent arrives later."""
    site.start_agent()
    site.kill("collector")
    ask = [*NBSENTINEL, "test-alert", "--run-dir", str(site.folder / "run"), "--wait", "3", "--json"]
    done = subprocess.run(ask, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    told = json.loads(done.stdout)
    words = {delivery["sink"]: delivery for delivery in told["deliveries"]}
    assert "ms" in words["file"]
    assert "wait for it" in words["collector"]["why"]
    assert "Connection" in words["collector"]["why"]
    site.start_collector()
    wait_for("the alert arrives", lambda: told["uid"] in site.stored(), 60)
