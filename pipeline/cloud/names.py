"""What names of runs and of Google Cloud's things look like: patterns of flags.

What the docs write in their place, PROJECT, REGION, BUCKET and REPOSITORY, may stand there too:
with them a job can be looked at, though not sent.
"""

from __future__ import annotations

import dataclasses
import re

from common.errors import UsageError

JOB_NAME = 63  # letters at most: of a run's name, and the stage behind it


@dataclasses.dataclass(frozen=True)
class Form:
    """How a flag's value must look.

    Attributes:
        pattern: what all of it must match.
        told: the same in words.
    """

    pattern: str
    told: str


_BUCKET = r"(BUCKET|[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])"
_IMAGE = (
    r"[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._-]+)+(:[A-Za-z0-9_][A-Za-z0-9._-]*)?(@sha256:[0-9a-f]+)?"
)
_PATH = Form(rf"gs://{_BUCKET}(/[^\n\r]*)?", "gs://BUCKET/...")
_URI = Form(_IMAGE, "HOST/PATH:TAG, such as REGION-docker.pkg.dev/PROJECT/REPOSITORY/train-gpu:1")

FORMS = {
    "project": Form(
        r"PROJECT|[a-z][a-z0-9-]{4,28}[a-z0-9]",
        "an id of 6 to 30 of a-z, 0-9 and -, which begins with a letter",
    ),
    "region": Form(
        r"REGION|[a-z]+-[a-z]+[0-9]+",
        "a region such as us-central1, in small letters, without the letter of a zone",
    ),
    "bucket": Form(
        rf"(gs://)?{_BUCKET}/?",
        "the name of a bucket alone, of 3 or more of a-z, 0-9, -, _ and dots",
    ),
    "repository": Form(
        r"REPOSITORY|[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
        "at most 63 of a-z, 0-9 and -, and begin with a letter",
    ),
    "image_tag": Form(
        r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", "at most 128 letters, digits, dots, - and _"
    ),
    "image": _URI,
    "executor_image": _URI,
    "service_account": Form(
        r"[A-Za-z0-9._-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+",
        "an address such as NAME@PROJECT.iam.gserviceaccount.com",
    ),
    "name": Form(r"[a-z][a-z0-9_-]*", "letters a-z, digits, - and _, and begin with a letter"),
    "data_dir": _PATH,
    "run_dir": _PATH,
    "published": _PATH,
    "package_uri": Form(rf"gs://{_BUCKET}/[^\n\r]+", "gs://BUCKET/.../FILE"),
}


def require_form(flag: str, value: str) -> None:
    """Raises UsageError if a flag is given what cannot be its value; an empty one is none."""
    form = FORMS[flag]
    if value and not re.fullmatch(form.pattern, value, re.ASCII):
        raise UsageError(f"--{flag}={_shown(value)} must be {form.told}")


def _shown(value: str) -> str:
    text = repr(value)[1:-1]
    return text if len(text) <= 100 else f"{text[:100]}..."
