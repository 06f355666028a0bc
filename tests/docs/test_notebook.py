"""The how-to for notebooks, run as one: by Jupyter's client in a kernel, as the front ends do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from page_examples import check_output

from chatpool.testing import Stall

pytestmark = [
    pytest.mark.deploy,
    # What Jupyter's packages have to say to their own authors, or about event loops.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::ResourceWarning"),
]

ROOT = Path(__file__).resolve().parents[2]
HUNG_SECONDS = 120  # what takes as long does not end at all


@pytest.fixture
def kernel_environment(example_server, tmp_path, monkeypatch):
    """The environment of kernels: the server of the examples, this checkout, and a home of their own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)
    return dict(os.environ)


@pytest.fixture
def run_cells(kernel_environment, tmp_path):
    """``run_cells(sources)`` runs the cells of a notebook in order and returns them with their outputs."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")

    def run(sources):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        client = nbclient.NotebookClient(
            notebook, timeout=HUNG_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
        )
        return client.execute(env=kernel_environment).cells

    return run


def printed(cell):
    return "".join(each.text for each in cell.outputs if each.output_type == "stream" and each.name == "stdout")


def shown(cell):
    """What the last line of a cell shows, by its type."""
    (data,) = [each.data for each in cell.outputs if each.output_type == "execute_result"]
    return data


@pytest.mark.smoke
def test_the_page_s_cells_run_and_show_what_it_says(run_cells, docs, read):
    examples = read((docs / "howto" / "notebook.md").read_text(encoding="utf-8"))
    cells = run_cells([example.source for example in examples])
    for example, cell in zip(examples, cells):
        check_output(example, printed(cell))
    last_lines = [example.source.splitlines()[-1] for example in examples]
    replies, report = (shown(cells[last_lines.index(name)]) for name in ("replies", "report"))
    assert replies["text/plain"].startswith("<Results: 3 of 3 answered")
    for words in ("<table>", "Broke after a day.", "negative"):
        assert words in replies["text/html"]
    assert report["text/plain"].startswith("<Report of reviews.journal: 3 rows, 3 answered")
    assert "<table>" in report["text/html"]


@pytest.fixture
def kernel(kernel_environment):
    """A kernel without a front end, and a function that runs a cell and returns what it was answered."""
    manager_module = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    manager, client = manager_module.start_new_kernel(kernel_name="python3", env=kernel_environment)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run_cell(client, source):
    """Run a cell and return what it prints; the names of exceptions as well."""
    texts = []

    def on_output(message):
        content = message["content"]
        texts.append(content.get("text") or content.get("ename") or "")

    client.execute_interactive(source, output_hook=on_output, timeout=HUNG_SECONDS)
    return "".join(texts)


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts as POSIX has them")
def test_the_stop_button_leaves_what_was_finished_and_a_pool_that_works(kernel, example_server):
    manager, client = kernel
    example_server.set_script(lambda request: Stall() if request.prompt == "slow" else None)
    run_cell(client, "from chatpool import ChatPool; import sys; pool = ChatPool('m', max_workers=2)")
    client.execute("replies = pool.map(['ping', 'pong', 'slow', 'slow', 'ping'], journal='run.journal')")
    example_server.wait_until(lambda: sum(request.prompt == "slow" for request in example_server.requests) == 2)
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=HUNG_SECONDS)
    assert (reply["content"]["status"], reply["content"]["ename"]) == ("error", "KeyboardInterrupt")
    assert "['pong', 'ping', None, None, None]" in run_cell(client, "print(sys.last_value.results.texts)")
    example_server.set_script(None)
    sent = len(example_server.requests)
    again = "print(pool.map(['ping', 'pong', 'slow', 'slow', 'ping'], journal='run.journal').texts)"
    assert "['pong', 'ping', 'slow', 'slow', 'pong']" in run_cell(client, again)
    assert len(example_server.requests) - sent == 3
