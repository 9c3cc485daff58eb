"""The main module of a local Beam worker process: Beam's own, on a leash and without its chatter.

What goes wrong in a shard reaches the build as an error; on standard error it would be said twice,
with pages of traceback. The leash is a file, whose path is the only argument: when it is gone, so
is the build, and the worker ends too.
"""

import contextlib
import os
import sys
import threading
import time

from preprocessing.runners.quiet_import import import_beam


def main() -> None:
    threading.Thread(target=_end_with, args=(sys.argv[1],), daemon=True).start()
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        import_beam()
        from apache_beam.runners.worker import sdk_worker_main

        sdk_worker_main.main(sys.argv[:1])


def _end_with(leash: str) -> None:
    while os.path.exists(leash):
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
