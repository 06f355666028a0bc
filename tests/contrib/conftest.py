"""One configuration of Django for the tests of ``chatpool.contrib.django``; a settings module is not needed."""

from __future__ import annotations

from typing import Iterator

import django
import pytest
from django.conf import settings

from chatpool.testing import FakeServer

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["chatpool.contrib.django"],
        ROOT_URLCONF="tests.contrib.site_urls",
        SECRET_KEY="for tests",
        USE_TZ=True,
    )
    django.setup()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server
