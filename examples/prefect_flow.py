"""A Prefect flow: a task for each file of questions, which goes on where it was when it is tried again.

python prefect_flow.py /shared/answers /shared/questions/*.jsonl
"""

import sys
from pathlib import Path

from prefect import flow, task

from chatpool import AuthenticationError, InsufficientQuotaError, batch


def may_go_well_later(task, task_run, state):
    """Return False where a person has to do something first."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, (AuthenticationError, InsufficientQuotaError))


@task(retries=3, retry_delay_seconds=[60, 300, 900], retry_condition_fn=may_go_well_later, log_prints=True)
def answer(source, folder):
    """Answer every row of a file that has no answer yet; returns the counts."""
    # While another process has the file, this raises JournalBusyError, and is tried again.
    result = batch.run(source, Path(folder, Path(source).name), model="gpt-4o-mini", progress=False)
    print(result.summary())
    if result.fatal:
        raise result.fatal
    return result.to_dict()


@flow
def answer_files(folder, sources):
    """Answer the files side by side; the folder is one that every worker can reach."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return answer.map(sources, folder).result()


if __name__ == "__main__":
    answer_files(sys.argv[1], sys.argv[2:])
