"""What does it cost to have it running and doing nothing?"""

from __future__ import annotations

from time import sleep
from typing import Any

from benchmarks.contender import Contender
from benchmarks.process_tree import idle_cpu_seconds, tree
from benchmarks.question import Bar, Metric, Question, Settings

REFERENCE_SECONDS = 30.0


def measure(contender: Contender, settings: Settings) -> dict[str, Any]:
    function = contender.function("increment")
    for number in range(4):
        assert contender.call(function, number) == number + 1, "wrong result"
    sleep(settings.rest_seconds)
    roots = contender.measured_processes()
    seconds = settings.idle_seconds if contender.name.startswith("palpable") else settings.peer_idle_seconds
    used = idle_cpu_seconds(roots, seconds)
    return {
        "cpu_ms_in_30_s": used / seconds * REFERENCE_SECONDS * 1000,
        "processes": len(tree(roots)),
        "count": seconds,
    }


QUESTION = Question(
    name="idle_cpu",
    title="CPU time when idle",
    text=(
        "After four tasks and 3 s of rest: the CPU time of all its processes in the next `count` seconds, as "
        "milliseconds in 30 s. For Palpable these are the server, the zygotes and the processes forked ahead; for the "
        "others also the sleeping measuring process: the threads of a pool live there. Redis counts where it is used."
    ),
    metrics=(Metric("cpu_ms_in_30_s", "CPU ms in 30 s", 1), Metric("processes", "processes")),
    bars=(Bar("idle for 30 s, CPU ms", "cpu_ms_in_30_s", "palpable-task", at_most=20),),
    measure=measure,
)
