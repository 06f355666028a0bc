"""A Django project in one module: pages of questions, streams, and what its process has open.

``parse=`` asks the database, so that the workers of the pool open connections to it.
"""

from __future__ import annotations

import os
import threading

import django
from counted import counts
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.db.backends.signals import connection_created
from django.http import JsonResponse
from django.urls import path

from chatpool.contrib.django import StreamingChatResponse, pool

settings.configure(
    ALLOWED_HOSTS=["*"],
    CHATPOOL={
        "default": {
            "MODEL": "m",
            "BASE_URL": os.environ["OPENAI_BASE_URL"],
            "MAX_WORKERS": 32,
            "TIMEOUT": {"total": 300},
        }
    },
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SITE_DATABASE"], "CONN_MAX_AGE": 600}
    },
    INSTALLED_APPS=["chatpool.contrib.django"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests",
)
django.setup()

opened = []  # the connections of the pool's workers
connection_created.connect(lambda connection, **_: opened.append(connection) if is_worker() else None, weak=False)


def is_worker():
    """Return whether this thread is one of a pool's."""
    return threading.current_thread().name.startswith("chatpool_")


def parsed(text):
    """Return the text, by way of the database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s", [text])
        return cursor.fetchone()[0]


def answers(request):
    """Answer every question of a form."""
    replies = pool.map(request.POST.getlist("question"), parse=parsed, progress=False)
    return JsonResponse({"answers": replies.parsed})


def stream(request):
    """Show an answer while it is written."""
    return StreamingChatResponse(request.GET["question"], heartbeat=0.03)


def count(request):
    """Tell what is open."""
    databases = sum(each.connection is not None for each in opened)
    return JsonResponse({**counts(), "databases": databases, "opened": len(opened)})


urlpatterns = [path("answers", answers), path("stream", stream), path("counts", count)]
app = get_asgi_application() if os.environ.get("SITE_IS_ASYNC") else get_wsgi_application()
