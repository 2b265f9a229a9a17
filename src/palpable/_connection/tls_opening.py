"""From an address to a connected socket with TLS, of a server that is trusted.

A module of its own, since `ssl` is a tenth of what a client would import, and one on this machine needs none of it.
"""

from __future__ import annotations

import os
import ssl

from palpable._connection.address import Address
from palpable._connection.opening import CONNECT_SECONDS, open_socket, unreachable
from palpable._connection.tls_stream import TlsStream
from palpable.units.task_exceptions import ServerUnreachable


def open_trusted(address: Address, tls: bool | str | os.PathLike[str] | ssl.SSLContext) -> TlsStream:
    """Return a stream to a server that shows a certificate we trust; `tls` as in `dialing.prove`.

    Raises:
        ServerUnreachable: nobody listens there, or there is no TLS with it that may be trusted.
        OSError: the certificate file can't be read.
    """
    if isinstance(tls, str | os.PathLike):
        pinned = certificates_in(tls)
        stream = _open(address, trusting_anyone())
        if stream.certificate() in pinned:
            return stream
        # Nothing was said to it yet. Ask anew, in full.
        stream.close()
        return _open(address, ssl.create_default_context(cafile=os.fspath(tls)))
    return _open(address, tls if isinstance(tls, ssl.SSLContext) else ssl.create_default_context())


def _open(address: Address, context: ssl.SSLContext) -> TlsStream:
    sock = open_socket(address)
    try:
        stream = TlsStream(sock, context, address.host)
        stream.shake_hands(CONNECT_SECONDS)
        return stream
    except BaseException as error:
        sock.close()
        if isinstance(error, ssl.SSLError):
            raise tls_unreachable(address, error) from None
        if isinstance(error, OSError):
            raise unreachable(address, error) from None
        raise


def trusting_anyone() -> ssl.SSLContext:
    """Return what accepts any certificate, for who looks at it before saying anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def certificates_in(path: str | os.PathLike[str]) -> set[bytes]:
    """Return the certificates (DER) in a PEM file."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    with open(path, encoding="ascii", errors="replace") as file:
        text = file.read()
    found: set[bytes] = set()
    for part in text.split(begin)[1:]:
        body, separator, _ = part.partition(end)
        if separator:
            found.add(ssl.PEM_cert_to_DER_cert(f"{begin}{body}{end}"))
    return found


def tls_unreachable(address: Address, error: ssl.SSLError) -> ServerUnreachable:
    """Return what to raise when there is no TLS with a server that we may trust."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = (
            f"its certificate is not trusted: {error.verify_message}. For a self-signed one pass its file, "
            f"tls='server.crt' or --tls server.crt; for one of your own authority, that one's."
        )
    else:
        why = f"no TLS with it: {error.reason or error}. Does it listen without TLS?"
    return ServerUnreachable(f"no server at {address}: {why}", address=address.url)
