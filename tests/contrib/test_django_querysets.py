"""Rows of a table are answered and saved in batches; what is not in the table is sent again, and no more."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import F, Value
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

import chatpool
from chatpool import ChatPool, ConfigurationError
from chatpool.contrib.django import pools, run_queryset
from chatpool.testing import Error, FakeServer, MemoryPool, Stall

from .articles_app.models import Article, Author, Tag

pytestmark = pytest.mark.usefixtures("tables", "rows")

ROOT = Path(chatpool.__file__).parents[1]


@pytest.fixture
def rows():
    """Ten articles without summaries; afterwards nothing."""
    author = Author.objects.create(name="Ada")
    date = datetime.date(2024, 2, 29)
    Article.objects.bulk_create([Article(title=f"title {n}", author=author, published=date) for n in range(10)])
    yield
    for model in (Article, Author, Tag):
        model.objects.all().delete()
    connection.close()


def unsummarised():
    return Article.objects.filter(summary="")


def summaries():
    return list(Article.objects.order_by("pk").values_list("summary", flat=True))


class TestPrompts:
    @pytest.mark.parametrize(
        ("prompt", "first"),
        [
            ("title", "title 0"),
            ("Say {title}, {author__name}, {published} {{}}{words}", "Say title 0, Ada, 2024-02-29 {}"),
            ("published", "2024-02-29"),
            (lambda row: [{"role": "user", "content": row.title.upper()}], "TITLE 0"),
        ],
    )
    def test_of_every_kind(self, prompt, first):
        pool = MemoryPool("m")
        result = run_queryset(unsummarised(), prompt, "summary", pool=pool)
        assert (result.rows, result.succeeded, result.pending, result.fatal) == (10, 10, 0, None)
        assert pool.outbox[0]["messages"][0]["content"] == summaries()[0] == first
        assert result.usage.total_tokens > 0

    def test_an_annotation_is_a_field(self):
        pool = MemoryPool("m", replies="x")
        queryset = unsummarised().annotate(shouted=Value("AH"), again=F("title"))
        run_queryset(queryset, "{shouted} {again}", "summary", pool=pool, limit=1)
        assert pool.outbox[0]["messages"][0]["content"] == "AH title 0"

    @pytest.mark.parametrize(
        ("prompt", "words"),
        [
            ("headline", "'headline'.*title"),
            ("{headline}", "'headline'"),
            ("{title", "template"),
            ("{title!r}", "place"),
        ],
    )
    def test_wrong_ones_are_refused_before_anything_is_sent(self, prompt, words):
        pool = MemoryPool("m")
        with pytest.raises(ValueError, match=words):
            run_queryset(unsummarised(), prompt, "summary", pool=pool)
        assert not pool.outbox

    def test_an_empty_field_is_a_failed_row(self):
        Article.objects.filter(title="title 3").update(title="")
        pool = MemoryPool("m", replies="x")
        result = run_queryset(unsummarised(), "title", "summary", pool=pool)
        assert (result.succeeded, result.failed, result.pending) == (9, 1, 0)
        assert len(pool.outbox) == 9


class TestQuerysets:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: Article.objects.order_by("title"), "has an order.*leave out order_by"),
            (lambda: Article.objects.order_by("-pk"), "has an order"),
            (lambda: Article.objects.all()[:5], "is a slice.*limit="),
            (lambda: Article.objects.values("title"), "holds no instances but values"),
            (lambda: Article.objects.values_list("title", flat=True), "holds no instances"),
            (lambda: Article.objects.all().union(Article.objects.all()), "is a union"),
        ],
    )
    def test_those_that_cannot_be_read_by_key(self, make, words):
        pool = MemoryPool("m")
        with pytest.raises(ConfigurationError, match=words):
            run_queryset(make(), "title", "summary", pool=pool)
        assert not pool.outbox

    @pytest.mark.parametrize("make", [lambda: Article, lambda: Article.objects, list])
    def test_what_is_none(self, make):
        with pytest.raises(TypeError, match="must be a QuerySet"):
            run_queryset(make(), "title", "summary", pool=MemoryPool("m"))

    @pytest.mark.parametrize("order", ["pk", "id"])
    def test_an_order_by_key_may_be_named(self, order):
        assert run_queryset(Article.objects.order_by(order), "title", "summary", pool=MemoryPool("m")).succeeded == 10

    def test_rows_are_read_in_pages_by_key_and_in_no_transaction(self, monkeypatch):
        monkeypatch.setattr("chatpool.contrib.django.querysets._PAGE_ROWS", 3)
        with CaptureQueriesContext(connection) as queries:
            run_queryset(unsummarised(), "title", "summary", pool=MemoryPool("m"), batch_size=2)
        reads = [query["sql"] for query in queries if query["sql"].startswith("SELECT") and "COUNT" not in query["sql"]]
        assert len(reads) == 4
        assert all("LIMIT 3" in sql and 'ORDER BY "articles_app_article"."id" ASC' in sql for sql in reads)
        assert sum(query["sql"].startswith("UPDATE") for query in queries) == 5
        assert all(summaries())

    def test_a_limit(self):
        pool = MemoryPool("m")
        result = run_queryset(unsummarised(), "title", "summary", pool=pool, limit=4)
        assert (result.rows, result.succeeded, result.pending) == (4, 4, 0)
        assert len(pool.outbox) == 4
        with pytest.raises(ConfigurationError, match="limit"):
            run_queryset(unsummarised(), "title", "summary", pool=pool, limit=0)

    def test_keys_of_other_kinds(self, tmp_path):
        Tag.objects.bulk_create([Tag(code=uuid.uuid4(), text=f'{{"n": {n}}}') for n in range(20)])
        pool = MemoryPool("m")
        options = {"pool": pool, "journal": tmp_path / "j", "parse": dict, "batch_size": 7}
        options["parse"] = {"type": "object", "properties": {"n": {"type": "integer"}}}
        assert run_queryset(Tag.objects.filter(answer__isnull=True), "text", "answer", **options).succeeded == 20
        assert sorted(tag.answer["n"] for tag in Tag.objects.all()) == list(range(20))

    def test_the_pool_is_the_default_one(self):
        site = {"default": {"BACKEND": "chatpool.contrib.django.backends.MemoryBackend", "REPLIES": "x"}}
        with override_settings(CHATPOOL=site):
            run_queryset(unsummarised(), "title", "summary")
        assert summaries() == ["x"] * 10


class TestSaving:
    def test_a_function_gets_pairs_in_a_transaction(self):
        seen = []

        def save(pairs):
            assert connection.in_atomic_block
            seen.append([(row.title, outcome.ok) for row, outcome in pairs])
            for row, outcome in pairs:
                row.summary = outcome.value.text if outcome.ok else "failed"
                row.save()

        pool = MemoryPool("m", replies=lambda body: Error(400) if "title 2" in str(body) else "x")
        result = run_queryset(unsummarised(), "title", save, pool=pool, batch_size=4)
        assert [len(batch) for batch in seen] == [4, 4, 2]
        assert seen[0][1:3] == [("title 1", True), ("title 2", False)]
        assert (result.succeeded, result.failed, result.causes) == (9, 1, {"BadRequestError": 1})
        assert summaries()[2] == "failed"

    def test_with_parse_a_field_gets_what_that_returns(self):
        pool = MemoryPool("m", replies=lambda body: body["messages"][0]["content"][-1])
        run_queryset(unsummarised(), "title", "words", pool=pool, parse=int)
        assert list(Article.objects.order_by("pk").values_list("words", flat=True)) == list(range(10))

    def test_an_answer_that_the_field_does_not_take_is_a_failed_row(self):
        pool = MemoryPool("m", replies=lambda body: "none" if "title 4" in str(body) else "7")
        result = run_queryset(Article.objects.filter(words=None), "title", "words", pool=pool)
        assert (result.succeeded, result.failed, result.causes) == (9, 1, {"ValidationError": 1})
        assert Article.objects.get(words=None).title == "title 4"

    def test_a_batch_that_cannot_be_saved_is_rolled_back_and_raised(self):
        def save(pairs):
            for row, _ in pairs:
                row.summary = "half"
                row.save()
                if row.title == "title 5":
                    raise DatabaseError("disk is full")

        with pytest.raises(DatabaseError, match="disk is full"):
            run_queryset(unsummarised(), "title", save, pool=MemoryPool("m"), batch_size=4)
        assert summaries() == ["half"] * 4 + [""] * 6

    def test_what_had_come_is_saved_after_ctrl_c(self):
        def reply(body):
            if "title 5" in str(body):
                raise KeyboardInterrupt
            return "x"

        with pytest.raises(KeyboardInterrupt):
            run_queryset(unsummarised(), "title", "summary", pool=MemoryPool("m", replies=reply))
        assert summaries() == ["x"] * 5 + [""] * 5

    @pytest.mark.parametrize(("save", "error"), [("headline", ValueError), ("id", ValueError), (3, TypeError)])
    def test_wrong_ones(self, save, error):
        pool = MemoryPool("m")
        with pytest.raises(error, match="save"):
            run_queryset(unsummarised(), "title", save, pool=pool)
        assert not pool.outbox

    def test_within_a_transaction_of_the_caller(self):
        with transaction.atomic():
            run_queryset(unsummarised(), "title", "summary", pool=MemoryPool("m"))
            transaction.set_rollback(True)
        assert summaries() == [""] * 10


class TestGoingOn:
    def test_a_fatal_error_says_what_is_left(self):
        pool = MemoryPool("m", replies=[*["x"] * 4, *[Error(401)] * 30])
        result = run_queryset(unsummarised(), "title", "summary", pool=pool, batch_size=3)
        assert (result.succeeded, result.failed, result.pending) == (4, 1, 5)
        assert type(result.fatal).__name__ == "AuthenticationError"
        pool.replies = "y"
        assert run_queryset(unsummarised(), "title", "summary", pool=pool).succeeded == 6
        assert summaries() == ["x"] * 4 + ["y"] * 6

    def test_after_it_little_more_is_read(self, monkeypatch):
        monkeypatch.setattr("chatpool.contrib.django.querysets._PAGE_ROWS", 10)
        monkeypatch.setattr("chatpool.contrib.django.querysets._UNSENT_ROWS", 20)
        Article.objects.bulk_create([Article(title=f"more {n}") for n in range(300)])
        with CaptureQueriesContext(connection) as queries:
            result = run_queryset(
                unsummarised(), "title", "summary", pool=MemoryPool("m", replies=Error(401), max_workers=2)
            )
        assert (result.rows, result.pending) == (310, 309)
        assert len(queries) < 10

    def test_rows_in_the_journal_are_saved_and_not_sent(self, tmp_path):
        pool = MemoryPool("m")

        def broken(pairs):
            raise DatabaseError("gone")

        with pytest.raises(DatabaseError):
            run_queryset(unsummarised(), "title", broken, pool=pool, journal=tmp_path / "j", batch_size=6)
        assert (len(pool.outbox), summaries()) == (6, [""] * 10)
        run_queryset(unsummarised(), "title", "summary", pool=pool, journal=tmp_path / "j", batch_size=6)
        assert len(pool.outbox) == 10
        assert summaries() == [f"title {n}" for n in range(10)]

    def test_with_workers_rows_are_saved_here_and_parse_runs_there(self, server):
        here = threading.get_ident()
        saved_in = set()

        def save(pairs):
            saved_in.add(threading.get_ident())
            Article.objects.bulk_update([row for row, _ in pairs], ["title"])

        with ChatPool("m", base_url=server.base_url, worker_end=connections.close_all) as pool:
            result = run_queryset(
                Article.objects.all(), "title", save, pool=pool, parse=lambda text: Article.objects.count()
            )
        assert result.succeeded == 10
        assert saved_in == {here}


CHILD = """
import os, sys
import django
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1], "OPTIONS": {"timeout": 60}}},
    INSTALLED_APPS=["tests.contrib.articles_app"], USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
from chatpool import ChatPool
from chatpool.contrib.django import run_queryset
from tests.contrib.articles_app.models import Article

with ChatPool("m", base_url=sys.argv[2], max_workers=8) as pool:
    result = run_queryset(
        Article.objects.filter(summary=""), "title", "summary", pool=pool, journal=sys.argv[3] or None, batch_size=20
    )
print(result.succeeded, result.pending)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.slow
@pytest.mark.parametrize("with_journal", [True, False])
def test_a_killed_run_is_gone_on_with(tmp_path, with_journal):
    """Of 400 rows none is lost; at most the calls in flight, and without a journal the batch, are sent again."""
    Article.objects.bulk_create([Article(title=f"row {n}") for n in range(390)])
    connection.close()
    database = connection.settings_dict["NAME"]
    journal = str(tmp_path / "journal") if with_journal else ""
    answered = 0
    with FakeServer(script=lambda request: Stall() if request.number >= answered else None) as server:
        command = [sys.executable, "-c", CHILD, database, server.base_url, journal]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        for answered in (60, 150, 230):
            child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            server.wait_for(answered + 8, timeout=60)  # all workers wait
            child.send_signal(signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL
        answered = 1000
        output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
        assert output.stdout.endswith(" 0\n")
        repeated = len(server.requests) - 400
    assert not Article.objects.exclude(summary=F("title")).exists()
    assert 3 * 8 <= repeated <= 3 * (8 if with_journal else 8 + 20)


def test_pools_of_the_site_are_closed():
    pools.close_all()
