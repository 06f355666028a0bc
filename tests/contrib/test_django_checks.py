"""The system checks of ``CHATPOOL``."""

from __future__ import annotations

import socket
import threading

import pytest
from django.core.checks import run_checks
from django.test import override_settings

KEY = "sk-not-to-be-shown"
URL = "https://model.example/v1"
GOOD = {"MODEL": "m", "API_KEY": KEY, "BASE_URL": URL, "TIMEOUT": {"total": 3}}


def found(setting, *, deploy=True):
    with override_settings(CHATPOOL=setting):
        messages = run_checks(tags=["chatpool"], include_deployment_checks=deploy)
    assert not any(KEY in str(message) + str(message.hint) for message in messages)
    return [message.id for message in messages]


def test_good_settings_have_no_message():
    assert found({"default": GOOD}) == []


@pytest.mark.parametrize(
    ("setting", "ids"),
    [
        ("m", ["chatpool.E001"]),
        ({"default": None}, ["chatpool.E001"]),
        ({"default": {**GOOD, "MODLE": "m"}}, ["chatpool.E002"]),
        ({"default": {**GOOD, "RETRY": {"retries": 1}}}, ["chatpool.E002"]),
        ({"default": {**GOOD, "MAX_WORKERS": "many"}}, ["chatpool.E003"]),
        ({"default": {**GOOD, "BASE_URL": "model.example"}}, ["chatpool.E003"]),
        ({"default": {**GOOD, "LISTENERS": [3]}}, ["chatpool.E003"]),
        ({"default": {**GOOD, "LISTENERS": ["nowhere.listen"]}}, ["chatpool.E004"]),
        ({"default": {**GOOD, "BACKEND": "chatpool.nothing"}}, ["chatpool.E004"]),
        ({"nightly": GOOD}, ["chatpool.E005"]),
        ({"default": GOOD, "one": {"A": 1}, "two": {**GOOD, "MAX_WORKERS": 0}}, ["chatpool.E002", "chatpool.E003"]),
    ],
)
def test_what_cannot_work_is_an_error(setting, ids):
    assert found(setting, deploy=False) == ids


@pytest.mark.parametrize(
    ("changes", "ids"),
    [
        ({"TIMEOUT": 10}, ["chatpool.W001"]),
        ({"TIMEOUT": None}, ["chatpool.W001"]),
        ({"LIMITS": {"requests_per_minute": 60}}, ["chatpool.W002"]),
        ({"LIMITS": {"requests_per_minute": 60, "scope": "ours"}}, []),
        ({"BASE_URL": "http://model.example/v1"}, ["chatpool.W004"]),
        ({"BASE_URL": "http://127.0.0.1:8000/v1"}, []),
        ({"BASE_URL": "http://[::1]:8000/v1"}, []),
        ({"BASE_URL": "http://model.example/v1", "API_KEY": None}, []),
    ],
)
def test_what_is_seldom_meant_so_in_production_is_a_warning(changes, ids):
    assert found({"default": {**GOOD, **changes}}) == ids
    assert found({"default": {**GOOD, **changes}}, deploy=False) == []


def test_endpoints_are_looked_at_too():
    endpoints = [{"base_url": URL, "api_key": KEY}, {"base_url": "http://model.example/v1", "api_key": KEY}]
    assert found({"default": {"MODEL": "m", "TIMEOUT": {"total": 3}, "ENDPOINTS": endpoints}}) == ["chatpool.W004"]


def test_checks_open_nothing_and_need_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a check has opened a connection"))
    threads = threading.enumerate()
    limits = {"requests_per_minute": 60, "scope": "ours"}
    azure = {
        "BACKEND": "chatpool.contrib.django.backends.AzureBackend",
        "ENDPOINT": "https://ours.openai.azure.com",
        "DEPLOYMENT": "d",
        "API_VERSION": "2024-10-21",
        "TIMEOUT": {"total": 3},
    }
    setting = {"default": {"MODEL": "m", "TIMEOUT": {"total": 3}, "LIMITS": limits}, "azure": azure}
    assert found(setting) == []
    assert threading.enumerate() == threads


def test_a_message_names_alias_and_what_was_wrong():
    with override_settings(CHATPOOL={"default": {**GOOD, "MAX_WORKERS": 0}}):
        [message] = run_checks(tags=["chatpool"])
    assert "CHATPOOL['default']: max_workers must be at least 1" in message.msg
