"""The socket a server listens on.

Runs in: the server process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import ssl
import stat

from palpable.servants.settings import ServerSettings

BACKLOG = 4096


class CannotListen(OSError):
    """The address is in use, not ours, or can't be made. `errno` and `filename` are those of the cause."""


def open_listener(settings: ServerSettings) -> socket.socket:
    """Return a listening socket for the address of the settings.

    A stale socket file, one that nobody listens on, is replaced.

    Raises:
        CannotListen: see there.
    """
    try:
        return _open_unix(settings.address) if isinstance(settings.address, str) else _open_tcp(*settings.address)
    except OSError as error:
        refused = CannotListen(*error.args)
        refused.filename = error.filename
        raise refused from error
    except UnicodeError as error:  # from the codec for the names of hosts
        raise CannotListen(str(error)) from error


def _open_tcp(host: str, port: int) -> socket.socket:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = infos[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def file_at(address: tuple[str, int] | str) -> tuple[int, int] | None:
    """Return what tells the file of a Unix socket from all others there are; None if there is no file."""
    try:
        found = os.stat(address) if isinstance(address, str) else None
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def _open_unix(path: str) -> socket.socket:
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Against two servers that find the same stale file: the second would unlink the socket of the first. And a
        # client that finds the file before we listen waits for its folder (`_connection/opening.py`).
        fcntl.flock(folder, fcntl.LOCK_EX)
        return _replace_unix(path)
    finally:
        os.close(folder)


def _replace_unix(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "there is a file which is no socket", path)
        if _is_answered(path):
            raise OSError(errno.EADDRINUSE, "another server listens there", path)
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody but this user may connect, from the first moment on.
        old_mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(old_mask)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_answered(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """Return the TLS settings of the server; None without TLS.

    Raises:
        OSError: the certificate or the key cannot be loaded; it names the file.
    """
    if settings.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate, key = settings.tls
    for path in (certificate, key):  # OpenSSL does not say which of them it can't read
        with open(path, "rb"):
            pass
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        reason = f"no certificate, or not that of the key {key} ({error.reason or error.strerror})"
        raise OSError(errno.EINVAL, reason, certificate) from error
    return context
