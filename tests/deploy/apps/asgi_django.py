"""A Django project in one module whose view streams under ASGI."""

from __future__ import annotations

import os

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import StreamingHttpResponse
from django.urls import path

import chatpool
from chatpool.contrib.asgi import closing

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for tests")
django.setup()

pool = chatpool.ChatPool("m", base_url=os.environ["OPENAI_BASE_URL"])


def pieces(question):
    """The text, and a dot whenever nothing came for a moment."""
    with pool.stream(question) as stream:
        for chunk in stream.events(heartbeat=0.05):
            yield "." if chunk is None else chunk.text


def stream(request):
    """Stream the answer."""
    return StreamingHttpResponse(closing(pieces(request.GET["question"])), content_type="text/plain")


urlpatterns = [path("stream", stream)]
app = get_asgi_application()
