"""``CHATPOOL`` and the pools that are made of it."""

from __future__ import annotations

import copy
import inspect
import os
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import override_settings

from chatpool import Budget, ChatPool, Limits, PoolClosedError, Timeout
from chatpool.contrib.django import InvalidPoolError, pool, pools
from chatpool.contrib.django.conf import pool_settings
from chatpool.contrib.django.pools import PoolHandler, make_pool
from chatpool.testing import FakeServer, Stall

KEY = "sk-not-to-be-shown"


@pytest.fixture
def alias_settings(server: FakeServer):
    """Settings of one alias for the server of the test."""
    return {"MODEL": "fake-model", "API_KEY": KEY, "BASE_URL": server.base_url}


@pytest.fixture(autouse=True)
def no_pool_stays():
    yield
    pools.close_all()


def test_a_view_uses_the_default_pool(alias_settings):
    with override_settings(CHATPOOL={"default": alias_settings}):
        assert pool.chat("ping").text == "ping"
        assert pools["default"].stats().succeeded == 1


def test_aliases_are_pools_of_their_own(server, alias_settings):
    with override_settings(CHATPOOL={"default": alias_settings, "nightly": {**alias_settings, "MODEL": "large"}}):
        pools["nightly"].chat("ping")
        assert server.requests[0].body["model"] == "large"
        assert pools["nightly"] is not pools["default"]
        assert list(pools) == ["default", "nightly"]


def test_to_look_at_the_proxy_makes_no_pool(alias_settings):
    with override_settings(CHATPOOL={"default": alias_settings}):
        inspect.unwrap(pool)
        copy.copy(pool)
        assert not hasattr(pool, "__wrapped__")
        assert repr(pools) == "<PoolHandler of no pool yet>"


def test_all_threads_have_one_pool(alias_settings):
    together = threading.Barrier(8)

    def ask(_: int) -> ChatPool:
        together.wait()
        return pools["default"]

    with override_settings(CHATPOOL={"default": alias_settings}), ThreadPoolExecutor(8) as threads:
        assert len({id(found) for found in threads.map(ask, range(8))}) == 1


def test_without_settings_the_environment_names_server_and_key(server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert pools["default"].chat("ping", model="m").text == "ping"
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"


def test_dicts_stand_for_the_classes_of_chatpool():
    options = {
        "TIMEOUT": {"total": 3},
        "LIMITS": {"requests_per_minute": 60, "scope": "ours"},
        "BUDGET": {"cost": 20, "prices": {"m": (1, 2)}},
        "RETRY": {"max_retries": 2},
        "ENDPOINTS": [{"base_url": "http://one/v1", "api_key": KEY}, {"base_url": "http://two/v1"}],
        "MODEL": "m",
    }
    with override_settings(CHATPOOL={"default": options}):
        found = pool_settings("default").options
    assert found["timeout"] == Timeout(total=3)
    assert found["limits"] == Limits(requests_per_minute=60, scope="ours")
    assert found["budget"] == Budget(cost=20, prices={"m": (1, 2)})
    assert [endpoint.base_url for endpoint in found["endpoints"]] == ["http://one/v1", "http://two/v1"]


def test_values_of_chatpool_are_taken_as_they_are(alias_settings):
    given = {**alias_settings, "TIMEOUT": Timeout(total=5), "LIMITS": Limits(requests_per_minute=60)}
    with override_settings(CHATPOOL={"default": given}):
        assert pool_settings("default").options["timeout"].total == 5
        assert pool.chat("ping").text == "ping"


def test_listeners_and_hooks_may_be_dotted_paths(alias_settings, monkeypatch):
    heard = []
    hooks = types.ModuleType("hooks_of_the_site")
    hooks.listen = lambda event: heard.append(event.kind)
    hooks.ended = lambda: heard.append("worker ended")
    monkeypatch.setitem(sys.modules, hooks.__name__, hooks)
    alias_settings.update(LISTENERS=["hooks_of_the_site.listen"], WORKER_END="hooks_of_the_site.ended")
    with override_settings(CHATPOOL={"default": alias_settings}):
        pool.chat("ping")
        pools.close_all()
    assert {"queued", "succeeded", "worker ended"} <= set(heard)


def test_an_azure_backend_takes_the_parameters_of_azure(server):
    options = {
        "BACKEND": "chatpool.contrib.django.backends.AzureBackend",
        "ENDPOINT": server.base_url.rsplit("/v1", 1)[0],
        "DEPLOYMENT": "ours",
        "API_KEY": KEY,
        "API_VERSION": "2024-10-21",
    }
    with override_settings(CHATPOOL={"default": options}):
        assert pool.chat("ping").text == "ping"
    assert server.requests[0].path.startswith("/openai/deployments/ours/chat/completions")


# -- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (["default"], "CHATPOOL must be a dict of aliases, got list"),
        ({"default": "m"}, r"CHATPOOL\['default'\] must be a dict of settings"),
        ({"other": {}}, "CHATPOOL has no alias 'default'; it has 'other'"),
        ({}, "it has none"),
        ({"default": {"MODLE": "m"}}, r"CHATPOOL\['default'\] has an unknown key 'MODLE'; did you mean 'MODEL'\?"),
        ({"default": {"max_workers": 4}}, "did you mean 'MAX_WORKERS'"),
        ({"default": {"ENDPOINT": "https://x"}}, "unknown key 'ENDPOINT'"),  # of Azure only
        ({"default": {"TIMEOUT": {"totla": 4}}}, r"\['TIMEOUT'\] has an unknown key 'totla'; did you mean 'total'"),
        ({"default": {"TIMEOUT": {"total": -4}}}, r"\['TIMEOUT'\]: .*total"),
        ({"default": {"API_KEY": KEY, "MAX_WORKERS": 0}}, r"CHATPOOL\['default'\]: max_workers must be at least 1"),
        ({"default": {"BACKEND": "nowhere.Pool"}}, r"\['BACKEND'\] cannot be imported"),
        ({"default": {"LISTENERS": ["nowhere.listen"]}}, r"\['LISTENERS'\] cannot be imported"),
    ],
)
def test_what_cannot_work_is_said_with_alias_and_key(setting, message):
    with override_settings(CHATPOOL=setting), pytest.raises(InvalidPoolError, match=message):
        pool.chat("ping")
    assert issubclass(InvalidPoolError, ImproperlyConfigured)


def test_no_key_is_shown(alias_settings):
    with override_settings(CHATPOOL={"default": alias_settings}):
        pool.chat("ping")
        shown = repr(pool) + repr(pools) + repr(pool_settings("default"))
    assert "'default'" in repr(pool)
    assert KEY not in shown
    with override_settings(CHATPOOL={"default": {**alias_settings, "MAX_WORKERS": 0}}):
        with pytest.raises(InvalidPoolError) as caught:
            pool.chat("ping")
        frames = []
        error = caught.value
        while error is not None:
            trace = error.__traceback__
            while trace is not None:
                module = trace.tb_frame.f_globals["__name__"]
                if module.startswith("chatpool."):
                    frames.append(repr(list(trace.tb_frame.f_locals.items())))
                trace = trace.tb_next
            error = error.__cause__
    assert len(frames) > 2
    assert [frame for frame in frames if KEY in frame] == []


# -- changed settings ------------------------------------------------------------------------------------------------


def test_changed_settings_make_a_new_pool_and_calls_in_the_old_one_end_there(server, alias_settings):
    release = threading.Event()
    slow = FakeServer(reply=lambda body: release.wait(10) and "late")
    with slow, override_settings(CHATPOOL={"default": {**alias_settings, "BASE_URL": slow.base_url}}):
        outer = pools["default"]
        under_way = pool.submit("slow")
        slow.wait_for(1)
        with override_settings(CHATPOOL={"default": alias_settings}):
            assert pool.chat("ping").text == "ping"
            assert pools["default"] is not outer
        release.set()
        assert under_way.result().text == "late"
        assert pool.chat("again").text == "late"  # of the outer settings again
        with pytest.raises(PoolClosedError):
            outer.chat("ping")


def test_an_alias_that_has_not_changed_keeps_its_pool(alias_settings):
    with override_settings(CHATPOOL={"default": alias_settings}):
        kept = pools["default"]
        with override_settings(CHATPOOL={"default": alias_settings, "more": alias_settings}):
            assert pools["default"] is kept
        assert pools["default"] is kept


def test_a_replaced_pool_is_there_for_a_block(server, alias_settings):
    with override_settings(CHATPOOL={"default": alias_settings}):
        before = pools["default"]
        with ChatPool("other", api_key=KEY, base_url=server.base_url) as other:
            with pools.replaced("default", other):
                pool.chat("ping")
            assert server.requests[-1].body["model"] == "other"
        assert pools["default"] is before


def test_closed_pools_are_made_anew(alias_settings):
    with override_settings(CHATPOOL={"default": alias_settings}):
        first = pools["default"]
        pools.close_all()
        assert pool.chat("ping").text == "ping"
        assert pools["default"] is not first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_gets_at_its_pools_though_a_thread_was_making_one():
    handler = PoolHandler()
    held, release = threading.Event(), threading.Event()

    def hold():
        with handler._lock:
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(0 if handler._lock.acquire(blocking=False) else 1)
    release.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- the database connections of workers -----------------------------------------------------------------------------


@pytest.mark.parametrize("max_age", [0, 600, None])
def test_workers_give_their_connections_back(alias_settings, monkeypatch, max_age):
    closed = threading.Event()
    used, left = set(), set()
    real = connections.close_all

    def close_all():
        real()
        left.add(threading.get_ident())
        if left >= used:
            closed.set()

    monkeypatch.setattr(connections, "close_all", close_all)

    def parse(text):
        connections["default"].ensure_connection()
        used.add(threading.get_ident())
        return text

    with override_settings(CHATPOOL={"default": {**alias_settings, "MAX_WORKERS": 4}}):
        monkeypatch.setitem(connections["default"].settings_dict, "CONN_MAX_AGE", max_age)
        results = pool.map(["a"] * 40, parse=parse, progress=False)
        assert results.errors == [None] * 40
        assert used
        assert closed.wait(10)  # at rest, while the pool is open


def test_a_hook_of_the_settings_runs_too(alias_settings):
    ended = threading.Event()
    made = None
    with override_settings(CHATPOOL={"default": {**alias_settings, "WORKER_END": ended.set}}):
        made = make_pool("default")
        made.chat("ping")
        made.close()
    assert ended.is_set()


def test_a_stalled_call_does_not_keep_settings_from_changing(server, alias_settings):
    server.set_script(Stall())
    with override_settings(CHATPOOL={"default": alias_settings}):
        future = pool.submit("ping")
        server.wait_for(1)
    assert not future.done()
    future.cancel()
