"""Fetches Beam's job server for Flink with Maven: `python infra/flink/fetch_job_server.py [DIR]`.

Prints the path of `flink-job-server.jar` in DIR, `.cache/flink` of this repository by default; a
second call finds it there and needs no network. It takes the one-file job server of the installed
Beam. Where Maven's repository has none, as happens, it takes the Flink runner of Beam 2.62 with its
160 libraries, and makes a jar that only points to them: job servers speak with any later Beam.

Needs nothing but Python, Java 11 or 17, and Maven.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
DEFAULT_DIRECTORY = HERE.parents[1] / ".cache" / "flink"
JAR = "flink-job-server.jar"
LIBRARIES = "lib"
ONE_FILE = "org.apache.beam:beam-runners-flink-1.19-job-server"
MAIN_CLASS = "org.apache.beam.runners.flink.FlinkJobServerDriver"

# A line of a manifest has 72 bytes at most; one that begins with a space goes on with the last.
LINE_BYTES = 72


class CannotFetch(Exception):
    """There is no job server to be had; the exit code says whose fault it is."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def fetch(directory: pathlib.Path) -> pathlib.Path:
    """Makes sure that there is a whole job server in `directory`; returns its path."""
    jar = directory / JAR
    if jar.is_file():
        return jar
    for program in ("java", "mvn"):
        if not shutil.which(program):
            raise CannotFetch(
                f"no {program!r} on the path: the job server for Flink needs Java 11 or 17 and"
                " Maven",
                2,
            )
    directory.mkdir(parents=True, exist_ok=True)
    if directory == DEFAULT_DIRECTORY:
        (directory.parent / ".gitignore").write_text("*\n")
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=directory) as temporary:
        found = fetch_one_file(pathlib.Path(temporary)) or fetch_libraries(pathlib.Path(temporary))
        libraries = pathlib.Path(temporary) / LIBRARIES
        if libraries.is_dir():
            shutil.rmtree(directory / LIBRARIES, ignore_errors=True)
            os.replace(libraries, directory / LIBRARIES)
        os.replace(found, jar)
    return jar


def fetch_one_file(temporary: pathlib.Path) -> pathlib.Path | None:
    """The job server of the installed Beam; None if Maven's repository has none."""
    try:
        version = importlib.metadata.version("apache-beam")
    except importlib.metadata.PackageNotFoundError:
        return None
    print(f"fetching {ONE_FILE}:{version}", file=sys.stderr)
    target = temporary / "one-file"
    done = maven("dependency:copy", f"-Dartifact={ONE_FILE}:{version}", output_directory=target)
    jars = list(target.glob("*.jar"))
    return jars[0] if done.returncode == 0 and len(jars) == 1 else None


def fetch_libraries(temporary: pathlib.Path) -> pathlib.Path:
    """The libraries of `pom.xml` in `lib`, and a jar that points to them."""
    print("there is none; fetching the libraries of infra/flink/pom.xml", file=sys.stderr)
    target = temporary / LIBRARIES
    words = ("-f", str(HERE / "pom.xml"), "dependency:copy-dependencies")
    done = maven(*words, output_directory=target)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]")]
        told = (errors or ["it says nothing"])[0].removeprefix("[ERROR]").strip()
        raise CannotFetch(f"Maven cannot fetch the job server for Flink: {told}", 1)
    jar = temporary / JAR
    paths = sorted(f"{LIBRARIES}/{path.name}" for path in target.glob("*.jar"))
    with zipfile.ZipFile(jar, "w") as file:
        file.writestr("META-INF/MANIFEST.MF", pointing_manifest(paths))
    return jar


def pointing_manifest(paths: list[str]) -> str:
    """The manifest of a jar that holds nothing and takes its classes from `paths` beside it."""
    lines = ["Manifest-Version: 1.0", f"Main-Class: {MAIN_CLASS}", f"Class-Path: {' '.join(paths)}"]
    text = ""
    for line in lines:
        first, rest = line[:LINE_BYTES], line[LINE_BYTES:]
        text += f"{first}\r\n"
        while rest:
            first, rest = rest[: LINE_BYTES - 1], rest[LINE_BYTES - 1 :]
            text += f" {first}\r\n"
    return text


def maven(*words: str, output_directory: pathlib.Path) -> subprocess.CompletedProcess:
    command = ["mvn", "-q", "-B", *words, f"-DoutputDirectory={output_directory}"]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def main(words: list[str]) -> int:
    if len(words) > 1 or any(word.startswith("-") for word in words):
        print((__doc__ or "").strip())
        return 0 if words in (["--help"], ["-h"]) else 2
    try:
        print(fetch(pathlib.Path(words[0]).resolve() if words else DEFAULT_DIRECTORY))
    except CannotFetch as error:
        print(f"fetch_job_server.py: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
