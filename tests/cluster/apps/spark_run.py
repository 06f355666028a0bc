"""Answers so many rows of a DataFrame on Spark; the last line has the answers, and which tasks were tried again."""

import json
import os
import sys

from pyspark.sql import SparkSession

sys.path.insert(0, os.environ["EXAMPLES"])

import spark_shards

os.environ["PYSPARK_PYTHON"] = sys.executable  # of the workers, too


def main(folder, rows, shard_rows):
    """Answer ``row 0`` and so on."""
    names = [f"row {number}" for number in range(int(rows))]
    builder = SparkSession.builder.master(os.environ["MASTER"]).config("spark.ui.showConsoleProgress", "false")
    with builder.getOrCreate() as spark:
        prompts = spark.createDataFrame([(name, name) for name in names], "custom_id string, prompt string")
        answers = spark_shards.answer(
            prompts.repartition(3), folder, rows=int(shard_rows), model="m", max_workers=4, retry=0
        )
        print(json.dumps({"schema": answers.dtypes, "rows": sorted(map(list, answers.collect()))}))


main(*sys.argv[1:])
