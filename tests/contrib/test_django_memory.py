"""Pools of a site that answer from memory, in the tests of the site."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import unittest
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings

import chatpool
from chatpool import ChatPool, RateLimitError
from chatpool.contrib.django import InvalidPoolError, pool, pools
from chatpool.contrib.django.pools import PoolHandler
from chatpool.contrib.django.test import ChatPoolTestMixin, outbox, override_pool
from chatpool.testing import Error, MemoryPool

from .articles_app.models import Article

ROOT = Path(chatpool.__file__).parents[1]

SITE = {
    "default": {"MODEL": "gpt", "API_KEY": "k", "SYSTEM": "be brief", "LIMITS": {"scope": "our-account"}},
    "azure": {
        "BACKEND": "chatpool.contrib.django.backends.AzureBackend",
        "ENDPOINT": "https://x.openai.azure.com",
        "DEPLOYMENT": "our-gpt",
        "API_VERSION": "2024-10-21",
        "API_KEY": "k",
    },
}
SITE["default"]["LIMITS"]["requests_per_minute"] = 60
MEMORY = {"BACKEND": "chatpool.contrib.django.backends.MemoryBackend"}


def run(case: type) -> unittest.TestResult:
    """Run the tests of a class as Django's runner does."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


def ask(prompt: str, alias: str = "default") -> str:
    return pools[alias].chat(prompt).text


class TestBackend:
    def test_it_takes_the_settings_of_every_other_one(self):
        outbox.clear()
        with override_settings(CHATPOOL={alias: {**options, **MEMORY} for alias, options in SITE.items()}):
            assert ask("ping") == ask("ping", "azure") == "ping"
        assert [body["model"] for body in outbox] == ["gpt", "our-gpt"]
        assert outbox[0]["messages"][0]["content"] == "be brief"

    def test_replies_may_stand_in_the_settings(self):
        with override_settings(CHATPOOL={"default": {**MEMORY, "REPLIES": {"a": "1"}}}):
            assert pool.chat("a").text == "1"
            with pytest.raises(AssertionError, match="'b'"):
                pool.chat("b")

    def test_django_checks_it(self):
        from chatpool.contrib.django.checks import check_settings

        with override_settings(CHATPOOL={"default": {**MEMORY, "REPLIES": "x", "MODELL": "m"}}):
            (message,) = check_settings()
            assert message.id == "chatpool.E002"
        with override_settings(CHATPOOL={alias: {**options, **MEMORY} for alias, options in SITE.items()}):
            assert check_settings() == []


@pytest.fixture
def site():
    """Two pools that would send to OpenAI and to Azure."""
    with override_settings(CHATPOOL=SITE):
        yield


@pytest.mark.usefixtures("site")
class TestOverridePool:  # no TestCase: up to Python 3.10 the classes within its tests would share its clean-up
    def test_a_context(self):
        with override_pool(replies={"q": "a"}) as memory:
            assert ask("q") == "a"
            memory.replies = "other"
            assert ask("anything") == "other"
            with override_pool("azure"), override_pool(replies="inner"):
                assert (ask("q"), ask("q", "azure")) == ("inner", "q")
            assert ask("q") == "other"
        assert memory.outbox is outbox
        assert not isinstance(pools["default"], MemoryPool)

    @override_pool(replies=Error(429))
    def test_a_method(self):
        with pytest.raises(RateLimitError):
            ask("q")

    def test_functions_that_call_themselves_and_coroutines(self):
        @override_pool(replies="x")
        def count_down(left):
            return ask("q") if not left else count_down(left - 1)

        @override_pool(replies="y")
        async def ask_later():
            return ask("q")

        assert count_down(2) == "x"
        with pytest.raises(StopIteration) as stopped:
            ask_later().send(None)
        assert stopped.value.value == "y"

    def test_a_class(self):
        @override_pool(replies="z")
        class Tests(SimpleTestCase):
            def test_one(self):
                assert ask("q") == "z"

        assert run(Tests).wasSuccessful()
        assert not isinstance(pools["default"], MemoryPool)

    def test_what_is_wrong(self):
        with pytest.raises(TypeError, match="replies must be"):
            override_pool(replies=3)
        with pytest.raises(InvalidPoolError, match="'nightly'"), override_pool("nightly"):
            pass
        with override_settings(CHATPOOL={"default": {"MODELL": 1}}), pytest.raises(InvalidPoolError, match="MODEL"):
            override_pool().enable()

    def test_other_threads_have_it_too(self):
        with override_pool(replies="x"):
            answers = []
            thread = threading.Thread(target=lambda: answers.append(ask("q")))
            thread.start()
            thread.join()
        assert answers == ["x"]


@pytest.mark.usefixtures("tables")
class TestParseInATransaction(ChatPoolTestMixin, TestCase):
    """``TestCase`` keeps its rows in a transaction, which other threads do not see."""

    databases = frozenset({"default"})
    chat_reply = "7"

    @classmethod
    def setUpTestData(cls):
        cls.article = Article.objects.create(title="first", summary=pool.chat("made for the class").text)

    def test_parse_sees_the_rows_of_the_test(self):
        Article.objects.create(title="second")
        before = threading.enumerate()
        answers = pool.map(["a"] * 5, parse=lambda text: int(text) + Article.objects.count())
        assert [answer.parsed for answer in answers] == [9] * 5
        assert threading.enumerate() == before
        assert connection.in_atomic_block  # no hook has closed the test's connection
        assert self.article.summary == "7"


@pytest.mark.usefixtures("tables")
class TestParseWithoutATransaction(ChatPoolTestMixin, TransactionTestCase):
    databases = frozenset({"default"})

    def test_parse_sees_the_rows_of_the_test(self):
        Article.objects.create(title="second")
        assert pool.chat("1", parse=lambda text: int(text) + Article.objects.count()).parsed == 2


class TestMixin:
    def test_replies_of_all_kinds_and_an_outbox_per_test(self):
        class Tests(ChatPoolTestMixin, SimpleTestCase):
            chat_reply = "of the class"

            def test_one(self):
                assert ask("q") == ask("q", "azure") == "of the class"
                self.chat_reply = ["1", "2"]
                assert ask("q") + ask("q", "azure") == "12"
                self.chat_reply = {"q": "3"}
                assert ask("q") == "3"
                assert len(outbox) == 5

            test_two = test_one

            def test_a_failure(self):
                self.chat_reply = Error(429)
                with pytest.raises(RateLimitError):
                    ask("q")

        with override_settings(CHATPOOL=SITE):
            result = run(Tests)
        assert result.wasSuccessful(), result.errors + result.failures
        assert result.testsRun == 3

    def test_a_method_replies(self):
        class Tests(ChatPoolTestMixin, SimpleTestCase):
            def chat_reply(self, body):
                return f"{self._testMethodName} {body['messages'][-1]['content']}"

            def test_it(self):
                assert ask("q") == "test_it q"

            def debug_it(self):
                self.test_it()

        with override_settings(CHATPOOL={"default": {}}):
            assert run(Tests).wasSuccessful()
            Tests("test_it").debug()

    def test_an_unknown_prompt_fails_the_test(self):
        class Tests(ChatPoolTestMixin, SimpleTestCase):
            chat_reply = {"known": "1"}

            def test_it(self):
                ask("unknown")

        with override_settings(CHATPOOL={"default": {}}):
            ((_, text),) = run(Tests).failures
        assert "no reply to the prompt 'unknown', only to ['known']" in text

    def test_a_call_that_is_not_from_memory_fails_the_test_by_name(self, server):
        class Tests(ChatPoolTestMixin, SimpleTestCase):
            def test_hidden(self):
                with ChatPool("m", base_url=server.base_url) as own, pytest.raises(AssertionError):
                    own.chat("q")

            def test_run(self):
                with ChatPool("m", base_url=server.base_url) as own:
                    list(own.imap(["q"]))

        with override_settings(CHATPOOL={"default": {}}):
            result = run(Tests)
        assert not server.requests
        assert len(result.failures) >= 2
        for test, text in result.failures:
            assert f"{test.id()} makes a call to {server.base_url}" in text
        with ChatPool("m", base_url=server.base_url) as own:
            assert own.chat("afterwards").text == "afterwards"


def test_pools_are_left_as_they_were():
    handler = PoolHandler()
    with override_settings(CHATPOOL=SITE):
        before = handler["default"]
        with handler.replaced("default", MemoryPool()):
            pass
        assert handler["default"] is before
        handler.close_all()


FIXTURE_TESTS = """
import pytest
import chatpool
from chatpool.contrib.django import pool
from chatpool.testing import Error


def test_echo(chatpool_replies):
    assert pool.chat("q").text == "q"
    chatpool_replies.set({"q": "a"})
    assert pool.chat("q").text == "a"
    assert len(chatpool_replies.outbox) == 2


def test_fresh(chatpool_replies):
    assert chatpool_replies.outbox == []
    chatpool_replies.set(Error(401))
    with pytest.raises(chatpool.AuthenticationError):
        pool.chat("q")


@DATABASE
def test_a_row(chatpool_replies):
    from django.contrib.auth.models import Group

    Group.objects.create(name="g")
    assert pool.chat("1", parse=lambda text: int(text) + Group.objects.count()).parsed == 2


def test_a_real_call(chatpool_replies):
    try:
        chatpool.ChatPool("m", base_url="http://127.0.0.1:9/v1").chat("q")
    except AssertionError:
        pass
"""

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "chatpool.contrib.django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
"""


@pytest.mark.parametrize("plugin", ["pytest_django", None])
@pytest.mark.slow
def test_the_fixture_of_pytest(tmp_path, plugin):
    if plugin is not None:
        pytest.importorskip(plugin)  # not in the extra: the fixture works without it
    marks = {"pytest_django": "pytest.mark.django_db", None: "pytest.mark.skip(reason='no database')"}
    (tmp_path / "site_settings.py").write_text(SETTINGS)
    (tmp_path / "conftest.py").write_text(
        textwrap.dedent("""
            import django

            pytest_plugins = ["chatpool.contrib.django.pytest"]
            django.setup()
        """)
    )
    (tmp_path / "test_site.py").write_text(FIXTURE_TESTS.replace("DATABASE", marks[plugin]))
    loaded = [] if plugin else ["-p", "no:django"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", *loaded, str(tmp_path)],
        cwd=tmp_path,
        env={**_environment(), "DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    counts = "4 passed, 1 error" if plugin else "3 passed, 1 skipped, 1 error"
    assert counts in done.stdout, done.stdout + done.stderr
    assert "test_site.py::test_a_real_call makes a call to http://127.0.0.1:9/v1" in done.stdout


def _environment():
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}


def test_the_settings_of_the_tests_name_no_pool():
    assert not hasattr(settings, "CHATPOOL")
