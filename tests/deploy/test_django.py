"""Django under gunicorn: views with a time limit, and database connections in the pool's workers."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.deploy


@pytest.fixture
def get(server, python, tmp_path):
    """A function that gets a page of the project: its status and its text."""
    gunicorn = python(
        *("-m", "gunicorn", "--preload", "--worker-class", "gthread", "--threads", "8"),
        *("--bind", "127.0.0.1:0", "django_app:application"),
        CHAT_URL=server.base_url,
        DATABASE=str(tmp_path / "database"),
    )
    address = gunicorn.wait_for(r"Listening at: (http://\S+)").group(1)

    def get(path):
        try:
            with urllib.request.urlopen(f"{address}/{path}", timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    yield get
    assert gunicorn.end() == 0
    assert "Traceback" not in gunicorn.output


@pytest.mark.smoke
def test_views_get_their_own_answers(get):
    prompts = [f"prompt-{number}" for number in range(100)]
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(get, [f"ask/{prompt}" for prompt in prompts]))
    assert answers == [(200, prompt) for prompt in prompts]


def test_a_view_ends_with_its_time_limit(get):
    began = time.monotonic()
    status, text = get("ask/stall")
    elapsed = time.monotonic() - began
    assert (status, text) == (504, "DeadlineExceededError")
    assert 3 <= elapsed < 60  # the server never answers
    assert get("ask/next") == (200, "next")


def test_connections_to_the_database_are_closed_in_the_pools_workers(get):
    for number in range(3):
        assert get(f"ask/{number}")[0] == 200
    before_the_fork = 8
    hooks = json.loads(get(f"hooks/{before_the_fork + 3}")[1])["hooks"]
    assert len(hooks) == before_the_fork + 3
    assert {tuple(hook) for hook in hooks} == {(True, True, False)}
