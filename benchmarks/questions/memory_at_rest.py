"""How much memory does it hold at rest, and for each queued task?"""

from __future__ import annotations

import os
import shutil
import tempfile
from time import sleep
from typing import Any

from benchmarks.contender import WORKERS, Contender
from benchmarks.process_tree import proportional_megabytes, resident_megabytes, tree
from benchmarks.question import Bar, Metric, Question, Settings


def measure(contender: Contender, settings: Settings) -> dict[str, Any]:
    increment = contender.function("increment")
    for number in range(4):
        assert contender.call(increment, number) == number + 1, "wrong result"
    sleep(settings.rest_seconds)
    roots = contender.measured_processes()
    at_rest = proportional_megabytes(tree(roots))
    root_resident = resident_megabytes(roots[0])
    zygotes = [resident_megabytes(pid) for pid in contender.zygotes()]

    folder = tempfile.mkdtemp(prefix="bench-")
    release = os.path.join(folder, "release")
    try:
        count = settings.limited(settings.queued_count, contender.queue_limit)
        caller_before = proportional_megabytes([os.getpid()])
        handles = [contender.submit(contender.function("wait_for_file"), release) for _ in range(WORKERS)]
        handles += [contender.submit(increment, number) for number in range(count)]
        sleep(1.0)  # what is still on its way arrives
        queued = proportional_megabytes(tree(roots)) - at_rest
        queued_caller = proportional_megabytes([os.getpid()]) - caller_before
    finally:
        with open(release, "w"):
            pass
        sleep(0.2)  # so that the two that wait see it
        shutil.rmtree(folder)
    return {
        "at_rest_mb": at_rest,
        "server_mb": root_resident if zygotes else None,
        "zygote_mb": max(zygotes, default=None),
        "queued_mb": queued,
        "queued_bytes_each": queued * 2**20 / count,
        "caller_bytes_each": None if os.getpid() in roots else queued_caller * 2**20 / count,
        "count": count,
    }


QUESTION = Question(
    name="memory_at_rest",
    title="Memory at rest, and of queued tasks",
    text=(
        "`at rest` sums the proportional set sizes of all its processes after four tasks (as in the question of idle "
        "CPU, so with the measuring process for all but Palpable). `server` and `zygote` are resident sizes, of the "
        "largest zygote. Then both workers are held and `count` small tasks handed in; what that adds follows, in all "
        "and per task. `in the caller` is what Palpable's client, which is not in the sum, holds per task."
    ),
    metrics=(
        Metric("at_rest_mb", "at rest, MB", 1),
        Metric("server_mb", "server, MB", 1),
        Metric("zygote_mb", "zygote, MB", 1),
        Metric("queued_mb", "queued, more MB", 1),
        Metric("queued_bytes_each", "bytes per task"),
        Metric("caller_bytes_each", "in the caller"),
    ),
    bars=(
        Bar("server at rest, MB resident", "server_mb", "palpable-task", at_most=45),
        Bar("each zygote at rest, MB resident", "zygote_mb", "palpable-task", at_most=20),
        Bar("100,000 queued small tasks, MB more", "queued_mb", "palpable-task", at_most=150),
    ),
    measure=measure,
    timeout_seconds=120.0,
)
