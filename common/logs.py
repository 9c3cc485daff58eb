"""What a command says on its way: lines for people, or the JSON that Cloud Logging reads.

Each line of JSON is one entry: `severity`, `message` and `timestamp`, which the logging agents of
Vertex AI, Dataflow and GKE take as they are, and `task`: which of a job's processes speaks.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
import traceback

TEXT, JSON = "text", "json"
FORMATS = (TEXT, JSON)
VARIABLE = "LOG_FORMAT"


def start(log_format: str) -> None:
    """Has all of Python's logging go to standard output, in the given form."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        _JsonFormatter() if log_format == JSON else logging.Formatter("%(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for library in ("absl", "tensorflow"):  # their notes on their inner life
        logging.getLogger(library).setLevel(logging.WARNING)


def is_json() -> bool:
    """Whether this process speaks JSON."""
    return any(isinstance(h.formatter, _JsonFormatter) for h in logging.getLogger().handlers)


def entry(severity: str, message: str, **fields: object) -> str:
    """One log entry as a line of JSON, with the time and the task of this process."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    told = {"severity": severity, "message": message, "timestamp": now.replace("+00:00", "Z")}
    if task := task_of(os.environ):
        told["task"] = task
    return json.dumps(told | fields, ensure_ascii=False, default=str)


def message_in(line: str) -> str:
    """The message of a line that is an entry; empty for any other line."""
    if not line.startswith("{"):
        return ""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, LookupError, TypeError):
        return ""


def task_of(environment: dict[str, str]) -> str:
    """Which task of a cluster TF_CONFIG or CLUSTER_SPEC makes of a process; empty for none."""
    for variable in ("TF_CONFIG", "CLUSTER_SPEC"):
        try:
            task = json.loads(environment.get(variable) or "{}")["task"]
            return f"{task['type']}-{task['index']}"
        except (ValueError, LookupError, TypeError):
            continue  # the command itself says what is wrong with it
    return ""


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message = "\n".join([message, "".join(traceback.format_exception(*record.exc_info))])
        return entry(record.levelname, message.rstrip(), logger=record.name)
