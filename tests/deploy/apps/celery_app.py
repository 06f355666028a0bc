"""Celery tasks that share a pool, made and used before the worker forks."""

from __future__ import annotations

import os

from celery import Celery

import chatpool

app = Celery("deploy", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1, result_expires=60)
pool = chatpool.ChatPool("m", base_url=os.environ["CHAT_URL"], max_workers=4, timeout=chatpool.Timeout(total=30))
if "USE_POOL" in os.environ:
    prompts = [f"preload-{number}" for number in range(20)]
    assert [str(answer) for answer in pool.map(prompts)] == prompts


@app.task
def ask(prompt):
    """The process that answers, and the answer."""
    return [os.getpid(), pool.chat(prompt).text]


@app.task(soft_time_limit=1)
def ask_in_a_second(prompt):
    """What ends a call that takes longer than the task may."""
    try:
        return pool.chat(prompt).text
    except Exception as error:
        return f"{type(error).__name__}, in flight: {pool.stats().in_flight}"
