"""What fsspec, the libraries behind it and the network raise, told in one line.

Only the kind of an error and the store's code are told, never its text: it may hold a signature or a password.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import exists_already


class NotThere(InputError):
    """There is no such file at a URL, or no such bucket."""


class Place(NamedTuple):
    """What errors tell of a file at a URL.

    Attributes:
        shown: The URL as it may be shown.
        credentials: What the user may have to set right where access is refused.
        address: What the user may have to check where nothing answers.
    """

    shown: str
    credentials: str
    address: str

    def broke(self) -> MTAnimateError:
        return MTAnimateError(f"{self.shown}: the connection broke before the end: try again")


@contextmanager
def telling(place: Place, writing: bool = False) -> Iterator[None]:
    """Raise what a store or the network raises in the block as InputError or MTAnimateError, and all else as it is."""
    try:
        yield
    except Exception as error:
        if not is_of_store(error):
            raise
        raise _told(error, place, writing) from None  # its text is not even in a traceback


_LIBRARIES = ("aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "requests", "s3fs", "urllib3")


def is_of_store(error: Exception) -> bool:
    """Whether a store or the network failed, rather than a program."""
    library = type(error).__module__.partition(".")[0] in _LIBRARIES
    refused = isinstance(error, ValueError) and str(error).startswith("Bad Request")  # so gcsfs tells 400
    return library or refused or isinstance(error, (OSError, asyncio.TimeoutError))


# Classes by their names, since not every library is installed.
_KEYLESS = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
    *("TokenRetrievalError", "SSOError", "GoogleAuthError"),
}
_UNREACHED = {"EndpointConnectionError", "ClientConnectorError", "ProxyConnectionError", "ConnectionRefusedError"}
_BROKEN = {
    *("ClientPayloadError", "ServerDisconnectedError", "ClientOSError", "ConnectionError", "IncompleteReadError"),
    *("ConnectionClosedError", "ResponseStreamingError", "HTTPClientError"),
}
_ABSENT = {"404", "410", "NoSuchKey", "NoSuchBucket"}


def _told(error: Exception, place: Place, writing: bool) -> MTAnimateError:
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    codes = [code for cause in reversed(causes) if (code := _code(cause))]
    code = f" ({codes[0]})" if codes else ""
    if names & _KEYLESS:
        return InputError(f"{place.shown}: no credentials were found that work: set {place.credentials}")
    if "PermissionError" in names or {"401", "403"} & {*codes} or str(error).startswith("Forbidden"):  # so gcsfs
        return InputError(f"{place.shown}: access is refused{code}: check {place.credentials}")
    if any(name.endswith(("SSLError", "CertificateError")) for name in names):
        return MTAnimateError(f"{place.shown}: the server's certificate is not trusted: check {place.address}")
    if names & _UNREACHED:
        return MTAnimateError(f"{place.shown}: no connection: check {place.address}")
    if any(name.endswith("TimeoutError") for name in names):
        return MTAnimateError(f"{place.shown}: no answer in time: check {place.address}")
    if "FileExistsError" in names or (writing and "PreconditionFailed" in codes):
        return exists_already(place.shown)
    if "FileExpired" in names:
        return MTAnimateError(f"{place.shown} was changed while it was read: try again")
    if "FileNotFoundError" in names and (not codes or _ABSENT & {*codes}):
        thing = "bucket" if writing or "NoSuchBucket" in codes else "file"
        return NotThere(f"{place.shown}: there is no such {thing}: check the name")
    if names & _BROKEN:
        return place.broke()
    wrong = InputError if any(re.fullmatch("4[0-9]{2}", code) for code in codes) else MTAnimateError
    what = f"the server answers {codes[0]}" if codes else f"it failed ({type(error).__name__})"
    return wrong(f"{place.shown}: {what}: try again later, or check {place.address}")


def _code(error: BaseException) -> str:
    """A web server's status, or a store's code; "" where there is none."""
    response = getattr(error, "response", None)
    told = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    code = str(told or getattr(error, "status", None) or getattr(error, "code", None) or "")
    return code if re.fullmatch("[A-Za-z0-9]{1,64}", code) else ""
