"""`palpable serve`: a server in the foreground."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from palpable._cli.current_folder import import_from_here
from palpable._cli.ending import Failure, discard_output
from palpable._cli.output import json_option, print_json
from palpable._cli.serving_address import ServingAddress
from palpable._cli.state_folder import default_store
from palpable._store.store import StoreBroken
from palpable.servants.settings import usable_cores

if TYPE_CHECKING:
    from palpable.servants.server import Server


@click.command()
@click.option("--socket", metavar="PATH", help="Listen on a Unix socket there. [default: this user's default server]")
@click.option("--host", metavar="HOST", help="Listen on TCP, with --port. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="Listen on this TCP port; 0: a free one.")
@click.option(
    "--authkey-file",
    metavar="FILE",
    help="The key that clients must hold; made if there is no such file. "
    "[default: the file authkey beside the socket; for TCP, that of the default server]",
)
@click.option("--tls-certificate", metavar="FILE", help="TLS: the certificate.")
@click.option("--tls-key", metavar="FILE", help="TLS: the certificate's private key.")
@click.option(
    "--allow-plaintext",
    is_flag=True,
    help="Listen without TLS also where other machines can connect, and can read everything.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 4096),
    metavar="N",
    help="So many tasks run at once. [default: the cores this process may use]",
)
@click.option(
    "--isolation",
    type=click.Choice(["task", "worker"]),
    default="task",
    show_default=True,
    help="A fresh process for every task, or one for many; clients may choose for their own tasks.",
)
@click.option(
    "--preload",
    multiple=True,
    metavar="MODULE",
    help="Tasks find this module imported already; may be given several times.",
)
@click.option(
    "--store",
    metavar="PATH",
    help="Keep tasks and results in this file, so that they survive the end of the server; none: in memory alone. "
    "[default: palpable/jobs.db in $XDG_STATE_HOME or ~/.local/state]",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0, 86_400),
    metavar="SECONDS",
    default=0,
    show_default=True,
    help="When it is told to stop, let what runs end within this time.",
)
@click.option(
    "--task-timeout-seconds",
    type=click.FloatRange(0.001),
    metavar="SECONDS",
    default=10_800,
    show_default=True,
    help="A task that runs longer is killed.",
)
@click.option(
    "--retention-seconds",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Finished tasks are kept so long. [default: 86400, a day; without a store 60]",
)
@click.option(
    "--retention-capacity",
    type=click.IntRange(0),
    metavar="N",
    default=100_000,
    show_default=True,
    help="So many finished tasks are kept at most.",
)
@click.option(
    "--log-folder", metavar="FOLDER", help="Where log files go. [default: a private one, gone with the server]"
)
@json_option
def command(
    socket: str | None,
    host: str | None,
    port: int | None,
    authkey_file: str | None,
    tls_certificate: str | None,
    tls_key: str | None,
    allow_plaintext: bool,
    workers: int | None,
    isolation: Any,
    preload: tuple[str, ...],
    store: str | None,
    drain_seconds: float,
    task_timeout_seconds: float,
    retention_seconds: float | None,
    retention_capacity: int,
    log_folder: str | None,
    as_json: bool,
) -> None:
    """Run a task server here, until Ctrl-C, SIGTERM or `palpable stop`.

    Without options this is the default server of this user: a Unix socket in a private folder ($PALPABLE_HOME, else
    $XDG_RUNTIME_DIR/palpable), where `Client()` and the other commands find it.

    Tasks run in the folder where this is called, and may import modules from there.

    Tasks and results are kept in a file. A server that was killed loses nothing: the next one on the same file goes on
    with what it had accepted, and says so. With --drain-seconds, SIGTERM lets running tasks end within that time; what
    does not is handed back, to be run by the next server. A second SIGTERM or Ctrl-C hurries.

    \b
    Examples:
      palpable serve --workers 8 --drain-seconds 30
      palpable serve --store none
    A server that other machines can reach:
      palpable serve --host 0.0.0.0 --port 8089 --tls-certificate server.crt --tls-key server.key
    """
    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key are given together")
    with _ending_quietly():
        _import_server()
        where = ServingAddress.choose(socket, host, port, tls_certificate, authkey_file)
        has_listened = False

        def announce(address: str | tuple[str, int]) -> None:
            nonlocal has_listened
            has_listened = True
            _announce(where.listening(address), server, count, as_json=as_json)

        try:
            if where.path and where.is_taken():  # before a store is made, or opened and its tasks begin to run
                raise where.refused(OSError(errno.EADDRINUSE, ""))
            import_from_here()
            count = workers or usable_cores()
            server = _make_server(
                where,
                logging_folder=log_folder,
                num_workers=count,
                isolation=isolation,
                preload=preload,
                store=_store_path(store),
                drain_seconds=drain_seconds,
                task_timeout_seconds=task_timeout_seconds,
                result_retention_seconds=retention_seconds,
                result_retention_capacity=retention_capacity,
                tls=None if tls_certificate is None else (tls_certificate, tls_key),
                allow_plaintext=allow_plaintext,
            )
            _serve(server, where, announce, lambda: has_listened)
        finally:
            if has_listened:
                where.close()
            else:
                where.withdraw()


def _serve(
    server: Server, where: ServingAddress, on_listening: Callable[[Any], None], has_listened: Callable[[], bool]
) -> None:
    from palpable.servants.process_pool import NoZygote
    from palpable.servants.server_process import collect_rarely

    try:
        collect_rarely()
        server.serve(on_listening=on_listening)
    except OSError as error:
        raise where.refused(error) from None
    except NoZygote as error:  # each of them has said on stderr why it ended
        raise Failure(f"{_sentence(error)} Without them nothing runs, so the server has ended.") from None
    except StoreBroken as error:
        if has_listened():
            raise Failure(_sentence(error)) from None
        if where.is_taken():  # by the server that has the store, most likely: that is the better advice
            raise where.refused(OSError(errno.EADDRINUSE, "")) from None
        raise Failure(f"{_sentence(error)} To keep nothing: --store none.") from None
    finally:
        server.close()


def _sentence(error: Exception) -> str:
    text = str(error)
    return text if text.endswith((".", "?")) else f"{text}."


def _make_server(where: ServingAddress, **settings: Any) -> Server:
    from palpable.servants.server import Server

    try:
        return Server(address=where.address, family=where.family, authkey=where.authkey, **settings)
    except (TypeError, ValueError) as error:
        if "allow_plaintext" in str(error):  # said in the words of the command line
            raise click.UsageError(
                f"--host {where.host}: other machines can connect there. Add --tls-certificate and --tls-key, or "
                f"--allow-plaintext if you trust everybody on that network"
            ) from None
        raise click.UsageError(str(error)) from None


def _store_path(store: str | None) -> str | None:
    if store == "none":
        return None
    if store == ":memory:":  # said in the words of the command line
        raise click.UsageError("--store is the path of a file. To keep everything in memory: --store none")
    try:
        return str(default_store(create=True)) if store is None else store
    except OSError as error:
        raise Failure(
            f"can't make the folder of the store, {error.filename}: {error.strerror}. Name a file with --store, or "
            f"keep nothing: --store none."
        ) from None


def _announce(where: ServingAddress, server: Server, num_workers: int, *, as_json: bool) -> None:
    store = server.store_path
    try:
        if as_json:
            key_path = None if where.key_path is None else str(where.key_path)
            print_json(
                {
                    "url": where.url,
                    "authkey_file": key_path,
                    "pid": os.getpid(),
                    "num_workers": num_workers,
                    "store": store,
                    "recovered": server.recovered,
                }
            )
            return
        workers = "1 worker" if num_workers == 1 else f"{num_workers} workers"
        click.echo(f"Listening on {where.url} with {workers}. {where.how_to_reach}")
        if store is not None:
            click.echo(f"Tasks and results are kept in {store}.{_recovery(server.recovered)}")
    except BrokenPipeError:
        discard_output()  # nobody reads it; the server serves all the same


RECOVERED = {
    "interrupted": "that ran and run again",
    "ready": "ready to run",
    "scheduled": "to run later",
    "retrying": "to be retried",
    "lost": "lost, since they may run once at most",
    "cancelled": "cancelled with their client or parent",
    "finished": "finished",
}
"""What became of the tasks of the server before, in the order in which it matters."""


def _recovery(counts: dict[str, int]) -> str:
    parts = [f"{counts[what]} {text}" for what, text in RECOVERED.items() if counts.get(what)]
    return f" Recovered: {', '.join(parts)}." if parts else ""


def _import_server() -> None:
    """Import what the server runs on, and hear of signals afterwards.

    Their handlers raise. In the midst of an import, that leaves the file that is being read to the garbage collector.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    try:
        import palpable.servants.server
        import palpable.servants.server_process  # noqa: F401

        with contextlib.suppress(ImportError):
            import uvloop  # noqa: F401
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _ending_quietly() -> Iterator[None]:
    """Have SIGTERM and SIGINT end the command with exit code 0 also before the server's loop handles them.

    SIGHUP, from a terminal that closes, does as SIGTERM, and the server cleans up behind itself; unless it is ignored,
    as by `nohup`.
    """

    def end(number: int, frame: object) -> None:
        raise SystemExit(0)

    def end_as_by_sigterm(number: int, frame: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    handlers: dict[signal.Signals, Any] = {signal.SIGTERM: end, signal.SIGINT: end}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        handlers[signal.SIGHUP] = end_as_by_sigterm
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
