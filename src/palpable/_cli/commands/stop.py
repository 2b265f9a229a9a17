"""`palpable stop`: end the server."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

import click

from palpable._cli.ending import Failure
from palpable._cli.output import json_option, print_json
from palpable._cli.server_options import ServerChoice, server_options
from palpable.units.task_exceptions import ServerUnreachable

if TYPE_CHECKING:
    from palpable._connection.connection import Connection


@click.command()
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0, 86_400),
    metavar="SECONDS",
    help="Let what runs end within this time. [default: as `palpable serve` was told]",
)
@click.option("--now", is_flag=True, help="End what runs at once; also of a server that drains already.")
@click.option(
    "--timeout-seconds",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=30,
    show_default=True,
    help="Wait so long for its end, after the time to drain.",
)
@json_option
@server_options
def command(
    server: ServerChoice, drain_seconds: float | None, now: bool, timeout_seconds: float, as_json: bool
) -> None:
    """Stop the server, and wait until it is gone.

    Running tasks may end within the time to drain; then they are ended. With a store they are handed back, and the next
    server on it runs them and the queued ones; without, these fail with TaskKilledByQuitSignal. When this returns,
    another `palpable serve` can take the address.

    \b
    Examples:
      palpable stop --drain-seconds 60
      palpable stop --now
    """
    if now and drain_seconds is not None:
        raise click.UsageError("either --now or --drain-seconds")
    from palpable._wire.messages import QuitServer

    begun = time.monotonic()
    with server.connection() as connection:
        info = dict(connection.info)
        drain = 0.0 if now else float(info.get("drain_seconds") or 0) if drain_seconds is None else drain_seconds
        process = _watch_process(connection)
        try:
            connection.answer_to(lambda request_id: QuitServer(request_id=request_id, drain_seconds=drain))
            deadline = begun + drain + timeout_seconds
            is_gone = _wait_closed(connection, deadline) and (process is None or _wait_ended(process, deadline))
        except KeyboardInterrupt:
            if drain:
                click.echo("palpable: the server goes on draining. To hurry it: palpable stop --now", err=True)
            raise
        finally:
            if process is not None:
                os.close(process)
    if not is_gone:
        raise Failure(
            f"the server (pid {info.get('pid')}) is told to stop, and has not ended within {drain + timeout_seconds:g} "
            f"s. Wait longer with --timeout-seconds, or look into its server.log."
        )
    if as_json:
        print_json({"pid": info.get("pid"), "seconds": round(time.monotonic() - begun, 3)})
    else:
        click.echo(f"The server at {connection.address} has stopped.")


def _wait_closed(connection: Connection, deadline: float) -> bool:
    """Return whether the server closes the connection in time, which it does when the last task is gone."""
    try:
        connection.wait(lambda: False, (), max(0.0, deadline - time.monotonic()))
    except ServerUnreachable:
        return True
    return False


def _watch_process(connection: Connection) -> int | None:
    """Return a file descriptor that is readable when the server process has ended; None if it can't be watched.

    After it has closed its connections it still ends its zygotes and removes its folder. The kernel says who listens,
    by a pid of our own namespace, so this also holds where the server has another number for itself.
    """
    stream = connection.stream
    if not isinstance(stream, socket.socket) or stream.family != socket.AF_UNIX:
        return None
    try:
        credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return os.pidfd_open(struct.unpack("3i", credentials)[0])
    except (AttributeError, OSError):  # not Linux, or a server of another namespace
        return None


def _wait_ended(process: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
