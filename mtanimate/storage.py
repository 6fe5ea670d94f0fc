"""Files at URLs: in buckets of S3's and Google's kind, and at web servers, through fsspec.

A file is fetched in pieces into a folder of the caller's, and uploaded whole or not at all. Credentials are those of
the environment; neither they nor the signatures of URLs are in any message.
"""

import hashlib
import logging
import re
import socket
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import exists_already, replacing
from mtanimate.reading import check_readable
from mtanimate.storage_errors import NotThere, Place, is_of_store, telling

PIECE = 8 << 20  # bytes that are asked for or sent at once; S3 takes 10,000 of them for a file
CONNECT = 10.0  # seconds that a store may take to be reached
SILENCE = 60.0  # seconds that it may say nothing


class _Store(NamedTuple):
    """package: what fsspec reads it with; credentials and address: see `Place`."""

    package: str
    credentials: str
    address: str


_S3 = _Store("s3fs", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws", "the network and AWS_ENDPOINT_URL")
_GOOGLE = _Store("gcsfs", "GOOGLE_APPLICATION_CREDENTIALS", "the network")
_WEB = _Store("aiohttp", "the URL's signature or password", "the network and the URL")
_STORES = {"s3": _S3, "gs": _GOOGLE, "gcs": _GOOGLE, "http": _WEB, "https": _WEB}
# A single letter is a drive of Windows; `::` puts fsspec's file systems on top of each other.
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+)(?P<chain>::.*)?://(?P<host>[^/?#]*)(?P<rest>.*)", re.I | re.S)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def is_url(text: str) -> bool:
    """Whether a text is a URL, also one that cannot be read, rather than a path."""
    return _URL.match(text) is not None


def shown(url: str) -> str:
    """The URL for messages and reports: without user, password and query, in one line; of other kinds of URL than
    those that can be read, only the kind."""
    match, store = _parsed(url)
    if match is None or store is None:
        return f"{match['scheme']}://..." if match else _CONTROL.sub("?", url)
    ends = "[?#]" if store is _WEB else "[?]"  # "#" is a part of names in buckets
    host, rest = match["host"].rpartition("@")[2], re.split(ends, match["rest"], maxsplit=1)[0]
    return _CONTROL.sub("?", f"{match['scheme']}://{host}{rest}")


def check_url(url: str, writing: bool = False) -> None:
    """Raises InputError unless this is a URL of one file that can be read here, or written. Asks no server."""
    match, store = _parsed(url)
    if match is None or store is None:
        kinds = ", ".join(f"{scheme}://" for scheme in _STORES)
        raise InputError(f"{shown(url)} cannot be read: give a path, or a URL that begins with one of {kinds}")
    if writing and store is _WEB:
        raise InputError(f"{shown(url)} cannot be written: give a path, or a URL that begins with s3:// or gs://")
    if missing := _missing(store):
        raise InputError(f"{shown(url)}: reading it needs {missing}: pip install 'mtanimate[cluster]'")
    if _CONTROL.search(url) or not (_has_host(url) if store is _WEB else match["host"]):
        raise InputError(f"{shown(url)} is not a whole URL: check its spelling")
    if store is not _WEB and ("@" in match["host"] or "?" in match["rest"]):
        raise InputError(f"{shown(url)}: no '?' and no user or password can be in it: set {store.credentials}")
    if store is not _WEB and (not match["rest"].strip("/") or match["rest"].endswith("/")):
        raise _is_folder(url)


def exists(url: str) -> bool:
    """Whether a file is at the URL. Raises as `fetch`."""
    files, path, place = _opened(url)
    try:
        with telling(place):
            return files.info(path)["type"] == "file"
    except NotThere:
        return False


def fetch(url: str, folder: Path, largest: int, alive: Callable[[], None] = lambda: None) -> Path:
    """Download a file, in pieces.

    Args:
        url: Of the file.
        folder: Where it is put. It exists. The name is made of the URL's and ends as that does.
        largest: The most bytes that it may have.
        alive: Called for each piece, which may be many times a second. What it raises stops the download.

    Returns:
        The file. Where it cannot be downloaded whole, nothing of it is left in the folder.

    Raises:
        NotThere: There is no such file, or no such bucket.
        InputError: The URL cannot be read, is of a folder, of more than `largest` bytes, or needs other credentials.
        MTAnimateError: The store does not answer, the connection breaks, or the file cannot be written.
    """
    files, path, place = _opened(url)
    with telling(place):
        info = files.info(path)
    if info["type"] != "file":
        raise _is_folder(url)
    size = info["size"] or 0  # 0: the server does not say
    _check_size(place, size, largest)
    local = folder / local_name(url)
    try:
        with replacing(local) as partial, partial.open("wb") as file:
            for piece in _pieces(files, path, size, place):
                alive()
                file.write(piece)
                _check_size(place, file.tell(), largest)
    except OSError as error:
        if error.strerror is None:  # it is of `alive`: the system gives a reason
            raise
        raise MTAnimateError(
            f"{place.shown} cannot be kept in {folder} ({error.strerror}): make room, or choose another folder"
        ) from error
    return local


def upload(path: Path, url: str, overwrite: bool, alive: Callable[[], None] = lambda: None) -> None:
    """Upload a file, whole or not at all.

    Args:
        path: The file.
        url: Its place in a bucket.
        overwrite: Whether a file there may be replaced. Otherwise one that appears meanwhile stays, too, where the
            store knows conditional writes, as Amazon's and Google's do.
        alive: Called for each piece. What it raises stops the upload.

    Raises:
        NotThere: There is no such bucket.
        InputError: The URL cannot be written, a file is there already, `path` cannot be read, or other credentials are
            needed.
        MTAnimateError: The store does not answer, or the connection breaks.
    """
    check_url(url, writing=True)
    check_readable(path, "result")
    files, target, place = _opened(url)
    if not overwrite and exists(url):
        raise exists_already(place.shown)
    with path.open("rb") as file:
        with telling(place, writing=True):
            sent = files.open(target, "wb" if overwrite else "xb", block_size=PIECE)
        try:
            while piece := file.read(PIECE):
                alive()
                with telling(place, writing=True):
                    sent.write(piece)
            with telling(place, writing=True):
                sent.close()
        except BaseException:
            _abandon(sent)
            raise


def _parsed(url: str) -> tuple[re.Match[str] | None, _Store | None]:
    match = _URL.match(url)
    return match, _STORES.get(match["scheme"].lower()) if match and not match["chain"] else None


@cache
def _missing(store: _Store) -> str:
    """What has to be installed; "" where all is there."""
    return " and ".join(name for name in ("fsspec", store.package) if find_spec(name) is None)


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half of an IPv6 address
        return False


def _is_folder(url: str) -> InputError:
    return InputError(f"{shown(url)} is a folder: give the URL of one file")


def _check_size(place: Place, size: int, largest: int) -> None:
    if size > largest:
        raise InputError(f"{place.shown} has more than {largest} bytes, the limit: make it smaller, or give a path")


def local_name(url: str) -> str:
    """A name that no other URL has, and that ends as the URL's does."""
    match, store = _parsed(url)
    assert match is not None
    name = PurePosixPath(unquote(urlsplit(url).path) if store is _WEB else match["rest"])
    stem, suffix = (re.sub(r"[^\w-]", "_", part) for part in (name.stem[:40], name.suffix[1:9]))
    digest = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{stem}-{digest}.{suffix}" if suffix else f"{stem}-{digest}"


def _opened(url: str) -> tuple[Any, str, Place]:
    """The file system, the file's name in it, and what errors tell. fsspec keeps one file system for a process."""
    check_url(url)
    import aiohttp
    import fsspec

    scheme, _, rest = url.partition("://")
    store = _STORES[scheme.lower()]
    place = Place(shown(url), store.credentials, store.address)
    waits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)  # a large file takes long
    web = {"timeout": waits, "trust_env": True}  # trust_env: proxies, and the passwords of ~/.netrc
    if store is _S3:
        tries = {"total_max_attempts": 3, "mode": "standard"}
        config = {"connect_timeout": CONNECT, "read_timeout": SILENCE, "retries": tries}
        sockets = {"connector_args": {"socket_factory": _socket}}
        files = fsspec.filesystem("s3", use_listings_cache=False, config_kwargs=config | sockets)
        files.retries = 2  # of all that; 5 otherwise
        return files, rest, place
    if store is _GOOGLE:
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs tracebacks of what it raises
        return fsspec.filesystem("gs", use_listings_cache=False, session_kwargs=web), rest, place
    # The URL goes out as it is: its signature may not fit another spelling.
    files = fsspec.filesystem("http", encoded=True, headers={"Accept-Encoding": "identity"}, client_kwargs=web)
    return files, quote(f"{scheme.lower()}://{rest}", safe="%/:=&?~#+!$,;'@()*[]"), place


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """One that breaks where a store takes nothing more, which no time limit of the libraries ends. On Linux."""
    made = socket.socket(*address[:3])
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENCE * 1000))
    return made


def _pieces(files: Any, path: str, size: int, place: Place) -> Iterator[bytes]:
    """The content of a file, as it comes. size: its bytes, 0 where they are not known."""
    done = 0
    options = {"block_size": PIECE}
    if "http" in files.protocol:  # as one stream, since not every server knows ranges; nor is the size asked for again
        options = {"block_size": 0, "size": size or 1}
    with telling(place):
        file = files.open(path, "rb", cache_type="none", **options)
    with file:
        while True:
            with telling(place):
                piece = file.read(PIECE)
            if not piece:
                break
            done += len(piece)
            yield piece
    if done < size:
        raise place.broke()


def _abandon(sent: Any) -> None:
    """Leave nothing of a file that is not sent whole."""
    sent.closed = True  # closing it would finish it
    try:
        sent.discard()
    except Exception as error:
        if not is_of_store(error):  # the store is gone, which is told already
            raise
