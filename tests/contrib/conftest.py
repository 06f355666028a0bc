"""One configuration of Django for the tests of ``chatpool.contrib.django``; a settings module is not needed."""

from __future__ import annotations

import tempfile
from typing import Iterator

import django
import pytest
from django.conf import settings

from chatpool.testing import FakeServer

# A file: connections to a database in memory are never closed.
_FOLDER = tempfile.TemporaryDirectory(prefix="chatpool-django-")

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{_FOLDER.name}/site.sqlite3"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["chatpool.contrib.django", "tests.contrib.articles_app"],
        ROOT_URLCONF="tests.contrib.site_urls",
        SECRET_KEY="for tests",
        USE_TZ=True,
    )
    django.setup()


@pytest.fixture(scope="session")
def tables() -> Iterator[None]:
    """The tables of the tests' app, empty."""
    from django.apps import apps
    from django.db import connections

    with connections["default"].schema_editor() as editor:
        for model in apps.get_app_config("articles_app").get_models():
            editor.create_model(model)
    yield
    connections.close_all()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server
