"""``auth=``: what signs requests does so for every attempt, stands for the key, and is shown nowhere."""

from __future__ import annotations

import functools
import hashlib
import hmac
import itertools
import pickle
import threading

import pytest
import requests
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth

from chatpool import AuthenticationError, ChatPool, ConfigurationError, Endpoint
from chatpool._client.batch_support import WorkerPools, unpickle_pool
from chatpool.testing import Answer, Error, Stream

SECRET = "a-secret-of-the-company"


def signature(method, path, body, number):
    text = b"\n".join([method.encode(), path.encode(), str(number).encode(), body or b""])
    return hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()


class Signer(AuthBase):
    """Signs method, URL, body and a number that no two requests have."""

    def __init__(self):
        self._numbers = itertools.count()

    def __call__(self, request):
        number = next(self._numbers)
        request.headers["X-Number"] = str(number)
        request.headers["Authorization"] = "HMAC " + signature(request.method, request.path_url, request.body, number)
        return request


def by_a_function(request):
    request.headers["X-Signed"] = "by a function"
    return request


def numbers_of(server):
    """The number of each request that came; each is signed rightly."""
    for request in server.requests:
        number = request.headers["x-number"]
        assert request.headers["authorization"] == "HMAC " + signature(
            request.method, request.target, request.raw, number
        )
    return sorted(int(request.headers["x-number"]) for request in server.requests)


class TestWhatIsSigned:
    def test_every_attempt_is_signed_anew(self, serve, instant_waits):
        server, pool = serve(Error(503), Error(429), Answer("done"), auth=Signer())
        assert pool.chat("a").text == "done"
        assert numbers_of(server) == [0, 1, 2]

    def test_whatever_is_sent_is_signed(self, serve):
        server, pool = serve(auth=Signer())
        pool.map(["a", "b"], on_error="raise")
        pool.embed(["a", "b"], on_error="raise")
        pool.request("/models", method="GET")
        pool.chat("a", headers={"X-Own": "1"}, query={"version": "7"})
        assert [chunk.text for chunk in pool.stream("a b")]
        assert pool.chat("a", collect_stream=True).text == "a"
        assert numbers_of(server) == list(range(7))

    def test_a_stream_that_breaks_off_is_signed_anew(self, serve, instant_waits):
        server, pool = serve(Stream(["Once"], end="cut"), Answer("whole"), auth=Signer())
        assert pool.chat("a", collect_stream=True).text == "whole"
        assert numbers_of(server) == [0, 1]

    def test_a_redirect_is_signed_for_its_own_url(self, serve):
        server, pool = serve(
            Answer("", status=307, headers={"Location": "/v1/chat/completions?moved=1"}), Answer("there"), auth=Signer()
        )
        assert pool.chat("a").text == "there"
        assert numbers_of(server) == [0, 1]
        assert server.requests[1].target.endswith("?moved=1")

    def test_what_it_leaves_on_a_request_is_of_that_request(self, serve):
        heard = []

        def auth(request):
            request.register_hook("response", lambda response, **options: heard.append(response.status_code))
            request.body = request.body.replace(b'"a"', b'"a longer one"')
            return request

        server, pool = serve(auth=auth)
        assert [pool.chat("a").text for _ in range(3)] == ["a longer one"] * 3
        assert heard == [200] * 3

    def test_threads_sign_at_the_same_time(self, serve):
        together = threading.Barrier(4)

        def auth(request):
            together.wait(30)
            return by_a_function(request)

        server, pool = serve(auth=auth, max_workers=4)
        pool.map(["a", "b", "c", "d"], on_error="raise")
        assert {request.headers["x-signed"] for request in server.requests} == {"by a function"}


class TestKindsOfAuth:
    def test_a_pair_is_basic_authentication(self, serve):
        server, pool = serve(auth=("user", "pass"))
        pool.chat("a")
        assert server.requests[0].headers["authorization"] == "Basic dXNlcjpwYXNz"

    def test_digest_authentication_answers_the_challenge(self, serve):
        challenge = {"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'}
        server, pool = serve(Error(401, headers=challenge), Answer("in"), auth=HTTPDigestAuth("user", "pass"))
        assert pool.chat("a").text == "in"
        assert server.requests[1].headers["authorization"].startswith('Digest username="user"')

    def test_it_stands_for_the_key_of_the_environment(self, serve, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        server, pool = serve(auth=by_a_function)
        pool.chat("a")
        assert "authorization" not in server.requests[0].headers
        with ChatPool(auth=by_a_function, base_url="https://api.openai.com/v1") as theirs:
            assert SECRET not in repr(theirs._core.transport.auth)

    def test_it_goes_before_that_of_the_session(self, serve):
        session = requests.Session()
        session.auth = ("user", "pass")
        server, pool = serve(auth=by_a_function, session=session)
        pool.chat("a")
        assert server.requests[0].headers["x-signed"] == "by a function"
        assert "authorization" not in server.requests[0].headers

    def test_each_endpoint_has_its_own(self, serve):
        server, _ = serve()
        other, _ = serve()
        endpoints = [Endpoint(server.base_url, auth=by_a_function), Endpoint(other.base_url, auth=("user", "pass"))]
        with ChatPool("m", endpoints=endpoints, max_workers=2) as pool:
            pool.map([str(number) for number in range(20)], on_error="raise", progress=False)
        assert {request.headers.get("x-signed") for request in server.requests} == {"by a function"}
        assert {request.headers.get("authorization") for request in other.requests} <= {"Basic dXNlcjpwYXNz"}

    def test_azure_takes_it_in_the_place_of_a_key(self, chatpool_server):
        with ChatPool.azure(chatpool_server.origin, "gpt", auth=by_a_function, api_version="1") as pool:
            pool.chat("a")
        endpoint = Endpoint.azure(chatpool_server.origin, "gpt", auth=by_a_function, api_version="1")
        with ChatPool(endpoints=[endpoint]) as pool:
            pool.chat("a")
        for request in chatpool_server.requests:
            assert request.headers["x-signed"] == "by a function"
            assert "api-key" not in request.headers

    def test_requests_aws4auth_signs_the_body(self, serve):
        aws = pytest.importorskip("requests_aws4auth")
        server, pool = serve(auth=aws.AWS4Auth("an-access-id", SECRET, "eu-central-1", "execute-api"))
        pool.chat("a")
        request = server.requests[0]
        assert request.headers["x-amz-content-sha256"] == hashlib.sha256(request.raw).hexdigest()
        assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=an-access-id/")


class TestWhatCannotWork:
    @pytest.mark.parametrize(
        "auth", [7, "user:" + SECRET, ("user", SECRET, "more"), ("user", 7), HTTPBasicAuth], ids=repr
    )
    @pytest.mark.parametrize(
        "make",
        [ChatPool, Endpoint, functools.partial(ChatPool.azure, "http://x", "d")],
        ids=["pool", "endpoint", "azure"],
    )
    def test_something_else_is_refused_by_name_and_not_shown(self, make, auth):
        with pytest.raises(TypeError, match=r"auth must be a requests auth object.*got ") as caught:
            make(auth=auth)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: ChatPool(api_key="k", auth=by_a_function),
            lambda: Endpoint("http://x", "k", auth=by_a_function),
            lambda: ChatPool.azure("http://x", "d", api_key="k", auth=by_a_function, api_version="1"),
            lambda: ChatPool.azure(
                "http://x", "d", azure_ad_token_provider=lambda: "t", auth=by_a_function, api_version="1"
            ),
        ],
    )
    def test_two_ways_to_sign_in_are_one_too_many(self, make):
        with pytest.raises(ConfigurationError, match="two ways to sign in: pass one of them"):
            make()

    def test_one_for_all_endpoints_is_refused(self):
        with pytest.raises(ConfigurationError, match="auth and endpoints cannot be combined: pass auth to an Endpoint"):
            ChatPool(endpoints=[Endpoint("http://x")], auth=by_a_function)

    def test_one_that_raises_ends_the_call_and_shows_nothing(self, serve):
        def auth(request):
            raise KeyError(SECRET)

        server, pool = serve(auth=auth)
        with pytest.raises(
            ConfigurationError, match="auth, which signs requests, raised KeyError; nothing was sent"
        ) as e:
            pool.chat("a")
        assert isinstance(e.value.__cause__, KeyError)
        assert SECRET not in str(e.value)
        assert len(server.requests) == 0

    def test_one_that_forgets_to_return_the_request_is_told_so(self, serve):
        server, pool = serve(auth=lambda request: None)
        with pytest.raises(ConfigurationError, match="auth must return the request that it was given, got NoneType"):
            pool.chat("a")
        session = requests.Session()
        session.auth = lambda request: None
        _, pool = serve(session=session)
        with pytest.raises(ConfigurationError, match=r"session\.auth must return the request"):
            pool.chat("a")

    @pytest.mark.parametrize("value", [5, "two\nlines", "żółć"])
    def test_a_header_that_cannot_be_sent_is_named_at_once(self, serve, value):
        def auth(request):
            request.headers["X-Stamp"] = value
            return request

        server, pool = serve(auth=auth)
        with pytest.raises(ConfigurationError, match="auth: the header 'X-Stamp' must") as caught:
            pool.chat("a")
        assert caught.value.attempts <= 1
        assert not server.requests

    def test_a_header_that_it_sets_to_none_is_left_out(self, serve):
        def auth(request):
            request.headers["X-Old"] = None
            return request

        server, pool = serve(auth=auth, headers={"X-Old": "1"})
        pool.chat("a")
        assert "x-old" not in server.requests[0].headers


class TestWhatIsShown:
    def test_neither_repr_nor_a_message_shows_a_password(self, serve):
        server, pool = serve(Error(401, "no: Basic dXNlcjphLXNlY3JldC1vZi10aGUtY29tcGFueQ=="), auth=("user", SECRET))
        assert SECRET not in repr(pool) + repr(pool._recipe) + repr(pool._core.transport.settings)
        with pytest.raises(AuthenticationError, match=r"no: \*\*\*") as caught:
            pool.chat("a")
        assert "dXNlcjphL" not in str(caught.value) + repr(caught.value.body)

    def test_a_signature_that_the_server_sends_back_is_not_shown(self, serve):
        server, pool = serve(lambda request: Error(403, "what is " + request.headers["authorization"]), auth=Signer())
        with pytest.raises(Exception, match=r"what is \*\*\*"):
            pool.chat("a")
        assert numbers_of(server) == [0]

    def test_nor_is_one_that_stands_in_the_url(self, serve):
        def auth(request):
            request.prepare_url(request.url, {"expires": "1", "sig": "a+secret/signature"})
            return request

        _, pool = serve(lambda request: Error(403, "what is " + request.target), auth=auth, query={"version": "2024"})
        with pytest.raises(Exception, match=r"version=2024&expires=1&sig=\*\*\*"):
            pool.chat("a")


class TestOtherProcesses:
    def test_a_function_is_pickled_by_its_name(self, serve):
        server, pool = serve(auth=by_a_function)
        with pickle.loads(pickle.dumps(pool)) as copy:
            copy.chat("a")
        assert server.requests[0].headers["x-signed"] == "by a function"

    @pytest.mark.parametrize("auth", [("user", SECRET), HTTPBasicAuth("user", SECRET)], ids=["pair", "object"])
    def test_an_object_stays_behind(self, serve, auth):
        server, pool = serve(auth=auth)
        for kept in (pool, Endpoint("http://x", auth=auth)):
            with pytest.raises(
                ConfigurationError, match="auth= may hold a secret, and secrets are not pickled: pass a"
            ):
                pickle.dumps(kept)

    def test_the_processes_of_a_batch_run_get_it(self, serve):
        server, pool = serve(auth=("user", "pass"))
        with ChatPool("m", endpoints=[Endpoint(server.base_url, auth=HTTPBasicAuth("user", "pass"))]) as several:
            for each in (pool, several):
                with unpickle_pool(next(iter(WorkerPools(each, 1)))) as childs:
                    childs.chat("a")
        assert {request.headers["authorization"] for request in server.requests} == {"Basic dXNlcjpwYXNz"}

    def test_one_that_cannot_be_sent_to_a_process_is_told(self, serve):
        _, pool = serve(auth=functools.partial(by_a_function, threading.Lock()))
        with pytest.raises(ConfigurationError, match="several processes need a pool that can be sent to them"):
            WorkerPools(pool, 2)
