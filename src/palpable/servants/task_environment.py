"""The environment variables that tasks start with."""

from __future__ import annotations

import os

from palpable._connection.inside import TASK_ID_VARIABLE, TASK_TOKEN_VARIABLE
from palpable._zygote.leftovers import SERVER_VARIABLE
from palpable.servants.settings import usable_cores

THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""What the usual numerical libraries read when they are imported. Without a limit each of the tasks that run at once
starts a thread for every core, and they slow one another down. (joblib and loky set the same names.)"""


def task_environment(num_workers: int, server_id: str) -> dict[str, str]:
    """Return this process' environment, with the cores shared out among the workers unless the user said otherwise.

    Args:
        server_id: by it the processes of this server are known.
    """
    environment = dict(os.environ)
    environment[SERVER_VARIABLE] = server_id
    for name in (TASK_ID_VARIABLE, TASK_TOKEN_VARIABLE):
        environment.pop(name, None)  # of the task in which this server runs, if it does; none of ours is in that one
    share = str(max(1, usable_cores() // num_workers))
    for name in THREAD_LIMITS:
        environment.setdefault(name, share)
    return environment
