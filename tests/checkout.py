"""A copy of this checkout, as a commit of all that is here would give it to others."""

import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).parents[1]


def source_files() -> list[str]:
    """Files that are tracked or new; not what builds, runs and environments leave behind."""
    words = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def copy_checkout(to: pathlib.Path) -> None:
    for name in source_files():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name)
