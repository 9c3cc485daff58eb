"""The connection to Cloud Storage: one client a process, one way to retry, one way to fail.

The library takes half a second to import, so that nothing here imports it before the first
`gs://` path is used.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from common.errors import Unreachable, UserError, first_line

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud import storage

T = TypeVar("T")

# How long a request is tried again before the run gives up, in seconds.
RETRY_SECONDS_VARIABLE = "MOBILENET_BUCKET_RETRY_SECONDS"
DEFAULT_RETRY_SECONDS = 120.0

# Connections that are kept open: more than any part of the project reads with at once.
MAX_CONNECTIONS = 64

LOGIN = "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"

_making_a_client = threading.Lock()


class DamagedError(Exception):
    """An answer that came with all signs of success and is not what was asked for."""


def client() -> storage.Client:
    """The process's client for the endpoint in force; safe to call from many threads."""
    with _making_a_client:
        return _client(os.environ.get("STORAGE_EMULATOR_HOST", ""), os.getpid())


@functools.cache
def _client(endpoint: str, process: int) -> storage.Client:
    """A client of its own for each endpoint, and for a process that was forked."""
    # Where there is no metadata server, asking for it once costs 3 s, three times 10 s. Where there
    # is one and it does not answer in time, google.auth looks at the machine's name.
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")
    # The library would look up each bucket in a thread of its own, for traces that nobody takes.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    from google.cloud import storage
    from requests.adapters import HTTPAdapter

    made = storage.Client(project=None, credentials=_credentials(endpoint, storage.Client.SCOPE))
    made._http.mount("http://", HTTPAdapter(pool_maxsize=MAX_CONNECTIONS))
    made._http.mount("https://", HTTPAdapter(pool_maxsize=MAX_CONNECTIONS))
    return made


def _credentials(endpoint: str, scopes: tuple[str, ...]) -> Any:
    """The user's or the machine's credentials; anonymous ones, good for public data, if none."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import DefaultCredentialsError

    if endpoint:
        return AnonymousCredentials()
    logging.getLogger("google.auth").setLevel(logging.ERROR)  # to find none is no mistake
    try:
        return google.auth.default(scopes=scopes)[0]
    except DefaultCredentialsError as error:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise UserError(
                f"GOOGLE_APPLICATION_CREDENTIALS={os.environ['GOOGLE_APPLICATION_CREDENTIALS']} "
                f"is of no use: {first_line(error)}"
            ) from None
        return AnonymousCredentials()


def retry() -> Retry:
    """How every request is tried again: growing waits until the deadline.

    Used without a generation precondition as well, since all writes here are of the whole object:
    one that is made twice is the same as one made once.
    """
    from google.cloud.storage.retry import DEFAULT_RETRY

    waits = DEFAULT_RETRY.with_delay(initial=0.2, maximum=30.0, multiplier=2.0)
    return waits.with_timeout(_retry_seconds())


def until_whole(action: Callable[[], T]) -> T:
    """Does `action` again, by the same waits, while what it got is damaged."""
    from google.api_core.retry import Retry, if_exception_type
    from google.cloud.storage.exceptions import DataCorruption

    again = Retry(
        predicate=if_exception_type(DamagedError, DataCorruption),
        initial=0.2,
        maximum=30.0,
        multiplier=2.0,
        timeout=_retry_seconds(),
    )
    return again(action)()


@contextlib.contextmanager
def errors_of(path: str) -> Iterator[None]:
    """Says what went wrong with `path` as a local file would, or as what the user can mend."""
    from google.api_core.exceptions import (
        BadRequest,
        Forbidden,
        GoogleAPIError,
        NotFound,
        Unauthorized,
    )
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except NotFound:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    except Forbidden as error:
        raise PermissionError(errno.EACCES, f"refused: {first_line(error)}", path) from None
    except (Unauthorized, GoogleAuthError) as error:
        raise UserError(f"{path} needs credentials: {LOGIN} ({first_line(error)})") from None
    except BadRequest as error:  # to ask again would be no better
        raise UserError(f"{path} is not accepted: {first_line(error)}") from None
    except (
        GoogleAPIError,
        InvalidResponse,
        DataCorruption,
        DamagedError,
        RequestException,
        HTTPError,
        ConnectionError,
    ) as error:
        raise Unreachable(f"{path} cannot be reached: {first_line(error)}") from None


def _retry_seconds() -> float:
    given = os.environ.get(RETRY_SECONDS_VARIABLE)
    try:
        return float(given) if given else DEFAULT_RETRY_SECONDS
    except ValueError:
        raise UserError(f"{RETRY_SECONDS_VARIABLE}={given} is not a number of seconds") from None
