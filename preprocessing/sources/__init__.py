"""Where images come from: class folders, flat folders, tars, TFDS; local or in a bucket.

`list_source` says what there is, `SourceReader` reads it.
"""

from preprocessing.sources.choose import list_source
from preprocessing.sources.listing import WHOLE_FILE, Listing, SourceImage
from preprocessing.sources.reader import SourceReader, Unreadable

__all__ = ["WHOLE_FILE", "Listing", "SourceImage", "SourceReader", "Unreadable", "list_source"]
