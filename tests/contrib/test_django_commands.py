"""``manage.py chatpool_run`` and ``chatpool_check``: what they print, and how they exit."""

from __future__ import annotations

import io
import os
import signal
from typing import Any, Tuple

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings

from chatpool.contrib.django import pools
from chatpool.contrib.django.test import outbox, override_pool
from chatpool.testing import Error

from .articles_app.models import Article

pytestmark = pytest.mark.usefixtures("tables", "site")

RUN = ("chatpool_run", "articles_app.Article", "--prompt", "Say {title}")


@pytest.fixture
def site():
    """Five articles, two of them summarised, and two pools that answer from memory."""
    Article.objects.bulk_create([Article(title=f"title {n}", summary="" if n < 3 else "old") for n in range(5)])
    memory = {"BACKEND": "chatpool.contrib.django.backends.MemoryBackend"}
    outbox.clear()
    with override_settings(CHATPOOL={"default": {**memory, "MODEL": "gpt"}, "nightly": {**memory, "MODEL": "slow"}}):
        yield
    Article.objects.all().delete()
    connection.close()


def call(*words: str, **options: Any) -> Tuple[int, str]:
    """The exit code of a command, and what it prints."""
    out = io.StringIO()
    try:
        call_command(*words, stdout=out, **options)
    except CommandError as error:
        return error.returncode, f"{out.getvalue()}{error}"
    return 0, out.getvalue()


def summaries():
    return list(Article.objects.order_by("pk").values_list("summary", flat=True))


class TestRun:
    def test_rows_without_an_answer_get_one(self):
        code, text = call(*RUN, "--save", "summary")
        assert (code, text) == (0, text)
        assert text.startswith("3 of 3 rows answered")
        assert summaries() == ["Say title 0", "Say title 1", "Say title 2", "old", "old"]
        assert {body["model"] for body in outbox} == {"gpt"}
        assert call(*RUN, "--save", "summary")[1].startswith("0 of 0 rows")

    def test_its_options(self, tmp_path):
        words = ["--alias", "nightly", "--limit", "1", "--batch-size", "7", "--journal", str(tmp_path / "j")]
        words += ["--filter", "title__gte=title 1", "author__isnull=True", "author=None", "title__in=title 1,title 2"]
        assert call(*RUN, "--save", "summary", *words)[0] == 0
        assert summaries() == ["", "Say title 1", "", "old", "old"]
        assert [body["model"] for body in outbox] == ["slow"]
        assert (tmp_path / "j").exists()

    def test_a_dry_run(self):
        code, text = call(*RUN, "--save", "summary", "--dry-run")
        assert (code, text) == (0, "3 rows would be sent\nthe first: Say title 0\n")
        assert call(*RUN, "--save", "summary", "--dry-run", "--limit", "2")[1].startswith("2 rows")
        assert not outbox

    def test_numbers(self):
        with override_pool(replies=lambda body: body["messages"][-1]["content"][-1]):
            assert call(*RUN, "--save", "words")[0] == 0
        assert list(Article.objects.order_by("pk").values_list("words", flat=True)) == [0, 1, 2, 3, 4]

    def test_failed_rows(self):
        with override_pool(replies=lambda body: Error(400) if "title 1" in str(body) else "x"):
            code, text = call(*RUN, "--save", "summary")
        assert code == 1
        assert text.endswith("1 of 3 rows failed; the same command goes on from here")

    def test_a_fatal_error_says_what_is_left(self):
        with override_pool(replies=Error(401)):
            code, text = call(*RUN, "--save", "summary")
        assert code == 3
        assert "AuthenticationError: " in text
        assert text.endswith("2 rows are left; the same command goes on from here")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_interrupted_it_keeps_what_it_has(self, number):
        def reply(body):
            if "title 2" in str(body):
                os.kill(os.getpid(), number)
            return "x"

        with override_pool(replies=reply):
            code, text = call(*RUN, "--save", "summary")
        assert code == 130
        assert text.endswith("interrupted; the same command goes on from here")
        assert summaries()[:2] == ["x", "x"]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["chatpool_run", "news.Article", "--prompt", "title", "--save", "summary"], "news"),
            (["chatpool_run", "articles_app.Story", "--prompt", "title", "--save", "summary"], "Story"),
            (["chatpool_run", "Article", "--prompt", "title", "--save", "summary"], "app_label.ModelName"),
            ([*RUN, "--save", "headline"], "headline"),
            ([*RUN[:-1], "{headline}", "--save", "summary"], "no field 'headline'; it has id, title"),
            ([*RUN, "--save", "summary", "--filter", "title"], "NAME=VALUE, got 'title'"),
            ([*RUN, "--save", "summary", "--filter", "headline=x"], "headline"),
            ([*RUN, "--save", "summary", "--filter", "words=many"], "many"),
            ([*RUN, "--save", "summary", "--limit", "0"], "limit"),
            ([*RUN, "--save", "summary", "--batch-size", "0"], "batch_size"),
            ([*RUN, "--save", "summary", "--alias", "weekly"], "'weekly'"),
        ],
    )
    def test_wrong_usage(self, words, text):
        code, printed = call(*words)
        assert code == 2
        assert text in printed
        assert not outbox


class TestCheck:
    def test_settings_alone(self):
        code, text = call("chatpool_check")
        assert code == 0
        assert "default: <ChatPool model='gpt'" in text
        assert "nightly: " in text
        assert not outbox

    def test_a_call_of_each(self):
        code, text = call("chatpool_check", "--live")
        assert code == 0
        assert text.count("ok       call") == 2
        assert {body["model"] for body in outbox} == {"gpt", "slow"}

    def test_one_alias(self):
        code, text = call("chatpool_check", "--alias", "nightly", "--live")
        assert (code, "default:" in text) == (0, False)
        assert call("chatpool_check", "--alias", "weekly")[0] == 2

    def test_a_server_that_refuses(self, server):
        server.set_script(Error(401))
        with override_settings(CHATPOOL={"default": {"MODEL": "m", "BASE_URL": server.base_url, "API_KEY": "secret"}}):
            code, text = call("chatpool_check", "--live")
            pools.close_all()
        assert code == 3
        assert "WRONG    key" in text
        assert "secret" not in text

    def test_wrong_settings(self):
        with override_settings(CHATPOOL={"default": {"MODELL": "m", "API_KEY": "secret"}}):
            code, text = call("chatpool_check")
        assert code == 2
        assert "chatpool.E002" in text
        assert "secret" not in text
