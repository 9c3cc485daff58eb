"""Imports Beam: quietly, and for work on this machine without the parts that it does not need.

Beam imports every database and cloud that it can talk to, which is half of the two to four seconds
that it takes (more with its Google Cloud parts installed). It goes without those that are not
there, so for the moment of the import they are not. Files of buckets are read and written by
`common.files`, not by Beam.
"""

from __future__ import annotations

import importlib
import logging
import sys
import types

_DISPENSABLE = ("apache_beam.io.gcp", "google.cloud.dataflow", "bson", "pymongo")


def import_beam(whole: bool = False) -> types.ModuleType:
    """Returns the module `apache_beam`, in whatever form it has been imported before.

    Args:
        whole: import all that is installed, as runners on other machines need it.
    """
    hidden = () if whole else tuple(name for name in _DISPENSABLE if name not in sys.modules)
    if "apache_beam" in sys.modules:
        hidden = ()
    # Beam warns, too, of parts that are not there.
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    sys.modules.update(dict.fromkeys(hidden))
    try:
        return importlib.import_module("apache_beam")
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
        logging.disable(level)
