"""Arguments of ``chatpool.contrib.dask.run`` that are refused before anything is sent, and what stands in a task."""

from __future__ import annotations

import functools
import pickle

import pytest

from chatpool import Budget, ChatPool, ConfigurationError, Endpoint, Limits
from chatpool.batch import shards
from tests.deploy.shard_files import write_rows

pytestmark = pytest.mark.cluster

distributed = pytest.importorskip("distributed", reason="the extra cluster has it, and the suite runs without")

from chatpool.contrib.dask import run  # noqa: E402
from chatpool.contrib.dask.cluster_check import check_client, job_for_workers, pickled  # noqa: E402

SECRET = "sk-secret-1234"


@pytest.fixture
def plan(tmp_path):
    return shards.split(write_rows(tmp_path / "big.jsonl", 4), tmp_path / "work", rows=2)


class NeverAsked(distributed.Client):
    """A client that fails the test if it is asked for anything: all that is refused here is refused before."""

    asynchronous = False

    def __init__(self):
        pass

    def __del__(self):
        pass

    def nthreads(self):
        raise AssertionError("the cluster was asked")


@pytest.fixture
def client():
    return NeverAsked()


def fetch_key():
    return SECRET


class TestSecrets:
    @pytest.mark.parametrize(
        "options",
        [{"api_key": SECRET}, {"endpoints": [Endpoint("http://localhost/v1", SECRET)]}],
    )
    def test_a_key_as_a_str_is_refused_with_advice(self, plan, client, options):
        with pytest.raises(TypeError, match="Set OPENAI_API_KEY where the workers run, or pass a function") as caught:
            run(plan, client, **options)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        "options",
        [
            {"headers": {"Authorization": SECRET}},
            {"query": {"api-key": SECRET}},
            {"proxies": {"https": f"http://user:{SECRET}@proxy"}},
            {"limits": Limits(requests_per_minute=5, scope=f"redis://:{SECRET}@host/name")},
            {"auth": ("user", SECRET)},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_what_holds_a_secret_is_refused_with_advice(self, plan, client, options):
        with pytest.raises(ConfigurationError, match="pool= takes a function that returns one") as caught:
            run(plan, client, **options)
        assert SECRET not in str(caught.value)

    def test_no_secret_stands_in_a_task(self, plan, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        job = job_for_workers(plan, None, None, {"model": "m", "api_key": fetch_key, "temperature": 0})
        data = pickled(job)
        assert SECRET.encode() not in data
        assert pickle.loads(data).options == {"temperature": 0}


class TestArguments:
    def test_a_client_is_a_client_that_blocks(self, client):
        with pytest.raises(TypeError, match=r"client must be a distributed\.Client, got str"):
            check_client("tcp://scheduler:8786")
        client.asynchronous = True
        with pytest.raises(TypeError, match="make it without asynchronous=True"):
            check_client(client)

    def test_a_pool_is_made_in_the_worker(self, plan, client):
        with ChatPool("m", base_url="http://localhost/v1") as pool, pytest.raises(TypeError, match="got ChatPool"):
            run(plan, client, pool=pool)
        with pytest.raises(TypeError, match="leave out model="):
            run(plan, client, pool=functools.partial(ChatPool, "m"), model="m")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"per_worker": 0}, "per_worker"),
            ({"retries": -1}, "retries"),
            ({"output": "out.csv"}, "shards are merged to lines"),
            ({"parse": (each for each in "ab")}, "cannot be pickled for the workers"),
        ],
    )
    def test_what_cannot_work_is_refused(self, plan, client, options, words):
        with pytest.raises(ConfigurationError, match=words):
            run(plan, client, **options)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"budget": 5}, r"budget must be a chatpool\.Budget, got int"),
            ({"limits": 5}, r"limits must be a chatpool\.Limits, got int"),
            ({"template": "{text}"}, "template= is no option of one shard"),
            ({"progress": "yes"}, "progress"),
        ],
    )
    def test_what_is_of_a_wrong_type_is_refused(self, plan, client, options, words):
        with pytest.raises(TypeError, match=words):
            run(plan, client, **options)

    def test_the_plan_has_to_be_there(self, client, tmp_path):
        with pytest.raises(ConfigurationError, match="is no folder of shards"):
            run(tmp_path, client, budget=Budget(tokens=5))
