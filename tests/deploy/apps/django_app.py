"""A Django project in one module: views that call a pool, whose workers use the database too."""

from __future__ import annotations

import os
import threading

import django
from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests",
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"], "CONN_MAX_AGE": 0}},
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402 - Django's own order of things
from django.db import close_old_connections, connection  # noqa: E402

import chatpool  # noqa: E402

changed = threading.Condition()
hooks = []  # (the thread is one of the pool's, its connection was open before, and is afterwards)


def look_something_up(event):
    """A listener that queries the database, in a worker thread."""
    if event.kind == "sent":
        connection.cursor().execute("SELECT 1")


def after_call():
    """Closes the worker's connection, and notes that it did."""
    before = connection.connection is not None
    close_old_connections()
    after = connection.connection is not None
    with changed:
        hooks.append((threading.current_thread().name.startswith("chatpool"), before, after))
        changed.notify_all()


pool = chatpool.ChatPool(
    "m", base_url=os.environ["CHAT_URL"], max_workers=4, listeners=[look_something_up], after_call=after_call
)
pool.map(["preload"] * 8)
with changed:  # the workers are forked with all hooks done: one comes after the answer that it follows
    assert changed.wait_for(lambda: len(hooks) == 8, 10)


def ask(request, prompt):
    """The answer, within three seconds."""
    try:
        return HttpResponse(pool.chat(prompt, timeout=chatpool.Timeout(total=3)).text)
    except chatpool.ChatPoolError as error:
        return HttpResponse(type(error).__name__, status=504)


def hooks_after(request, calls):
    """What the hooks saw, once there were so many in this process."""
    with changed:
        changed.wait_for(lambda: len(hooks) >= calls, 10)
        return JsonResponse({"hooks": hooks})


urlpatterns = [path("ask/<prompt>", ask), path("hooks/<int:calls>", hooks_after)]
application = get_wsgi_application()
