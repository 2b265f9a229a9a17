"""The main function of the server process.

Runs in: the server process, executed afresh by `Server.start`. Speaks with: its owner, over the control socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from palpable._wire.framing import FrameReader, encode_frame
from palpable.servants.control import ServerFailed, ServerRecovering, ServerStarted, StartServer, StopServer, ToServer
from palpable.servants.process_pool import NoZygote
from palpable.servants.server_loop import ServerLoop

STOPPED_MESSAGE = "the server was told to stop before it listened"


def main() -> None:
    """Serve until the owner says stop, ends, or a client quits the server. argv: the control socket's descriptor."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    reader: FrameReader[Any] = FrameReader(ToServer)
    orders: list[Any] = []
    while not orders:
        data = control.recv(1 << 16)
        if not data:
            return  # the owner ended before it could say what to serve
        orders = reader.feed(data)
    start: StartServer = orders[0]

    def on_listening(address: tuple[str, int] | str) -> None:
        control.sendall(encode_frame(ServerStarted(address=address, recovered=loop.recovered)))

    def on_recovering(count: int) -> None:
        control.sendall(encode_frame(ServerRecovering(count=count)))

    loop = ServerLoop(start.settings)
    collect_rarely()
    try:
        run_event_loop(lambda: _serve(loop, on_listening, on_recovering, control, reader, start.owner_pid))
        if not loop.has_listened:
            with contextlib.suppress(OSError):
                control.sendall(encode_frame(ServerFailed(error="Stopped", message=STOPPED_MESSAGE)))
    except Exception as error:
        with contextlib.suppress(OSError):
            number = error.errno if isinstance(error, OSError) else None
            failed = ServerFailed(error=type(error).__name__, message=str(error), error_number=number)
            control.sendall(encode_frame(failed))
        if isinstance(error, NoZygote):
            sys.exit(1)  # the zygotes have said why, and that stays what was said last
        raise
    finally:
        control.close()


def collect_rarely() -> None:
    """Have the garbage collector of this process, which does nothing but serve, look less often.

    What the server makes is nearly all kept for a while, and holds no cycles: looking through it took a tenth of the
    server's time. What its imports have made stays too, but for some 600 objects of 37,000: to find these, while
    importing and after, would take a tenth of the start. So it began without the collector.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()


def run_event_loop(make_main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine on uvloop where it is installed, else on asyncio's own loop."""
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(make_main())


async def _serve(
    server: ServerLoop,
    on_listening: Callable[..., None],
    on_recovering: Callable[[int], None],
    control: socket.socket,
    reader: Any,
    owner_pid: int,
) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.on_signal)
    owner_is_gone = False

    def on_control() -> None:
        try:
            data = control.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            on_owner_gone()
        elif any(isinstance(order, StopServer) for order in reader.feed(data)):
            server.stop(server.settings.drain_seconds)

    def on_owner_gone() -> None:
        nonlocal owner_is_gone
        owner_is_gone = True
        loop.remove_reader(control.fileno())
        if owner_fd is not None:
            loop.remove_reader(owner_fd)
        server.stop()

    owner_fd = _open_pidfd(owner_pid)
    control.setblocking(False)
    loop.add_reader(control.fileno(), on_control)
    if owner_fd is not None:
        # A child that the owner forked holds the other end of `control` too, and may outlive the owner.
        loop.add_reader(owner_fd, on_owner_gone)
    try:
        await server.run(on_listening, on_recovering)
    finally:
        # Against one more SIGTERM, which would end this process by the signal, in the middle of what is left to do: the
        # loop takes its handler away when it is closed. Other threads do not take it: see `journal`.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        loop.remove_reader(control.fileno())
        if owner_fd is not None:
            loop.remove_reader(owner_fd)
            os.close(owner_fd)
        if owner_is_gone:  # nobody else removes what was made for this server
            import shutil

            shutil.rmtree(server.settings.private_folder, ignore_errors=True)


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or the owner is gone: then `control` says so
        return None


if __name__ == "__main__":
    main()
