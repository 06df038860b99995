"""What goes wrong with a request: the errors, which of them may pass, and the client library's turned into ours."""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import aiohttp_socks
from yarl import URL

from corral.errors import SourceError, Unreachable
from corral.sources.registry.addresses import RefusedAddressError

_FOREIGN = (
    aiohttp.ClientError,
    aiohttp_socks.ProxyConnectionError,
    aiohttp_socks.ProxyError,
    aiohttp_socks.ProxyTimeoutError,
    ConnectionError,
    RefusedAddressError,
    ssl.SSLError,
)
"""What the libraries raise."""


class NotEncrypted(Unreachable):
    """No encrypted connection, as the host's port refuses any or answers with something else than TLS."""


class Interrupted(SourceError):
    """The connection broke, or went silent, in the middle of an answer: trying again may work."""


class Contradiction(SourceError):
    """An answer at odds with what was asked, announced or answered before: nothing that came with it can be kept."""


class StatusError(SourceError):
    """The server answered with an error: `<code>: <body>`. `pause`: seconds it asked us to wait, or 0."""

    def __init__(self, code: int, body: str, pause: float = 0.0) -> None:
        super().__init__(f"{code}: {body}" if body else f"{code}")
        self.code = code
        self.pause = pause


def is_retryable(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, StatusError):
        return error.code in (408, 425, 429) or error.code >= 500
    return isinstance(error, (Interrupted, Unreachable))


@contextmanager
def translate_errors(method: str, url: URL) -> Iterator[None]:
    """Raises the client library's errors as ours.

    The sentences for an unknown host, a refused connection and an early end are those of spec api annex B, which
    clients match on. `Unreachable`: there is no connection, `NotEncrypted` where one without encryption may be;
    `Interrupted`: it broke; `SourceError`: anything else.
    """
    try:
        yield
    except (aiohttp.InvalidURL, UnicodeError) as error:  # the second for a name that no host can have
        raise SourceError(f'invalid address "{redacted(url)}"') from error
    except _FOREIGN as error:
        raise _translated(operation(method, url), url, error) from error


def _translated(request: str, url: URL, error: Exception) -> SourceError | Unreachable:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    match error:
        case _ if isinstance(cause, RefusedAddressError):
            return SourceError(f'"{redacted(url)}" leads to {cause}')
        case aiohttp.ClientHttpProxyError():
            answer = f"{error.status} {printable(error.message)[:100]}".strip()
            return Unreachable(f"{request}: the proxy does not connect us: {answer}")
        case aiohttp_socks.ProxyError():
            return Unreachable(f"{request}: the proxy does not connect us: {printable(str(error))[:100]}")
        case aiohttp_socks.ProxyConnectionError() | aiohttp_socks.ProxyTimeoutError():
            return Unreachable(f"{request}: the proxy cannot be reached: {_proxy_reason(error)}")
        case aiohttp.ClientConnectorDNSError():
            via = "" if error.host == url.host else "proxyconnect tcp: "
            return Unreachable(f"{request}: {via}dial tcp: lookup {error.host}: no such host")
        case aiohttp.ClientSSLError() | ssl.SSLError():
            is_tls = _is_of_another(error, url) or not _is_no_tls(cause)
            return (Unreachable if is_tls else NotEncrypted)(f"{request}: {_tls_reason(cause)}")
        case aiohttp.ClientOSError(__cause__=ssl.SSLError() as reason):  # behind a SOCKS proxy
            return (NotEncrypted if _is_no_tls(reason) else Unreachable)(f"{request}: {_tls_reason(reason)}")
        case aiohttp.ClientProxyConnectionError():
            return Unreachable(f"{request}: proxyconnect tcp: {_dialled(error)}")
        case aiohttp.ClientConnectorError(os_error=ConnectionResetError() as reason):  # closed while TLS began
            return Interrupted(f"{request}: {'EOF' if reason.errno is None else _reason(reason)}")
        case aiohttp.ClientConnectorError():
            is_refused = url.scheme == "https" and isinstance(cause, ConnectionRefusedError)
            return (NotEncrypted if is_refused else Unreachable)(f"{request}: {_dialled(error)}")
        case aiohttp.ConnectionTimeoutError():
            return Unreachable(f"{request}: the host does not answer")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return Interrupted(f"{request}: EOF")
        case OSError(errno=int()):
            return Interrupted(f"{request}: {_reason(error)}")
        case aiohttp.ClientConnectionError() | ConnectionError():  # closed while the request was being sent
            return Interrupted(f"{request}: EOF")
    return SourceError(f"{request}: malformed answer: {str(error)[:200]}")


def redacted(url: URL) -> str:
    """A URL as errors name it: without the signature that its query may carry, and without a user."""
    plain = url.with_query(None).with_fragment(None)
    return str(plain.with_user(None) if url.host else plain)[:500]


def operation(method: str, url: URL) -> str:
    """A request as errors name it: `Get "https://host/path"`."""
    return f'{method.capitalize()} "{redacted(url)}"'


def printable(text: str) -> str:
    """A server's text without characters that could control a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def _dialled(error: aiohttp.ClientConnectorError) -> str:
    address = f"[{error.host}]:{error.port}" if ":" in error.host else f"{error.host}:{error.port}"
    return f"dial tcp {address}: connect: {_reason(error.os_error)}"


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno is not None else str(error).lower() or "no connection"


def _proxy_reason(error: Exception) -> str:
    """Why there is no connection to a SOCKS proxy: the library tells it in the cause of the cause."""
    match error.__cause__ and error.__cause__.__cause__:
        case socket.gaierror():
            return "no such host"
        case TimeoutError():
            return "no answer"
        case OSError() as cause:
            return _reason(cause)
    return "no answer"


def _tls_reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {error.verify_message}"
    if _is_no_tls(error):
        return "http: server gave HTTP response to HTTPS client"
    return f"no encrypted connection: {error}"


def _is_no_tls(error: Exception) -> bool:
    """Whether the other end answered with something else than TLS."""
    return isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")


def _is_of_another(error: Exception, url: URL) -> bool:
    """Whether a connection to another host than the URL's failed: to a proxy that is to be spoken to encrypted."""
    return isinstance(error, aiohttp.ClientConnectorError) and (error.host, error.port) != (url.raw_host, url.port)
