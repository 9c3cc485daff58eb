"""Fetches a released archive once, and goes on where a killed download stopped.

Beside `NAME.tgz` lies `NAME.tgz.json`: where it came from, and its SHA-256, which is recorded when
it has arrived and checked whenever it is used again. `NAME.tgz.part` is a download under way.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from common.files import make_directory, read_json, sha256_of_file, write_json
from common.progress import Progress
from loaders.zoo import ZooRow

if TYPE_CHECKING:
    import requests

CACHE_VARIABLE = "MOBILENET_PIPELINE_CACHE"

_GZIP_MAGIC = b"\x1f\x8b"
_PARTIAL, _RANGE_REFUSED = 206, 416
_ATTEMPTS = 5  # to get an answer
_RECONNECTS = 2  # fewer: without a network none helps
_MOST_BREAKS = 10  # of a body
_SECONDS_BEFORE_RETRY = 0.5  # for an answer doubled each time
_TIMEOUT = (15, 60)  # seconds to connect, seconds without a byte
_BLOCK = 1 << 18


def default_cache_dir() -> str:
    """`$MOBILENET_PIPELINE_CACHE`, or ~/.cache/mobilenet-pipeline."""
    usual = os.path.join("~", ".cache", "mobilenet-pipeline")
    return os.path.expanduser(os.environ.get(CACHE_VARIABLE) or usual)


def fetch_archive(row: ZooRow, cache_dir: str | None = None) -> str:
    """The path of a released archive, which is downloaded unless it is in the cache.

    An archive that was put there by hand is taken as it is, and recorded.

    Args:
        row: what to fetch.
        cache_dir: where archives are kept; None for `default_cache_dir()`.

    Raises:
        UserError: it cannot be downloaded, or is no longer what was recorded.
    """
    cache_dir = cache_dir or default_cache_dir()
    make_directory(cache_dir)
    path = os.path.join(cache_dir, f"{row.name}.tgz")
    with _lock(path):
        if not os.path.exists(path):
            _download(row.url, path)
        _check(row.url, path)
    return path


def plain_address(url: str) -> str:
    """An address that answers without a browser that is signed in."""
    return url.replace("https://storage.cloud.google.com/", "https://storage.googleapis.com/", 1)


@contextlib.contextmanager
def _lock(path: str) -> Iterator[None]:
    """Lets one process at a time fetch `path`; another waits and finds it there."""
    with open(f"{path}.lock", "w") as file:
        with contextlib.suppress(OSError):  # where there are no locks, both fetch it
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check(url: str, path: str) -> None:
    """Compares an archive with its record; a first one is recorded."""
    digest = sha256_of_file(path)
    recorded = _read_record(path).get("sha256")
    if recorded is None:
        if not _is_gzip(path):
            raise UserError(f"{path} is no .tgz archive: delete it, and run again")
        size = os.path.getsize(path)
        write_json(f"{path}.json", {"url": url, "size": size, "sha256": digest})
    elif recorded != digest:
        raise UserError(
            f"{path} has changed since it was downloaded from {url} (SHA-256 {digest[:12]}... now,"
            f" {recorded[:12]}... then): delete it and {path}.json to download it anew"
        )


def _download(url: str, path: str) -> None:
    """Brings all of `url` under the name `path`, from what an earlier attempt has left."""
    import requests
    import urllib3

    part = f"{path}.part"
    session = _session()
    for breaks in range(_MOST_BREAKS + 1):
        try:
            _transfer(session, url, path)
            break
        except requests.HTTPError as error:
            status = f"HTTP {error.response.status_code} {error.response.reason}"
            raise _unavailable(url, status) from None
        except requests.RequestException as error:
            raise _unavailable(url, _cause(error)) from None
        except (urllib3.exceptions.HTTPError, _WrongRange) as error:
            if breaks == _MOST_BREAKS:
                raise _unavailable(url, f"it broke off {breaks + 1} times") from None
            logging.info("%s broke off (%s): going on", url, _cause(error))
            time.sleep(_SECONDS_BEFORE_RETRY)
    if not _is_gzip(part):
        os.remove(part)
        raise _unavailable(url, "what it sends is no .tgz archive")
    os.replace(part, path)


class _WrongRange(Exception):
    """The server's answer does not go on where the part ends; the part has been dropped."""


def _transfer(session: requests.Session, url: str, path: str) -> None:
    """One request for what is missing of `path`.part; returns when it is whole.

    Raises:
        requests.RequestException: the server cannot be reached, or refuses.
        urllib3.exceptions.HTTPError: the body broke off.
        _WrongRange: as it says.
    """
    part = f"{path}.part"
    record = _read_record(path)
    done = os.path.getsize(part) if os.path.exists(part) and record.get("url") == url else 0
    if done and done == record.get("size"):
        return
    headers = {"Accept-Encoding": "identity"}
    if done and record.get("validator"):
        # With If-Range a server that has another file by now sends all of that.
        headers |= {"Range": f"bytes={done}-", "If-Range": record["validator"]}
    address = plain_address(url)
    with session.get(address, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code != _RANGE_REFUSED:
            response.raise_for_status()
        start = _start_of_body(response)
        if start not in (0, done):
            with contextlib.suppress(FileNotFoundError):
                os.remove(part)
            raise _WrongRange(f"no answer to bytes={done}-")
        length = response.headers.get("Content-Length")
        size = start + int(length) if length else None
        record |= {"url": url, "size": size, "validator": _validator(response)}
        if start:
            logging.info("%s: going on at %.1f MB", os.path.basename(path), start / 1e6)
        with (
            open(part, "ab" if start else "wb") as file,
            Progress(size or 0, "B", f"fetching {os.path.basename(path)}", start) as progress,
        ):
            # Only now that no bytes of an older file are left may the record speak of the new one.
            write_json(f"{path}.json", record)
            for block in response.raw.stream(_BLOCK, decode_content=False):
                file.write(block)
                progress.update(len(block))


def _start_of_body(response: requests.Response) -> int | None:
    """The position in the file of a body's first byte; None where there is no such byte."""
    if response.status_code == _RANGE_REFUSED:
        return None
    if response.status_code != _PARTIAL:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _session() -> requests.Session:
    import requests
    from urllib3.util import Retry

    retries = Retry(
        total=_ATTEMPTS,
        connect=_RECONNECTS,
        backoff_factor=_SECONDS_BEFORE_RETRY,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retries))
    return session


def _validator(response: requests.Response) -> str | None:
    """What tells this state of the file from another, for If-Range."""
    tag = response.headers.get("ETag", "")
    strong = tag if tag.startswith('"') else None
    return strong or response.headers.get("Last-Modified")


def _read_record(path: str) -> dict[str, Any]:
    return read_json(f"{path}.json") if os.path.exists(f"{path}.json") else {}


def _is_gzip(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC


def _cause(error: BaseException) -> str:
    """The innermost reason of an error that libraries have wrapped, on one line."""
    while True:
        inner = getattr(error, "reason", None) or next(
            (part for part in error.args if isinstance(part, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            return str(error).rpartition(": ")[-1] or type(error).__name__
        error = inner


def _unavailable(url: str, reason: str) -> UserError:
    return UserError(
        f"{url} cannot be downloaded ({reason}): download it by hand, unpack it, and name the"
        " checkpoint in it by --checkpoint_path"
    )
