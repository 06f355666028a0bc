"""No key is shown, whatever is shown of a pool; and what no header may hold is refused by name."""

from __future__ import annotations

import gc
import pickle
import sys
import traceback
import types

import pytest
import requests

from chatpool import ChatPool, ConfigurationError, Endpoint, Limits
from chatpool.testing import Error

KEY = "sk-a-very-secret-key"
UNREACHED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.FrameType)


def reachable(root):
    """Every object that ``root`` keeps alive."""
    seen, waiting = {id(root): root}, [root]
    while waiting:
        for found in gc.get_referents(waiting.pop()):
            if id(found) not in seen and not isinstance(found, UNREACHED):
                seen[id(found)] = found
                waiting.append(found)
    return list(seen.values())


def shown_in(root):
    """What repr() shows of chatpool's objects that ``root`` reaches, by their classes."""
    return {
        type(found).__name__: repr(found) for found in reachable(root) if type(found).__module__.startswith("chatpool")
    }


def variables_of(root):
    """The variables of chatpool's objects that ``root`` reaches, by their classes."""
    return {
        type(found).__name__: repr(vars(found))
        for found in reachable(root)
        if type(found).__module__.startswith("chatpool") and hasattr(found, "__dict__")
    }


def in_clear(root):
    """Texts that hold the key and are no secrets."""
    return [found for found in reachable(root) if type(found) is str and KEY in found]


@pytest.fixture
def session():
    session = requests.Session()
    session.headers["X-Api-Key"] = KEY
    session.proxies["ftp"] = f"http://user:{KEY}@host"
    session.auth = ("user", KEY)
    return session


def test_the_key_of_a_pool_is_nowhere_in_clear(serve):
    _, pool = serve(api_key=KEY)
    pool.chat("a")
    pool.map(["b"])
    assert pool.with_options(timeout=3).chat("c").text == "c"
    assert {"PoolRecipe", "KeyAuth", "TransportSettings", "PoolCore"} <= set(shown_in(pool))
    assert not [name for name, shown in {**shown_in(pool), **variables_of(pool)}.items() if KEY in shown]
    assert in_clear(pool) == []


def test_an_azure_key_is_nowhere_in_clear(chatpool_server):
    with ChatPool.azure(chatpool_server.origin, "gpt", api_key=KEY, api_version="2024-10-21") as pool:
        pool.chat("a")
        assert in_clear(pool) == []
        assert not [name for name, shown in {**shown_in(pool), **variables_of(pool)}.items() if KEY in shown]


def test_keys_in_other_places_are_shown_by_nothing(serve, session):
    server, pool = serve(
        headers={"X-Auth": KEY},
        query={"team": KEY},
        proxies={"https": f"http://user:{KEY}@host"},
        session=session,
        limits=Limits(requests_per_minute=60_000),
    )
    view = pool.with_options(headers={"X-Token": KEY})
    view.chat("a", headers={"X-Other": KEY})
    view.map(["b"])
    sent = server.requests[0].headers
    assert [sent[name] for name in ("x-auth", "x-api-key", "x-token", "x-other")] == [KEY] * 4
    assert not [name for name, shown in shown_in(view).items() if KEY in shown]
    public = [view, pool, view._recipe, view._defaults, pool._core.transport.settings, pool._core.transport]
    assert not [each for each in public if KEY in repr(vars(each))]


def test_endpoints_and_limits_show_no_key(chatpool_server):
    endpoint = Endpoint(chatpool_server.base_url, KEY, headers={"X-Key": KEY}, query={"code": KEY})
    limits = Limits(requests_per_minute=1, scope=f"redis://:{KEY}@host/name")
    assert KEY not in repr(endpoint) + repr(vars(endpoint)) + repr(limits) + repr(vars(limits))
    assert (endpoint.api_key, endpoint.headers["X-Key"], limits.scope) == (KEY, KEY, f"redis://:{KEY}@host/name")
    with ChatPool("m", endpoints=[Endpoint(chatpool_server.base_url, KEY), endpoint]) as pool:
        assert [reply.text for reply in pool.map(["a", "b"])] == ["a", "b"]
        assert not [name for name, shown in shown_in(pool).items() if KEY in shown]


def test_what_is_sent_are_plain_texts(serve, session):
    """Recorders of requests write classes of ours into their files."""
    sent = []

    class Recorder(requests.adapters.HTTPAdapter):
        def send(self, request, **options):
            sent.extend(request.headers.values())
            return super().send(request, **options)

    recorder = Recorder()
    session.mount("http://", recorder)
    _, pool = serve(api_key=KEY, headers={"X-Key": KEY}, session=session)
    pool.chat("a")
    pool.chat("a", headers={"X-Other": KEY})
    recorder.close()  # it is the user's, and the pool leaves it open
    assert sum(KEY in value for value in sent) == 7
    assert {type(value) for value in sent} == {str}


def test_errors_and_their_tracebacks_show_no_key(serve, chatpool_server):
    server, pool = serve(api_key=KEY, headers={"X-Key": KEY}, retry=0)
    server.set_script(Error(401, f"Incorrect API key provided: {KEY}"))
    with pytest.raises(Exception) as caught:
        pool.chat("a")
    error = caught.value
    assert KEY not in repr(error) + repr(vars(error)) + "".join(traceback.format_exception(None, error, None))
    assert KEY.encode() not in pickle.dumps(error)


def test_a_key_in_a_header_is_not_in_an_error_that_repeats_it(serve, session):
    for options in ({"headers": {"Authorization": f"Bearer {KEY}"}}, {"session": session}):
        server, pool = serve(retry=0, **options)
        server.set_script(Error(401, f"Incorrect API key provided: {KEY}"))
        with pytest.raises(Exception, match="Incorrect API key provided: \\*\\*\\*") as caught:
            pool.chat("a")
        assert KEY not in repr(vars(caught.value))


def variables_in(error):
    """The variables of every frame of chatpool's that the error went through."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return "".join(repr(frame.f_locals) for frame in frames if "chatpool" in frame.f_globals["__name__"])


@pytest.mark.parametrize(
    "options", [{"max_workers": 0}, {"proxies": 3}, {"base_url": "nothing"}, {"headers": {"X": "\0"}}]
)
def test_a_pool_that_was_not_made_can_be_shown_in_a_dump_and_shows_no_key(options):
    with pytest.raises(Exception) as caught:
        ChatPool("m", **{"base_url": "http://127.0.0.1:1/v1", "api_key": KEY, "headers": {"X-Key": KEY}, **options})
    assert "<ChatPool that was not made>" in variables_in(caught.value)
    assert KEY not in variables_in(caught.value)


def test_a_pool_without_anything_in_it_has_a_repr():
    assert repr(ChatPool.__new__(ChatPool)) == "<ChatPool that was not made>"


# -- pickles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"headers": {"Authorization": KEY}}, "headers= has a key in it .authorization., and keys are not pickled"),
        ({"query": {"api-key": KEY}}, "query= has a key in it"),
        ({"proxies": {"https": f"http://user:{KEY}@host"}}, "proxy has a password in it"),
    ],
)
def test_keys_in_other_places_are_not_pickled(serve, options, words):
    _, pool = serve(**options)
    with pytest.raises(ConfigurationError, match=words):
        pickle.dumps(pool)


def test_keys_of_a_session_a_view_or_an_endpoint_are_not_pickled(serve, session, chatpool_server):
    _, pool = serve(session=session)
    with pytest.raises(ConfigurationError, match="session= has a key in it"):
        pickle.dumps(pool)
    _, plain = serve(headers={"X-Team": "a"})
    pickle.loads(pickle.dumps(plain)).close()
    with pytest.raises(ConfigurationError, match="headers= has a key in it"):
        pickle.dumps(plain.with_options(headers={"Authorization": KEY}))
    with pytest.raises(ConfigurationError, match="headers= of an Endpoint has a key in it"):
        pickle.dumps(Endpoint(chatpool_server.base_url, headers={"api-key": KEY}))


# -- what no header may hold ----------------------------------------------------------------------------------------

BAD = pytest.mark.parametrize("bad", ["a\0b", "a\rb", "a\nb", "a\r\nX-Evil: 1", "a\u2026"])


def make(**options):
    return ChatPool("m", **{"base_url": "http://127.0.0.1:1/v1", "api_key": "k", **options})


def with_session(value):
    session = requests.Session()
    session.headers["X-Bad"] = value
    return make(session=session)


@BAD
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda bad: make(headers={"X-Bad": bad}), "headers: the header 'X-Bad'"),
        (lambda bad: make(headers={bad: "x"}), "headers: the header '"),
        (lambda bad: make(organization=bad), "organization: the header 'OpenAI-Organization'"),
        (lambda bad: make(project=bad), "project: the header 'OpenAI-Project'"),
        (lambda bad: make(api_key=bad), "api_key"),
        (with_session, "session.headers: the header 'X-Bad'"),
        (lambda bad: make().with_options(headers={"X-Bad": bad}), "headers: the header 'X-Bad'"),
        (lambda bad: make().chat("hi", headers={"X-Bad": bad}), "headers: the header 'X-Bad'"),
        (lambda bad: make().map(["hi"], headers={"X-Bad": bad}), "headers: the header 'X-Bad'"),
        (lambda bad: make().request("/x", headers={"X-Bad": bad}), "headers: the header 'X-Bad'"),
        (
            lambda bad: Endpoint("http://127.0.0.1:1/v1", headers={"X-Bad": bad}),
            "Endpoint: headers: the header 'X-Bad'",
        ),
        (lambda bad: make(endpoints=[Endpoint("http://h/v1", bad)], api_key=None, base_url=None), "api_key"),
        (
            lambda bad: ChatPool.azure("http://127.0.0.1:1", "d", api_key="k", api_version="v", headers={"X-Bad": bad}),
            "headers: the header 'X-Bad'",
        ),
    ],
)
def test_what_no_header_may_hold_is_refused_by_the_name_of_its_parameter(call, name, bad):
    with pytest.raises(ConfigurationError) as caught:
        call(bad)
    assert str(caught.value).startswith(name)
    assert "must not contain" in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="the environment as POSIX has it")
def test_what_the_environment_says_is_refused_by_the_name_of_its_variable(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org\n")
    with pytest.raises(ConfigurationError, match="OPENAI_ORG_ID: the header 'OpenAI-Organization' must not contain"):
        make()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"headers": {"X": 3}}, "headers: the header 'X' must be a str, got int"),
        ({"headers": {3: "x"}}, "headers: the name of a header must be a str, got 3"),
        ({"organization": ["a"]}, "organization: the header 'OpenAI-Organization' must be a str, got list"),
    ],
)
def test_headers_are_texts(options, words):
    with pytest.raises(TypeError, match=words):
        make(**options)


def test_a_header_is_taken_away_by_none_and_bytes_are_sent_as_they_are(serve):
    server, pool = serve(headers={"Accept": None, "X-Bytes": b"abc"})
    pool.chat("a")
    pool.chat("a", headers={"X-Bytes": None})
    first, second = [request.headers for request in server.requests]
    assert (first.get("accept"), first["x-bytes"], second.get("x-bytes")) == (None, "abc", None)


def test_what_somebody_elses_auth_puts_into_a_header_is_refused_too(serve):
    class Auth(requests.auth.AuthBase):
        def __call__(self, request):
            request.headers["X-Signed"] = "a\0b"
            return request

    session = requests.Session()
    session.auth = Auth()
    server, pool = serve(session=session, api_key=None)
    with pytest.raises(ConfigurationError, match=r"session\.auth: the header 'X-Signed' must not contain a NUL"):
        pool.chat("a")
    assert len(server.requests) == 0
