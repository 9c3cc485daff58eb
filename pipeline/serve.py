"""A page to try an exported model at: `python -m pipeline.serve --export_dir=export`.

Drop a photo, see the five best classes. The photo stays on this machine: the page is served to it
alone unless --host says otherwise, and what answers is the exported SavedModel.
"""

from __future__ import annotations

import dataclasses
import logging
import signal
from typing import Any

from common import command, files
from common.command import flag
from common.errors import UsageError

_MOST_PORTS = 65536


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """What is served, and where."""

    export_dir: str = flag(
        help="directory that pipeline.export or pipeline.publish wrote, local or in a bucket; or a"
        " SavedModel"
    )
    version: str = flag(
        "latest", help="version or alias, where --export_dir is a place of pipeline.publish"
    )
    class_names: str = flag(
        "", help="file of lines 'class<TAB>human name'; empty for the names that the export has"
    )
    host: str = flag(
        "127.0.0.1",
        help="address to listen at; 0.0.0.0 lets other machines in, for which nothing is encrypted",
    )
    port: int = flag(8501, help="port to listen at; 0 for any that is free")
    max_megabytes: float = flag(20.0, help="size of the largest photo that is taken")
    stop_after_idle: float = flag(0.0, help="end after so many seconds without a request; 0: never")

    def __post_init__(self):
        if not 0 <= self.port < _MOST_PORTS:
            raise UsageError(f"--port={self.port} is no port: give 0 to {_MOST_PORTS - 1}")
        if not self.max_megabytes > 0:
            raise UsageError(f"--max_megabytes must be above 0, not {self.max_megabytes}")
        if not self.stop_after_idle >= 0:
            raise UsageError(f"--stop_after_idle must be at least 0, not {self.stop_after_idle}")


class _Stopped(BaseException):
    """Somebody asked for the end."""


def serve(config: ServeConfig) -> None:
    """Serves a page at which photos are classified by an exported SavedModel."""
    from pipeline.serving.export import find_export
    from pipeline.serving.server import TryServer

    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        found = find_export(config.export_dir, config.version)
        with files.local_copy(found.saved_model) as directory:
            from training import runtime

            runtime.start()
            from pipeline.serving.classifier import Classifier
            from pipeline.serving.page import draw_page

            classifier = Classifier.open(directory, found, config.class_names)
            with TryServer(
                (config.host, config.port),
                classifier,
                draw_page(classifier, config.max_megabytes),
                max_bytes=int(config.max_megabytes * 1e6),
                stop_after_idle=config.stop_after_idle,
            ) as server:
                logging.info("try %s at %s (Ctrl-C ends it)", classifier.title, server.url)
                server.serve_until_idle()
                logging.info("no request for %g s: ended", config.stop_after_idle)
    except _Stopped:
        logging.info("ended")


def _stop(*_: Any) -> None:
    # The second signal must not interrupt what the first has begun to put away.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise _Stopped


if __name__ == "__main__":
    command.run(serve, ServeConfig)
