"""What calls take is counted once, as it is billed, wherever it is asked for."""

from __future__ import annotations

import pytest

import chatpool
from chatpool import Budget, ChatPool, Limits, Usage
from chatpool.testing import Answer, FakeServer, Stream, chat_completion


def answering(usage, text="ok", model="m"):
    body = chat_completion(text, model=model)
    body["usage"] = usage
    return Answer(body=body)


XAI = {
    "prompt_tokens": 20,
    "completion_tokens": 10,
    "total_tokens": 1030,
    "completion_tokens_details": {"reasoning_tokens": 1000},
    "prompt_tokens_details": {"cached_tokens": 4},
}


def test_a_budget_sees_reasoning_that_only_the_total_names():
    budget = Budget(cost=3.0, prices={"m": (0.0, 1000.0)})  # about a dollar an answer
    with FakeServer(script=answering(XAI)) as server:
        with ChatPool("m", base_url=server.base_url, budget=budget, max_workers=1) as pool:
            results = pool.map(["x"] * 20, on_error="return", progress=False)
        assert len(server.requests) <= 3
    assert results[0].usage == Usage(20, 1010, 1030, 4, 1000)


@pytest.mark.parametrize("kind", [float, str, lambda count: f"{count}.0"])
def test_a_budget_sees_floats_and_digits(kind):
    usage = {name: kind(count) for name, count in [("prompt_tokens", 20), ("completion_tokens", 10)]}
    with FakeServer(script=answering(usage)) as server:
        with ChatPool("m", base_url=server.base_url, budget=Budget(tokens=600), max_workers=1) as pool:
            results = pool.map(["word " * 20] * 200, on_error="return", progress=False)
        assert 15 <= len(server.requests) <= 20
    assert results.usage.total_tokens == 30 * len(server.requests)


def test_zeros_beside_text_count_as_expected():
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    with FakeServer(script=answering(zeros)) as server:
        with ChatPool("m", base_url=server.base_url, budget=Budget(tokens=1000), max_workers=1) as pool:
            results = pool.map(["word " * 20] * 100, max_tokens=20, on_error="return", progress=False)
        assert 10 <= len(server.requests) <= 30
    assert results[0].usage is None


def test_a_stated_cost_is_what_a_budget_spends():
    with FakeServer(script=answering({"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.5})) as server:
        budget = Budget(cost=2.0, prices=(0.01, 0.01))
        with ChatPool("m", base_url=server.base_url, budget=budget, max_workers=1) as pool:
            results = pool.map(["x"] * 20, on_error="return", progress=False)
            assert pool.stats().cost == 2.0
        assert len(server.requests) == 4
    assert results.cost() == results.cost((1_000_000, 0)) == 2.0


def test_results_statistics_and_the_report_of_a_journal_count_the_same(tmp_path):
    prices = {"m": (1.0, 2.0, 0.5)}
    budget = Budget(cost=100.0, prices=prices)
    with FakeServer(script=answering(XAI)) as server, ChatPool("m", base_url=server.base_url, budget=budget) as pool:
        results = pool.map(["a", "b", "a", "a"], journal=tmp_path / "run.journal", dedupe=True, progress=False)
        stats = pool.stats()
    report = chatpool.batch.report(tmp_path / "run.journal", prices=prices)
    assert results.usage == stats.usage == report.usage == Usage(40, 2020, 2060, 8, 2000)
    assert results.cost(prices) == stats.cost == report.cost == pytest.approx((32 + 4 + 4040) / 1e6)


@pytest.mark.parametrize("priced", ["deployment-7", "gpt-4o", "gpt-4o-2024-08-06"])
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_model_that_answers_under_another_name_costs_the_same_everywhere(tmp_path, priced, processes):
    prices = {priced: (1_000_000.0, 2_000_000.0)}
    (tmp_path / "in.txt").write_text("a\nb\n")
    answer = answering(XAI, model="gpt-4o-2024-08-06")
    settings = {"budget": Budget(tokens=1_000_000, prices=prices)}
    with FakeServer(script=answer) as server, ChatPool("deployment-7", base_url=server.base_url, **settings) as pool:
        results = pool.map(["a", "b"], journal=tmp_path / "run.journal", progress=False)
        counted = pool.stats().cost
        options = {"pool": pool, "prices": prices, "processes": processes, "progress": False}
        summary = chatpool.batch.run(tmp_path / "in.txt", tmp_path / "out.jsonl", **options)
    reports = [chatpool.batch.report(tmp_path / name, prices=prices) for name in ("run.journal", "out.jsonl")]
    costs = {results.cost(prices), counted, summary.cost, *(report.cost for report in reports)}
    assert costs == {2 * (20 + 2 * 1010)}


@pytest.mark.parametrize("usage", [{"prompt_tokens": 30, "total_tokens": 30}, {"total_tokens": "30"}])
def test_the_tokens_of_a_pack_of_embeddings_are_those_of_its_results(usage):
    data = [{"object": "embedding", "index": place, "embedding": [1.0, 0.0]} for place in range(3)]
    body = {"object": "list", "model": "e", "data": data, "usage": {**usage, "cost": 0.03}}
    with FakeServer(script=Answer(body=body)) as server, ChatPool("e", base_url=server.base_url) as pool:
        vectors = pool.embed(["a", "bb", "a longer text"])
        assert vectors.usage == pool.stats().usage
    assert (vectors.usage.prompt_tokens, vectors.usage.completion_tokens) == (30, 0)
    assert vectors.usage.cost == pytest.approx(0.03)


def test_one_price_will_do_for_embeddings():
    with FakeServer() as server, ChatPool("e", base_url=server.base_url) as pool:
        vectors = pool.embed(["one two"] * 10)
        alone = pool.map([{"model": "e", "input": "one two"}], progress=False)
    assert vectors.cost({"e": 1_000_000}) == vectors.usage.total_tokens > 0
    assert alone.outcomes[0].usage is not None


def test_a_stream_counts_like_any_other_answer():
    with FakeServer(script=Stream(["some ", "words"])) as server, ChatPool("m", base_url=server.base_url) as pool:
        results = pool.map(["x"] * 3, collect_stream=True, progress=False)
        assert results.usage == pool.stats().usage
        assert results.usage.total_tokens > 0


@pytest.mark.parametrize("limits", [Limits(), Limits(tokens_per_minute=100_000)], ids=["stated", "configured"])
@pytest.mark.parametrize("tokens", [10**5, 10**7, 9 * 10**8, 10**12, 10**400])
def test_no_usage_makes_later_calls_fail(limits, tokens, instant_waits):
    stated = {"x-ratelimit-limit-tokens": "100000", "x-ratelimit-remaining-tokens": "99000"}
    usage = {"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": 2 * tokens}
    answer = answering(usage)
    answer = Answer(body=answer.body, headers={**stated, "x-ratelimit-reset-tokens": "600ms"})
    with FakeServer(script=answer) as server, ChatPool("m", base_url=server.base_url, limits=limits) as pool:
        assert not pool.map(["x"] * 40, progress=False).failures
        assert pool.chat("x").text == "ok"


def test_an_answer_of_no_use_is_counted_as_it_is_billed(instant_waits):
    useless = Answer(body={"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 90}})
    good = answering({"prompt_tokens": 10, "completion_tokens": 5})
    with FakeServer() as server:
        with ChatPool("m", base_url=server.base_url, budget=Budget(tokens=100_000, prices=(1, 1))) as pool:
            server.enqueue(useless, useless, good)
            mended = pool.map(["x"], progress=False)
            assert mended.usage == pool.stats().usage == Usage(30, 185, 215)
            server.enqueue(useless, useless)
            lost = pool.map(["x"], retry=1, on_error="return", progress=False)
            assert lost.usage == Usage(20, 180, 200)
            assert pool.stats().usage == mended.usage + lost.usage
            assert pool.stats().cost == pytest.approx(415e-6)
        with ChatPool("m", base_url=server.base_url, budget=Budget(tokens=250), retry=5, max_workers=1) as pool:
            server.enqueue(*[useless] * 9)
            sent = len(server.requests)
            results = pool.map(["x"] * 3, max_tokens=90, on_error="return", progress=False)
            assert type(results.fatal).__name__ == "BudgetExceededError"
            assert len(server.requests) - sent <= 3


def test_an_image_in_any_shape_fits_into_a_limit():
    data = "iVBORw0KGgo" + "A" * 1_000_000
    bodies = [
        {"messages": [{"role": "user", "content": [{"type": "image", "data": data, "mimeType": "image/png"}]}]},
        {"messages": [{"role": "user", "content": "what is it?", "images": [data]}]},
        {"input": [{"type": "image_generation_call", "id": "ig_1", "result": data}]},
    ]
    limits = Limits(tokens_per_minute=100_000)
    with FakeServer() as server, ChatPool("m", base_url=server.base_url, limits=limits) as pool:
        assert not pool.map(bodies, progress=False).failures
