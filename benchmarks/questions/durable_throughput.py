"""How many tasks per second, from submission to result, when nothing may be lost?"""

from __future__ import annotations

from benchmarks.question import Bar, Metric, Question
from benchmarks.questions.submit_throughput import measure

QUESTION = Question(
    name="durable_throughput",
    title="Throughput of a durable queue, processes reused",
    text=(
        "`x + 1`, submitted one by one, then the results are collected one by one. Palpable commits with fsync before "
        "it accepts a task and before it gives a result. Huey commits to SQLite too; Redis, below Celery, writes "
        "nothing to disk."
    ),
    metrics=(Metric("results_per_second", "results/s"), Metric("submits_per_second", "submits/s")),
    bars=(
        Bar("durable, worker mode, tasks/s", "results_per_second", "palpable-durable-worker", at_least=8000),
        Bar(
            "durable, worker mode / Celery on Redis",
            "results_per_second",
            "palpable-durable-worker",
            "celery",
            at_least=15,
        ),
        Bar(
            "durable, worker mode / Huey on SQLite",
            "results_per_second",
            "palpable-durable-worker",
            "huey-sqlite",
            at_least=10,
        ),
    ),
    measure=measure,
)
