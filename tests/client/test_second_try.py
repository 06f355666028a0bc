"""``pool.retry``: what has failed in a run is sent once more."""

from __future__ import annotations

import _thread
import json
import pickle

import pydantic
import pytest

from chatpool import BadRequestError, ChatPool, Usage, batch
from chatpool.testing import Answer, Error, Stall, chat_completion

USED_FIRST = {"prompt_tokens": 7, "completion_tokens": 1}
USED_THEN = {"prompt_tokens": 7, "completion_tokens": 2}


def failing(*prompts):
    """A script that refuses these prompts."""
    return lambda request: (
        Error(400, "Not now.") if any(f"'{prompt}'" in str(request.body) for prompt in prompts) else None
    )


class Square(pydantic.BaseModel):
    width: int

    @pydantic.computed_field
    @property
    def area(self) -> int:
        return self.width**2


class TestRetry:
    def test_what_had_failed_takes_its_place(self, serve):
        server, pool = serve()
        server.set_script(failing("b", "d"))
        results = pool.map(["a", "b", "c", "d"])
        assert results[1] is results[3] is None
        server.set_script(failing("d"))
        sent = len(server.requests)
        assert pool.retry(results) is results
        assert len(server.requests) == sent + 2
        assert results.texts == ["a", "b", "c", None]
        assert [outcome.item for outcome in results.outcomes] == ["a", "b", "c", "d"]
        assert [outcome.attempts for outcome in results.outcomes] == [1, 2, 1, 2]
        assert [outcome.index for outcome in results.failures] == [3]

    def test_nothing_is_sent_where_nothing_has_failed(self, serve):
        server, pool = serve()
        results = pool.map(["a", "b"])
        assert pool.retry(results).texts == ["a", "b"]
        assert len(server.requests) == 2

    def test_errors_in_the_slots_stay_errors(self, serve):
        server, pool = serve()
        server.set_script(failing("b"))
        results = pool.retry(pool.map(["a", "b"], on_error="return"))
        assert isinstance(results[1], BadRequestError)

    def test_answers_are_parsed_and_asked_for_as_in_the_run(self, serve):
        server, pool = serve()
        server.set_script(failing("2"))
        results = pool.map(["1", "2"], parse=int, temperature=0.5)
        server.set_script(lambda request: None)
        assert pool.retry(results).parsed == [1, 2]
        assert server.requests[-1].body["temperature"] == 0.5

    def test_rows_stay_rows(self, serve):
        server, pool = serve()
        server.set_script(failing("say a"))
        results = pool.map([{"word": "a"}], prompt=lambda row: f"say {row['word']}")
        server.set_script(lambda request: None)
        assert pool.retry(results).outcomes[0].item == {"word": "a"}
        assert results.texts == ["say a"]

    def test_so_do_vectors(self, serve):
        server, pool = serve()
        server.set_script(lambda request: Error(400, "No.") if "b" in request.body["input"] else None)
        results = pool.embed(["a", "b"], max_pack=1)
        assert results[1] is None
        server.set_script(lambda request: None)
        assert pool.retry(results)[1] == pool.embed("b")

    @pytest.mark.parametrize(("max_pack", "sent"), [(None, 1), (2, 3)])
    def test_vectors_are_asked_for_in_packs_again(self, serve, max_pack, sent):
        texts = list("abcde")
        server, pool = serve(retry=0)
        server.set_script(lambda request: Error(401))
        results = pool.embed(texts, max_pack=max_pack)
        assert results == [None] * 5
        server.set_script(lambda request: None)
        before = len(server.requests)
        assert pool.retry(results) == pool.embed(texts)
        assert len(server.requests) == before + sent + 1
        assert [outcome.item for outcome in results.outcomes] == texts
        assert results.usage == Usage(5, 0, 5)

    def test_what_was_never_sent_is_sent(self, serve):
        server, pool = serve(max_workers=1)
        server.set_script(lambda request: Error(401))
        results = pool.map(["a", "b", "c"])
        assert results.fatal is not None
        server.set_script(lambda request: None)
        assert pool.retry(results).texts == ["a", "b", "c"]
        assert results.fatal is None

    def test_an_item_of_which_no_request_can_be_made_stays_a_failure(self, serve):
        _, pool = serve()
        results = pool.retry(pool.map(["a", 3.5]))
        assert results.texts == ["a", None]
        assert str(results.errors[1]).startswith("item 1: an item must be")

    def test_tokens_of_both_times_are_counted(self, serve):
        server, pool = serve()
        bodies = [{**chat_completion(text), "usage": used} for text, used in (("x", USED_FIRST), ("1", USED_THEN))]
        server.set_script([Answer(body=body) for body in bodies])
        results = pool.map(["1"], parse=int, max_reasks=0)
        pool.retry(results)
        assert results.usage.prompt_tokens == 14
        assert results.usage.completion_tokens == 3

    def test_the_journal_of_the_run_goes_on(self, serve, tmp_path):
        path = tmp_path / "run.journal"
        server, pool = serve()
        server.set_script(failing("b", "d"))
        results = pool.map(["a", "b", "c", "d"], journal=path)
        server.set_script(failing("d"))
        pool.retry(results)
        sent = len(server.requests)
        assert pool.map(["a", "b", "c", "d"], journal=path).texts == ["a", "b", "c", None]
        assert len(server.requests) == sent
        server.set_script(lambda request: None)
        pool.retry(results)
        again = pool.map(["a", "b", "c", "d"], journal=path)
        assert again.texts == results.texts == ["a", "b", "c", "d"]
        assert [outcome.attempts for outcome in again.outcomes] == [1, 2, 1, 3]
        assert len(server.requests) == sent + 1

    def test_its_journal_has_the_tokens_of_both_times(self, serve, tmp_path):
        path = tmp_path / "run.journal"
        server, pool = serve(Answer(body={**chat_completion("one"), "usage": USED_FIRST}))
        results = pool.map(["x"], parse=int, max_reasks=0, journal=path)
        server.set_script([Answer(body={**chat_completion("1"), "usage": USED_THEN})])
        assert pool.retry(results).parsed == [1]
        assert batch.report(path).usage == results.usage == pool.stats().usage == Usage(14, 3, 17)

    def test_identical_items_are_sent_once_again(self, serve):
        server, pool = serve()
        server.set_script(failing("b"))
        results = pool.map(["a", "b", "b", "b"], dedupe=True)
        server.set_script(lambda request: None)
        sent = len(server.requests)
        assert pool.retry(results).texts == ["a", "b", "b", "b"]
        assert len(server.requests) == sent + 1

    def test_another_pool_can_do_it_after_pickling(self, serve):
        server, pool = serve()
        server.set_script(failing("b"))
        results = pickle.loads(pickle.dumps(pool.map(["a", "b"])))
        server.set_script(lambda request: None)
        with ChatPool("m", base_url=server.base_url) as other:
            assert other.retry(results).texts == ["a", "b"]

    def test_no_header_of_one_pool_goes_to_another_ones_server(self, serve):
        server, pool = serve(headers={"x-secret": "of the first"})
        server.set_script(lambda request: Error(400))
        results = pool.map(["a"])
        second, other = serve()
        other.retry(results)
        assert "x-secret" not in {name.lower() for name in second.requests[0].headers}

    def test_an_interruption_keeps_what_came_before(self, serve):
        server, pool = serve(max_workers=1)
        server.set_script(failing("a", "b"))
        results = pool.map(["a", "b"])

        def interrupt_at_b(request):
            if "'b'" in str(request.body):
                _thread.interrupt_main()
                return Stall()
            return None

        server.set_script(interrupt_at_b)
        with pytest.raises(KeyboardInterrupt) as caught:
            pool.retry(results)
        assert caught.value.results is results
        assert results.texts == ["a", None]
        assert "cancelled" in str(results.errors[1])

    @pytest.mark.parametrize("results", [["a"], None, "a"])
    def test_what_is_no_result_of_a_run_is_a_type_error(self, serve, results):
        _, pool = serve()
        with pytest.raises(TypeError, match="what map or embed has returned"):
            pool.retry(results)


def test_columns_of_results(serve):
    server, pool = serve()
    server.set_script(failing("b"))
    results = pool.map(["1", "b"], parse=int)
    assert results.texts == ["1", None]
    assert results.parsed == [1, None]
    assert [type(error) for error in results.errors] == [type(None), BadRequestError]


class TestDicts:
    def test_the_row_comes_first_and_keeps_its_names(self, serve):
        _, pool = serve()
        results = pool.map([{"text": "a review", "stars": 3}], prompt=lambda row: row["text"])
        (row,) = results.to_dicts(row=True)
        assert list(row)[:2] == ["text", "stars"]
        assert (row["text"], row["answer_text"], row["ok"]) == ("a review", "a review", True)

    def test_an_item_that_is_no_mapping_is_called_item(self, serve):
        _, pool = serve()
        assert pool.map(["hello"]).to_dicts(row=True)[0]["item"] == "hello"

    def test_parsed_fields_are_columns(self, serve):
        _, pool = serve()
        results = pool.map(['{"name": "Ada", "error": "none"}'], parse=json.loads)
        (row,) = results.to_dicts(parsed=True)
        assert row["name"] == "Ada"
        assert (row["error"], row["parsed_error"]) == (None, "none")

    def test_all_rows_have_all_columns_whichever_has_failed(self, serve):
        _, pool = serve()
        rows = [{"q": "no json"}, {"q": '{"name": "Ada", "q": 1}', "text": "a field"}]
        results = pool.map(rows, prompt=lambda row: row["q"], parse=json.loads, max_reasks=0)
        failed, answered = results.to_dicts(row=True, parsed=True)
        assert list(failed) == list(answered)
        assert (failed["text"], failed["answer_text"], failed["name"], failed["parsed_q"]) == (None, None, None, None)
        assert (answered["text"], answered["answer_text"]) == ("a field", '{"name": "Ada", "q": 1}')
        assert (answered["name"], answered["parsed_q"]) == ("Ada", 1)

    def test_fields_that_a_model_computes_are_columns_too(self, serve):
        _, pool = serve()
        assert pool.map(['{"width": 3}'], parse=Square).to_dicts(parsed=True)[0]["area"] == 9

    def test_other_values_are_one_column(self, serve):
        _, pool = serve()
        assert pool.map(["7"], parse=int).to_dicts(parsed=True)[0]["parsed"] == 7

    def test_a_failure_has_none_of_them(self, serve):
        _, pool = serve()
        row = pool.map(["seven"], parse=int, max_reasks=0).to_dicts(parsed=True)[0]
        assert "parsed" not in row
        assert row["error"].startswith("ParseError")


def test_usage_is_still_the_sum(serve):
    _, pool = serve()
    assert isinstance(pool.map(["a"]).usage, Usage)


def test_each_choice_is_parsed(serve):
    server, pool = serve()
    bodies = [{"index": index, "message": {"role": "assistant", "content": text}} for index, text in enumerate("1x3")]
    server.set_script([Answer(body={**chat_completion("1"), "choices": bodies})])
    reply = pool.chat("pick", n=3, parse=int)
    assert [(choice.text, choice.parsed) for choice in reply.choices] == [("1", 1), ("x", None), ("3", 3)]
