"""What does a store cost when every task has a process of its own?"""

from __future__ import annotations

from benchmarks.question import Bar, Metric, Question
from benchmarks.questions.task_throughput import measure

QUESTION = Question(
    name="durable_task_mode",
    title="A store under a process per task",
    text="`x + 1` over a batch of numbers, a fresh process for each, with a store and without.",
    metrics=(Metric("tasks_per_second", "tasks/s"),),
    bars=(
        Bar(
            "task mode, with a store / without",
            "tasks_per_second",
            "palpable-durable-task",
            "palpable-task",
            at_least=0.85,
        ),
    ),
    measure=measure,
)
