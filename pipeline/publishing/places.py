"""Opens a place of versions, whatever kind it is of."""

from __future__ import annotations

from common import files
from pipeline.publishing.bucket_store import BucketStore
from pipeline.publishing.local_store import LocalStore
from pipeline.publishing.store import Store


def open_store(path: str) -> Store:
    """The place at a local path or `gs://BUCKET/NAME`; nothing is touched yet."""
    return BucketStore(path.rstrip("/")) if files.is_remote(path) else LocalStore(path)
