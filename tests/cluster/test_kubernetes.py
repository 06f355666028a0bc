"""The manifest of examples/: by Kubernetes' own schema, and its command as a node would run it, index by index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from chatpool.batch import shards
from chatpool.testing import Error
from tests.deploy.shard_files import HUNG, check, running_here, write_rows

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="it comes with the extra cluster")

pytestmark = pytest.mark.cluster

MANIFEST = Path(__file__).parents[2] / "examples" / "kubernetes_job.yaml"
VERSIONS = ["1.31", kubernetes_validate.latest_version()]
KEY = "sk-of-the-job"
ROWS, SHARD_ROWS = 120, 30


@pytest.fixture
def documents():
    return list(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))


@pytest.fixture
def job(documents):
    (job,) = (document for document in documents if document["kind"] == "Job")
    return job


@pytest.fixture
def container(job):
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


@pytest.fixture
def run(job, container, server, tmp_path):
    """A function that runs the pod of an index as a node would; returns what the Job does with its exit status."""
    shards.split(write_rows(tmp_path / "big.jsonl", ROWS), tmp_path / "work", rows=SHARD_ROWS)
    program, *arguments = [str(word).replace("/shared", str(tmp_path)) for word in container["command"]]
    assert program == "chatpool"
    (key,) = container["env"]

    def run(index, **more):
        variables = {key["name"]: KEY, "JOB_COMPLETION_INDEX": str(index), "OPENAI_BASE_URL": server.base_url, **more}
        command = [sys.executable, "-m", "chatpool.cli", *arguments]
        environment = {**os.environ, **variables}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HUNG, check=False)
        assert KEY not in done.stdout + done.stderr
        return done.returncode and action_of(job, container, done.returncode)

    return run


def action_of(job, container, status):
    """What the Job does with a pod whose container has ended so: the first rule that fits."""
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {})
        if status in codes.get("values", ()):
            assert (codes["operator"], codes["containerName"]) == ("In", container["name"])
            return rule["action"]
    return "Count"


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_the_manifest(documents, version):
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_volume_is_the_claim_that_several_nodes_write_to(job, container, documents):
    (claim,) = (document for document in documents if document["kind"] == "PersistentVolumeClaim")
    (volume,) = job["spec"]["template"]["spec"]["volumes"]
    (mount,) = container["volumeMounts"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert mount["name"] == volume["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_each_index_answers_its_shard(run, server, tmp_path):
    assert [run(index) for index in range(ROWS // SHARD_ROWS)] == [0] * 4
    check(server, tmp_path / "work", ROWS)


def test_rows_that_have_failed_fail_their_index_and_a_refused_key_the_job(run, server):
    server.set_script({"row 7": Error(400)})
    assert [run(0), run(1)] == ["FailIndex", 0]
    server.set_script(lambda request: Error(401))
    assert run(2) == "FailJob"
    assert run(2, OPENAI_API_KEY="") == "FailJob"
    assert run(4) == "FailJob", "an index without a shard"


def test_a_shard_that_another_pod_has_is_tried_again(run, server, tmp_path):
    with running_here(server, tmp_path / "work", 0):
        assert run(0) == "Count"
    assert run(0) == 0
