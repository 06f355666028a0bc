"""An Airflow DAG: a mapped task for each file of questions, which goes on where it was when it is tried again."""

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

from chatpool import AuthenticationError, InsufficientQuotaError, JournalBusyError, batch

SHARED = Path(os.environ.get("ANSWERS_FOLDER", "/shared"))  # every worker reaches it by this name


@dag(schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False, max_active_runs=1)
def answers():
    """Answer the files in the folder ``questions``."""

    @task
    def files():
        (SHARED / "answers").mkdir(exist_ok=True)
        return sorted(str(path) for path in (SHARED / "questions").glob("*.jsonl"))

    @task(retries=3, retry_delay=timedelta(minutes=5), retry_exponential_backoff=True, max_active_tis_per_dag=4)
    def answer(source):
        """Answer every row of a file that has no answer yet; returns the counts."""
        try:
            result = batch.run(source, SHARED / "answers" / Path(source).name, model="gpt-4o-mini", progress=False)
        except JournalBusyError as busy:  # the task was started twice; this costs none of its tries
            raise AirflowRescheduleException(datetime.now(timezone.utc) + timedelta(minutes=1)) from busy
        if isinstance(result.fatal, (AuthenticationError, InsufficientQuotaError)):
            raise AirflowFailException(str(result.fatal)) from result.fatal  # a person has to do something first
        if result.fatal:
            raise result.fatal
        return result.to_dict()

    answer.expand(source=files())


answers()
