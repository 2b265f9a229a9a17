"""Palpable: a task server for one good machine; a fresh process for every task.

The facade: one table of names and their homes. A name is loaded when it is first used, so `import palpable` is light:
a client does not load the server, a task process loads what it runs.
"""

from __future__ import annotations

__version__ = "1.0.0"

TYPE_CHECKING = False  # as type checkers know it; `typing` itself takes longer to import than all of this
if TYPE_CHECKING:
    from palpable.integrations.executor import Executor
    from palpable.procedures.map_function import MapFunction
    from palpable.procedures.procedure import Procedure
    from palpable.procedures.run_function import RunFunction
    from palpable.servants.server import Server
    from palpable.units.async_client import AsyncClient
    from palpable.units.client import Client
    from palpable.units.messenger import Messenger, current_task
    from palpable.units.task import Task
    from palpable.units.task_exceptions import (
        AuthenticationFailed,
        NotPicklable,
        NotUnpicklable,
        PalpableError,
        PayloadTooLarge,
        RemoteTaskError,
        RemoteTraceback,
        ServerDraining,
        ServerError,
        ServerStartError,
        ServerUnreachable,
        StoreFull,
        TaskCancelled,
        TaskCrashed,
        TaskDidNotFinish,
        TaskFailed,
        TaskKilledByMonitoringError,
        TaskKilledByQuitSignal,
        TaskLost,
        TaskRejected,
        TaskTimeout,
        UnknownTask,
        VersionMismatch,
        WaitCycle,
    )
    from palpable.units.task_function import TaskFunction, task
    from palpable.units.task_future import TaskFuture
    from palpable.units.task_response import TaskResponse
    from palpable.units.task_result import TaskResult

_HOMES = {
    "Server": "palpable.servants.server",
    "Client": "palpable.units.client",
    "AsyncClient": "palpable.units.async_client",
    "Executor": "palpable.integrations.executor",
    "TaskFuture": "palpable.units.task_future",
    "Procedure": "palpable.procedures.procedure",
    "RunFunction": "palpable.procedures.run_function",
    "MapFunction": "palpable.procedures.map_function",
    "Task": "palpable.units.task",
    "task": "palpable.units.task_function",
    "TaskFunction": "palpable.units.task_function",
    "TaskResult": "palpable.units.task_result",
    "TaskResponse": "palpable.units.task_response",
    "Messenger": "palpable.units.messenger",
    "current_task": "palpable.units.messenger",
    "PalpableError": "palpable.units.task_exceptions",
    "TaskFailed": "palpable.units.task_exceptions",
    "TaskDidNotFinish": "palpable.units.task_exceptions",
    "TaskTimeout": "palpable.units.task_exceptions",
    "TaskCrashed": "palpable.units.task_exceptions",
    "TaskCancelled": "palpable.units.task_exceptions",
    "TaskKilledByQuitSignal": "palpable.units.task_exceptions",
    "TaskKilledByMonitoringError": "palpable.units.task_exceptions",
    "TaskLost": "palpable.units.task_exceptions",
    "TaskRejected": "palpable.units.task_exceptions",
    "RemoteTaskError": "palpable.units.task_exceptions",
    "RemoteTraceback": "palpable.units.task_exceptions",
    "ServerUnreachable": "palpable.units.task_exceptions",
    "AuthenticationFailed": "palpable.units.task_exceptions",
    "VersionMismatch": "palpable.units.task_exceptions",
    "ServerError": "palpable.units.task_exceptions",
    "ServerStartError": "palpable.units.task_exceptions",
    "ServerDraining": "palpable.units.task_exceptions",
    "StoreFull": "palpable.units.task_exceptions",
    "UnknownTask": "palpable.units.task_exceptions",
    "WaitCycle": "palpable.units.task_exceptions",
    "PayloadTooLarge": "palpable.units.task_exceptions",
    "NotPicklable": "palpable.units.task_exceptions",
    "NotUnpicklable": "palpable.units.task_exceptions",
}

__all__ = [
    "__version__",
    "Server",
    "Client",
    "AsyncClient",
    "Executor",
    "TaskFuture",
    "Procedure",
    "RunFunction",
    "MapFunction",
    "Task",
    "task",
    "TaskFunction",
    "TaskResult",
    "TaskResponse",
    "Messenger",
    "current_task",
    "PalpableError",
    "TaskFailed",
    "TaskDidNotFinish",
    "TaskTimeout",
    "TaskCrashed",
    "TaskCancelled",
    "TaskKilledByQuitSignal",
    "TaskKilledByMonitoringError",
    "TaskLost",
    "TaskRejected",
    "RemoteTaskError",
    "RemoteTraceback",
    "ServerUnreachable",
    "AuthenticationFailed",
    "VersionMismatch",
    "ServerError",
    "ServerStartError",
    "ServerDraining",
    "StoreFull",
    "UnknownTask",
    "WaitCycle",
    "PayloadTooLarge",
    "NotPicklable",
    "NotUnpicklable",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
