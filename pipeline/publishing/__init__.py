"""Versions of a model in a directory or a bucket, for those who serve it.

    PLACE/LATEST.json           the newest whole version
    PLACE/aliases/NAME.json     versions by other names, which can be moved
    PLACE/versions/N/           an export as it was, never changed again
    PLACE/versions/N/manifest.json   its files with their checksums; written last

A reader asks `resolve` for a version, and gets the path of a whole one or an error.
"""

from pipeline.publishing.pointers import resolve

__all__ = ["resolve"]
