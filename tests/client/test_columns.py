"""Results as columns of data frames, of pandas and of polars."""

from __future__ import annotations

import pytest

from chatpool.testing import Answer, Error

REVIEWS = ["good", "bad", "good", "rude", "bad", "good"]
MOODS = {"good": "positive", "bad": "negative"}


@pytest.fixture
def judged(serve):
    """``judged(column, **options)`` -> the results of a column of reviews, of which rude ones are refused."""
    server, pool = serve()

    def script(request):
        if request.prompt == "rude":
            return Error(400, message="too rude")
        return Answer(MOODS[request.prompt])

    server.set_script(script)

    def run(column, **options):
        return pool.map(column, progress=False, **options)

    return run


class TestPandas:
    @pytest.fixture
    def frame(self):
        return pytest.importorskip("pandas").DataFrame(
            {"review": REVIEWS, "stars": [5, 1, 4, 2, 1, 3]}, index=range(10, 16)
        )

    def test_texts_are_a_column_of_strings(self, frame, judged):
        frame["answer"] = judged(frame["review"]).texts
        assert (frame["answer"] == "positive").to_list() == [True, False, True, False, False, True]
        assert frame["answer"].str.upper().dropna().to_list() == [
            MOODS[name].upper() for name in REVIEWS if name in MOODS
        ]
        assert frame["answer"].value_counts().to_dict() == {"positive": 3, "negative": 2}
        assert frame.groupby("answer")["stars"].mean().to_dict() == {"negative": 1.0, "positive": 4.0}
        assert frame["answer"].isna().to_list() == [name == "rude" for name in REVIEWS]

    def test_errors_and_parsed_values_are_columns_too(self, frame, judged):
        results = judged(frame["review"], parse=str.upper)
        frame = frame.assign(parsed=results.parsed, error=results.errors)
        assert frame["parsed"].value_counts().to_dict() == {"POSITIVE": 3, "NEGATIVE": 2}
        assert "too rude" in str(frame["error"].dropna().loc[13])

    def test_dicts_are_a_frame_with_the_rows(self, frame, judged):
        pandas = pytest.importorskip("pandas")
        results = judged(frame.to_dict("records"), prompt=lambda row: row["review"])
        table = pandas.DataFrame(results.to_dicts(row=True))
        assert table.groupby("text")["stars"].sum().to_dict() == {"negative": 2, "positive": 12}
        assert table[table["ok"]]["review"].to_list() == [name for name in REVIEWS if name in MOODS]

    def test_all_rows_that_failed_are_a_column_of_none(self, judged):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"review": ["rude", None]})
        frame["answer"] = judged(frame["review"]).texts
        assert frame["answer"].isna().all()


class TestPolars:
    @pytest.fixture
    def polars(self):
        return pytest.importorskip("polars")

    @pytest.fixture
    def frame(self, polars):
        return polars.DataFrame({"review": REVIEWS, "stars": [5, 1, 4, 2, 1, 3]})

    def test_texts_are_a_column_of_strings(self, polars, frame, judged):
        results = judged(frame["review"])
        frame = frame.with_columns(answer=polars.Series(results.texts))
        assert frame["answer"].dtype == polars.String
        assert frame["answer"].null_count() == 1
        assert (frame["answer"] == "positive").to_list() == [True, False, True, None, False, True]
        assert frame["answer"].str.to_uppercase().to_list()[:2] == ["POSITIVE", "NEGATIVE"]
        counts = dict(frame["answer"].drop_nulls().value_counts().rows())
        assert counts == {"positive": 3, "negative": 2}
        means = dict(frame.drop_nulls("answer").group_by("answer").agg(polars.col("stars").mean()).rows())
        assert means == {"positive": 4.0, "negative": 1.0}

    def test_dicts_are_a_frame_with_the_rows(self, polars, frame, judged):
        results = judged(frame.to_dicts(), prompt=lambda row: row["review"])
        table = polars.DataFrame(results.to_dicts(row=True))
        assert table.filter(polars.col("ok"))["review"].to_list() == [name for name in REVIEWS if name in MOODS]


def test_an_answer_in_place_of_its_message_is_told_of_it(serve):
    _, pool = serve()
    reply = pool.chat("a")
    for answer, name in ((reply, "ChatCompletion"), (reply.choices[0], "Choice")):
        with pytest.raises(TypeError, match=rf"message 0 of a list item is a {name}: put its \.message into the list"):
            pool.chat([answer])
