"""Files of ``examples/`` that a page shows are shown as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ON_PAGES = {"cron_answers.py", "fastapi_app.py", "flask_app.py", "gunicorn_conf.py"}


def test_a_page_shows_a_file_of_the_examples_as_it_is(docs: Path, read: Callable[[str], List[Any]]) -> None:
    shown = set()
    for page in docs.rglob("*.md"):
        for example in read(page.read_text(encoding="utf-8")):
            if example.file is not None and (EXAMPLES / example.file).is_file():
                text = (EXAMPLES / example.file).read_text(encoding="utf-8")
                assert example.source == f"# {example.file}\n{text}", f"{page}, line {example.line}"
                shown.add(example.file)
    assert shown == ON_PAGES


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("airflow-prefect.md", "airflow_dag.py"),
        ("airflow-prefect.md", "prefect_flow.py"),
        ("kubernetes.md", "kubernetes_job.yaml"),
        ("ray.md", "ray_shards.py"),
        ("slurm.md", "shards.sbatch"),
        ("spark.md", "spark_shards.py"),
    ],
)
def test_a_page_shows_an_example_that_needs_an_engine_as_it_is(docs: Path, where: str, name: str) -> None:
    text = (docs / "howto" / where).read_text(encoding="utf-8")
    assert f"```text\n{(EXAMPLES / name).read_text(encoding='utf-8')}```" in text
