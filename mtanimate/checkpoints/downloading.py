"""Downloading published checkpoints: a file gets its name when it is complete and verified."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests

from mtanimate.checkpoints.registry import Entry, by_hand, downloads_folder, fault
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import replacing, sha256
from mtanimate.outputs import claim

TIMEOUT = 30.0  # seconds that a server may take to be reached, or say nothing
WAITS = (1.0, 4.0)  # seconds before an address is tried again
ELSEWHERE = "make room, or set MTANIMATE_CACHE to a folder elsewhere"


def download(
    entry: Entry,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    log: Callable[[str], None] = lambda line: None,
) -> Path:
    """Downloads the published file of an entry to `downloads_folder()`, unless it is there already.

    Args:
        entry: of the registry.
        progress: called with bytes done and in all (None: the server does not say).
        log: gets each step.

    Returns:
        The verified file.

    Raises:
        InputError: there is nothing to download.
        MTAnimateError: no address provides the file, or it cannot be written.
    """
    if entry.file is not None:
        raise InputError(f"'{entry.name}' ships with the package; nothing to download")
    if not entry.urls:
        raise InputError(f"'{entry.name}' has no address to download from: {by_hand(entry)}")
    path = downloads_folder() / entry.published
    try:
        with claim(path):
            if not _already_there(entry, path, log):
                path.parent.mkdir(parents=True, exist_ok=True)
                _check_room(entry, path.parent)
                with replacing(path) as partial:
                    _fetch(entry, partial, progress, log)
        if not entry.sha256:
            log(f"it could not be verified, for no SHA-256 of it is known; it has {sha256(path)}")
    except OSError as error:
        raise MTAnimateError(f"cannot write '{path}': {error.strerror or error}; {ELSEWHERE}") from error
    return path


class _Progress:
    """A progress bar for pooch, which reports whole blocks, also for the last one, and everything at the end."""

    BLOCK = 1 << 20

    def __init__(self, report: Callable[[int, int | None], None]) -> None:
        self.total = 0  # set by pooch; 0: the server does not say
        self._done = 0
        self._report = report

    def update(self, count: int) -> None:
        done = min(self._done + count, self.total) if self.total else self._done + count
        if done != self._done:
            self._done = done
            self._report(done, self.total or None)

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


def _already_there(entry: Entry, path: Path, log: Callable[[str], None]) -> bool:
    if not path.is_file():
        return False
    wrong = fault(entry, path)
    log(f"'{path}' is not the published file ({wrong}): fetched again" if wrong else f"'{path}' is there already")
    return not wrong


def _check_room(entry: Entry, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if entry.size is not None and free < entry.size:
        raise MTAnimateError(
            f"no room for '{entry.published}' in '{folder}': it takes {entry.size / 1e6:.0f} MB, {free / 1e6:.0f} MB "
            f"are free; {ELSEWHERE}"
        )


def _fetch(
    entry: Entry, partial: Path, progress: Callable[[int, int | None], None], log: Callable[[str], None]
) -> None:
    """Tries the addresses in order. Raises MTAnimateError with all failures."""
    failures = []
    for url in entry.urls:
        log(f"fetching {url}")
        wrong = _fetch_from(url, partial, progress, log) or _foreign(entry, partial)
        if not wrong:
            return
        failures.append(f"{url}: {wrong}")
    raise MTAnimateError(f"cannot download '{entry.name}': {'; '.join(failures)}; {by_hand(entry)}")


def _fetch_from(
    url: str, partial: Path, progress: Callable[[int, int | None], None], log: Callable[[str], None]
) -> str:
    """Fetches from one address, repeating after temporary failures. Returns "" or why it failed; raises OSError."""
    for wait in (*WAITS, None):
        bar = _Progress(progress)
        fetch = pooch.HTTPDownloader(
            progressbar=bar, chunk_size=bar.BLOCK, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}
        )
        try:
            fetch(url, str(partial), None)
            if partial.stat().st_size >= bar.total:
                return ""
            reason = "the connection broke before the end"  # older versions of requests do not notice
        except requests.RequestException as error:
            reason = _reason(error, url)
            if not _may_pass(error):
                return reason
        if wait is not None:
            log(f"{reason}; once more in {wait:.0f} s")
            time.sleep(wait)
    return reason


def _reason(error: requests.RequestException, url: str) -> str:
    if error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout) or "timed out" in str(error):  # amid the content it is no Timeout
        return f"the server says nothing for {TIMEOUT:.0f} s"
    if isinstance(error, requests.ConnectionError):
        return f"no connection to {urlsplit(url).hostname}"
    return "the connection broke before the end"


def _may_pass(error: requests.RequestException) -> bool:
    return error.response is None or error.response.status_code >= 500 or error.response.status_code == 429


def _foreign(entry: Entry, partial: Path) -> str:
    """Why this is not the published file; "" where it is, as far as that is known."""
    with partial.open("rb") as file:
        if file.read(64).lstrip().startswith(b"<"):
            return "a web page came instead of the file"
    return fault(entry, partial)
