"""Rows of a table in PostgreSQL, and the connections that a run leaves open: ``postgres_rows.py make|run``."""

import json
import os
import sys
import time

import django
from django.conf import settings

settings.configure(
    CHATPOOL={"default": {"MODEL": "m", "BASE_URL": os.environ["CHAT_URL"], "MAX_WORKERS": 8}},
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ["SOCKETS"],
            "NAME": "postgres",
            "USER": "postgres",
            "CONN_MAX_AGE": json.loads(os.environ["CONN_MAX_AGE"]),
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["chatpool.contrib.django", "tests.contrib.articles_app"],
    USE_TZ=True,
)
django.setup()

from django.apps import apps  # noqa: E402 - after the setup
from django.db import connection  # noqa: E402

from chatpool.contrib.django import run_queryset  # noqa: E402
from tests.contrib.articles_app.models import Article  # noqa: E402

HUNG = 60  # seconds
OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


def other_connections():
    with connection.cursor() as cursor:
        cursor.execute(OTHERS)
        return cursor.fetchone()[0]


def make(count):
    with connection.schema_editor() as editor:
        for model in apps.get_app_config("articles_app").get_models():
            editor.create_model(model)
    Article.objects.bulk_create([Article(title=f"row {number}") for number in range(int(count))])


def run(journal):
    peak = 0

    def parse(text):
        nonlocal peak
        peak = max(peak, other_connections())
        return f"{text}: {Article.objects.filter(title=text).count()}"

    result = run_queryset(
        Article.objects.filter(summary=""), "title", "summary", parse=parse, journal=journal or None, batch_size=20
    )
    ended = time.monotonic()
    while other_connections() and time.monotonic() - ended < HUNG:
        time.sleep(0.01)
    seconds = time.monotonic() - ended
    done = Article.objects.exclude(summary="").count()
    facts = {"pending": result.pending, "peak": peak, "open": other_connections(), "seconds": seconds, "done": done}
    print(json.dumps(facts))


{"make": make, "run": run}[sys.argv[1]](sys.argv[2])
