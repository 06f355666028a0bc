"""``RequestBudgetMiddleware``: all calls of a request share one limit of time."""

from __future__ import annotations

import asyncio

import pytest
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from chatpool import ChatPool, DeadlineExceededError
from chatpool.contrib.django.middleware import RequestBudgetMiddleware
from chatpool.testing import Stall

MIDDLEWARE = ["chatpool.contrib.django.middleware.RequestBudgetMiddleware"]
site_pool = None


def answer(request):
    try:
        return HttpResponse(site_pool.chat(request.GET["q"]).text)
    except DeadlineExceededError as error:
        return HttpResponse(str(error), status=503)


async def async_answer(request):
    future = site_pool.submit(request.GET["q"])
    try:
        return HttpResponse((await asyncio.wrap_future(future)).text)
    except DeadlineExceededError as error:
        return HttpResponse(str(error), status=503)


urlpatterns = [path("sync", answer), path("async", async_answer)]


@pytest.fixture(autouse=True)
def site(server):
    global site_pool
    with ChatPool("m", api_key="k", base_url=server.base_url) as site_pool, override_settings(ROOT_URLCONF=__name__):
        yield
    site_pool = None


def get(url, client):
    query = {"q": "a"}
    return Client().get(url, query) if client == "wsgi" else asyncio.run(AsyncClient().get(url, query))


@override_settings(MIDDLEWARE=MIDDLEWARE, CHATPOOL_REQUEST_SECONDS=0.05)
@pytest.mark.parametrize("url", ["/sync", "/async"])
@pytest.mark.parametrize("client", ["wsgi", "asgi"])
def test_a_request_s_calls_end_with_its_time(server, url, client):
    server.set_script(Stall())
    response = get(url, client)
    assert response.status_code == 503
    assert "chatpool.deadline" in response.content.decode()


@override_settings(MIDDLEWARE=MIDDLEWARE, CHATPOOL_REQUEST_SECONDS=60)
@pytest.mark.parametrize("client", ["wsgi", "asgi"])
def test_calls_in_time_are_answered(client):
    assert get("/sync", client).content == b"a"


@override_settings(MIDDLEWARE=MIDDLEWARE, CHATPOOL_REQUEST_SECONDS=60)
def test_the_limit_ends_with_the_request(server):
    with override_settings(CHATPOOL_REQUEST_SECONDS=1e-9):
        assert Client().get("/sync", {"q": "a"}).status_code == 503
    assert site_pool.chat("b").text == "b"
    assert server.requests[-1].prompt == "b"


@override_settings(MIDDLEWARE=MIDDLEWARE)
def test_without_the_setting_nothing_is_limited():
    assert Client().get("/sync", {"q": "a"}).content == b"a"
    with pytest.raises(MiddlewareNotUsed):
        RequestBudgetMiddleware(lambda request: HttpResponse())


@pytest.mark.parametrize("seconds", [0, -1, "3", True])
def test_a_setting_that_is_no_time_is_refused(seconds):
    setting = override_settings(CHATPOOL_REQUEST_SECONDS=seconds)
    with setting, pytest.raises(ImproperlyConfigured, match="CHATPOOL_REQUEST_SECONDS"):
        RequestBudgetMiddleware(lambda request: HttpResponse())
