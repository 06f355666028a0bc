"""Whom the transport trusts."""

from __future__ import annotations

import ssl

import certifi
import pytest
import requests

from chatpool._transport.tls import Trust, choose_trust
from chatpool._wire import classify_exception
from chatpool.config import Timeout
from chatpool.errors import ConfigurationError

trustme = pytest.importorskip("trustme")
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")

VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def echo(peer):
    while True:
        request = peer.read_request()
        if request is None or not peer.answer(request[1]):
            return


@pytest.fixture
def bundles(tmp_path, monkeypatch):
    """Each variable set to a file of its own, named after it."""
    files = {name: tmp_path / name for name in VARIABLES}
    for name, file in files.items():
        file.touch()
        monkeypatch.setenv(name, str(file))
    return {name: str(file) for name, file in files.items()}


def chosen(verify=None, *, trust_env=True):
    return choose_trust(verify, None, trust_env=trust_env, https=True).verify


def test_an_argument_beats_the_variables_in_their_order(bundles, tmp_path, monkeypatch):
    mine = tmp_path / "mine.pem"
    mine.touch()
    assert chosen(str(mine)) == str(mine)
    assert chosen(mine) == str(mine)
    for name in VARIABLES:
        assert chosen() == bundles[name]
        assert chosen(True) == bundles[name]
        monkeypatch.delenv(name)
    assert chosen() == certifi.where()


def test_false_switches_the_check_off(bundles):
    assert chosen(False) is False


def test_variables_are_left_alone_without_trust_env(bundles):
    assert chosen(trust_env=False) == certifi.where()


@pytest.mark.parametrize("name", VARIABLES)
def test_a_missing_bundle_is_named_with_its_variable(name, monkeypatch):
    for other in VARIABLES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "/no/such/file")
    with pytest.raises(ConfigurationError, match=f"{name} names a CA bundle that does not exist: /no/such/file"):
        chosen()
    assert choose_trust(None, None, trust_env=True, https=False).verify == "/no/such/file"


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match="verify names a CA bundle that does not exist"):
        chosen("/no/such/file")
    with pytest.raises(TypeError, match="verify must be"):
        chosen(3)
    with pytest.raises(ConfigurationError, match="cert names a file that does not exist: /no/key"):
        choose_trust(None, (certifi.where(), "/no/key"), trust_env=False, https=True)
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"garbage\.pem cannot be used"):
        Trust(str(garbage)).context()


def test_one_context_serves_all_connections():
    trust = Trust(certifi.where())
    assert trust.context() is trust.context()


def test_a_certificate_of_ones_own_authority_is_trusted_by_name(
    serve, start_transport, exchange, authority, monkeypatch
):
    server = serve(echo, tls=True)
    monkeypatch.setenv("SSL_CERT_FILE", authority.file)
    assert exchange(start_transport(server.url, verify=None), b"env").content == b"env"
    by_name = server.url.replace("127.0.0.1", "localhost")
    assert exchange(start_transport(by_name), b"name").content == b"name"


def test_a_directory_of_certificates_is_trusted(serve, start_transport, exchange, tmp_path):
    # An empty directory trusts nobody, which shows that it was taken for one.
    with pytest.raises(requests.exceptions.SSLError):
        exchange(start_transport(serve(echo, tls=True).url, verify=str(tmp_path)))


def test_an_unknown_authority_is_an_error_that_names_the_variable(serve, start_transport, exchange):
    server = serve(echo, tls=True)
    with pytest.raises(requests.exceptions.SSLError) as caught:
        exchange(start_transport(server.url, verify=certifi.where()))
    error = classify_exception(caught.value, url=server.url).error
    assert "REQUESTS_CA_BUNDLE" in str(error)
    assert "verify=" in str(error)


def test_a_certificate_for_another_host_is_refused(serve, start_transport, exchange, authority):
    server = serve(echo)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.ca.issue_cert("other.test").configure_cert(context)
    server.context = context
    with pytest.raises(requests.exceptions.SSLError):
        exchange(start_transport(server.url.replace("http:", "https:")))


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_without_a_check_any_certificate_will_do(serve, start_transport, exchange):
    transport = start_transport(serve(echo, tls=True).url, verify=False)
    assert exchange(transport, b"unchecked").content == b"unchecked"


def test_a_client_certificate_is_shown(serve, start_transport, exchange, authority, tmp_path):
    mine = trustme.CA()
    certificate = mine.issue_cert("client@example.org")
    file = tmp_path / "client.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(file)

    def script(peer):
        request = peer.read_request()
        peer.answer(str(peer.carrier.getpeercert()).encode() if request else b"")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.ca.issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    mine.configure_trust(context)
    server = serve(script, tls=True)
    server.context = context
    assert b"client@example.org" in exchange(start_transport(server.url, cert=str(file))).content


def test_an_encrypted_key_is_an_error_and_no_question(authority, tmp_path):
    key = serialization.load_pem_private_key(authority.ca.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(b"secret"),
    )
    file = tmp_path / "client.pem"
    file.write_bytes(authority.ca.cert_pem.bytes() + encrypted)
    with pytest.raises(ConfigurationError, match="encrypted"):
        Trust(certifi.where(), str(file)).context()


class TestContextOfOnesOwn:
    """``verify=`` an ``ssl.SSLContext``."""

    def test_it_settles_whom_to_trust(self, serve, start_transport, exchange, authority):
        server = serve(echo, tls=True)
        trusting = ssl.create_default_context(cafile=authority.file)
        assert exchange(start_transport(server.url, verify=trusting), b"one").content == b"one"
        with pytest.raises(requests.exceptions.SSLError):
            exchange(start_transport(server.url, verify=ssl.create_default_context(cafile=certifi.where())))

    def test_the_time_limits_hold_in_its_handshake(self, serve, start_transport, exchange, authority):
        context = ssl.create_default_context(cafile=authority.file)

        def take_and_say_nothing(peer):
            while peer.read():
                pass

        silent = serve(take_and_say_nothing)
        transport = start_transport(silent.url.replace("http:", "https:"), verify=context)
        with pytest.raises(requests.exceptions.Timeout):
            exchange(transport, timeout=Timeout(connect=0.3, attempt=5))

    def test_one_that_wraps_another_works(self, serve, start_transport, exchange, authority):
        class Wrapper(ssl.SSLContext):
            """As truststore's: another context inside makes the sockets."""

            def __init__(self, *args):
                super().__init__()
                self._ctx = ssl.create_default_context(cafile=authority.file)

            def wrap_socket(self, *args, **keywords):
                return self._ctx.wrap_socket(*args, **keywords)

        transport = start_transport(serve(echo, tls=True).url, verify=Wrapper(ssl.PROTOCOL_TLS_CLIENT))
        assert exchange(transport, b"one").content == b"one"

    def test_a_client_certificate_belongs_into_it(self):
        with pytest.raises(ConfigurationError, match=r"cert= has no effect .*load_cert_chain"):
            choose_trust(ssl.create_default_context(), certifi.where(), trust_env=True, https=True)

    def test_adapters_of_the_users_are_told_to_check(self):
        assert choose_trust(ssl.create_default_context(), None, trust_env=True, https=True).verify is True
