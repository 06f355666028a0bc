"""Answer the prompts of a DataFrame on Spark: a task for each shard, and the answers as a DataFrame.

A task that Spark tries again goes on where it was. ``mapInPandas`` over the prompts themselves would send all rows of
the partition again, and pay for them again.
"""

import os
import time
from pathlib import Path

from pyspark.sql.functions import coalesce, col, get, lit, struct, to_json, when

from chatpool import JournalBusyError
from chatpool.batch import shards
from chatpool.errors import from_dict

BUSY_SECONDS = 10  # to wait for another process that has the shard

_LINES = """
    custom_id string,
    response struct<status_code: int, body: struct<
        model: string,
        choices: array<struct<message: struct<content: string>, finish_reason: string>>,
        usage: struct<prompt_tokens: long, completion_tokens: long>,
        error: struct<code: string, type: string, message: string>>>,
    error struct<code: string, message: string>
"""


def answer(prompts, folder, *, rows=5000, **options):
    """Answer the column ``prompt`` of a DataFrame whose column ``custom_id`` names each row.

    The same call again sends only what has no answer yet.

    Args:
        prompts: the DataFrame.
        folder: a new folder, or that of an earlier call, at the same place on the driver and on all executors.
        rows: rows of a shard.
        options: those of ``chatpool.batch.shards.run``: ``model``, ``max_workers``, ``limits`` and others.

    Returns:
        A DataFrame with ``custom_id``, ``answer``, ``model``, ``finish_reason``, ``prompt_tokens``,
        ``completion_tokens``, ``error`` (its code or HTTP status) and ``message``.
    """
    folder = os.path.abspath(folder)
    count = len(shards.split(_write(prompts, folder), folder, rows=rows).shards)

    def run(batches):
        for batch in batches:
            for index in batch.column("id").to_pylist():
                run_shard(index)
            yield batch

    def run_shard(index):
        while True:
            try:
                result = shards.run(folder, index, progress=False, **options)
            except JournalBusyError:  # of a task that Spark has given up, or started twice
                time.sleep(BUSY_SECONDS)
            else:
                break
        if result["fatal"]:
            raise from_dict(result["fatal"])

    prompts.sparkSession.range(count, numPartitions=count).mapInArrow(run, "id long").collect()
    answers = Path(folder, "answers.jsonl")
    shards.merge(folder, answers)
    return _read(prompts.sparkSession, [answers, answers.with_suffix(".errors.jsonl")])


def _write(prompts, folder):
    """Write the rows in the order of their names: the same rows are the same file."""
    os.makedirs(folder, exist_ok=True)
    path = Path(folder, "prompts.jsonl")
    rows = prompts.select(col("custom_id").cast("string"), "prompt").orderBy("custom_id", "prompt")
    lines = rows.select(to_json(struct("custom_id", "prompt"))).toLocalIterator(prefetchPartitions=True)
    unfinished = path.with_suffix(".part")
    with open(unfinished, "w", encoding="utf-8") as file:
        file.writelines(line[0] + "\n" for line in lines)
    unfinished.replace(path)
    return path


def _read(spark, paths):
    lines = spark.read.schema(_LINES).json([path.as_uri() for path in paths])
    body = col("response.body")
    choice = get(body.choices, lit(0))
    failed = when(col("response.status_code") >= 300, col("response.status_code"))
    return lines.select(
        "custom_id",
        choice.message.content.alias("answer"),
        body.model.alias("model"),
        choice.finish_reason.alias("finish_reason"),
        body.usage.prompt_tokens.alias("prompt_tokens"),
        body.usage.completion_tokens.alias("completion_tokens"),
        coalesce("error.code", body.error.code, body.error.type, failed.cast("string")).alias("error"),
        coalesce("error.message", body.error.message).alias("message"),
    )
