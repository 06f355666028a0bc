"""Answer the new rows of a file every hour: the job of a crontab or of a systemd timer.

    17 * * * *  cd /srv/answers && venv/bin/python cron_answers.py questions.jsonl answers.jsonl

It prints nothing while all is well, so that cron sends no mail. Exit status: 0 for a run that has done what it could,
or had nothing to do; 1 if rows have failed in it; 3 if no row can be answered, because of a refused key for instance.
"""

import sys

from chatpool import DeadlineExceededError, JournalBusyError, batch

RUN_SECONDS = 50 * 60  # less than from one start to the next


def main(questions="questions.jsonl", answers="answers.jsonl"):
    """Answer the rows that have no answer yet; returns the exit status."""
    try:
        result = batch.run(questions, answers, model="gpt-4o-mini", run_timeout=RUN_SECONDS, progress=False)
    except JournalBusyError:
        return 0  # the run before this one is still at work
    if result.fatal and not isinstance(result.fatal, DeadlineExceededError):  # out of time: the next run goes on
        print(f"{type(result.fatal).__name__}: {result.fatal}")
        return 3
    if result.causes:
        print(result.summary())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
