"""Wheels of this checkout, and fresh environments that they are installed into."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

from tests.checkout import ROOT, copy_checkout

CONSTRAINTS = ROOT / "constraints.txt"

# The whole range of setup.py, whatever this test runs on.
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def uv(*words: str | os.PathLike, cwd: os.PathLike = ROOT) -> str:
    """Runs uv, which `make setup` puts beside this Python; an error shows what it said."""
    return checked([os.path.join(sys.prefix, "bin", "uv"), *words], cwd)


def checked(words: list, cwd: os.PathLike, **variables: str) -> str:
    """What a command prints, which must succeed; nothing of this checkout is on its path."""
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    done = subprocess.run(
        [os.fspath(word) for word in words],
        cwd=cwd,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


OURS = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")


@dataclasses.dataclass(frozen=True)
class Built:
    """The distributions of this checkout.

    Attributes:
        source: the files that they were built from, with what a build leaves beside them.
        files: their names.
        sdist: the source distribution.
        wheel: the wheel.
        wheel_of_sdist: the wheel that the source distribution builds.
    """

    source: pathlib.Path
    files: tuple[str, ...]
    sdist: pathlib.Path
    wheel: pathlib.Path
    wheel_of_sdist: pathlib.Path


def build(work: pathlib.Path) -> Built:
    """Builds each in isolation, as an index would get them."""
    copy_checkout(work / "source")
    uv("build", "--quiet", "--sdist", "--out-dir", work / "sdist", work / "source")
    (sdist,) = (work / "sdist").glob("*.tar.gz")
    # A build leaves its own list of files behind, which the next one would read.
    shutil.rmtree(work / "source")
    copy_checkout(work / "source")
    files = tuple(
        path.relative_to(work / "source").as_posix()
        for path in sorted((work / "source").rglob("*"))
        if path.is_file()
    )
    wheels = []
    for name, source in (("wheel", work / "source"), ("wheel_of_sdist", sdist)):
        uv("build", "--quiet", "--wheel", "--out-dir", work / name, source)
        wheels += (work / name).glob("*.whl")
    return Built(work / "source", files, sdist, *wheels)


def content(wheel: pathlib.Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def interpreter(version: str) -> str | None:
    """A Python of this version, from the path or pyenv; None where there is none."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    own = [str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin"))]
    path = os.pathsep.join([*own, os.environ.get("PATH", "")])
    for found in (shutil.which(f"python{version}", path=path), sys.executable):
        # A shim of pyenv is there for Pythons that are not.
        question = [found, "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
        if found:
            said = subprocess.run(question, capture_output=True, text=True, check=False)
            if said.stdout.strip() == version:
                return found
    return None


class Environment:
    """An environment of its own, with the wheel in it and nothing of the checkout."""

    def __init__(self, directory: pathlib.Path, python: str, wheel: pathlib.Path):
        self.directory = directory
        self._wheel = wheel
        uv("venv", "--quiet", "--python", python, directory)
        self.install()
        self._base = self.packages()

    @property
    def python(self) -> str:
        return str(self.directory / "bin" / "python")

    def run(self, *words: str, cwd: os.PathLike | None = None, **variables: str) -> str:
        return checked([self.python, *words], cwd or self.directory, **variables)

    def install(self, extra: str = "", *options: str) -> None:
        """The wheel with one extra, at the versions of constraints.txt."""
        what = f"mobilenet-pipeline{f'[{extra}]' if extra else ''} @ {self._wheel.as_uri()}"
        self._pip("install", *options, "--constraint", CONSTRAINTS, what)

    def packages(self) -> set[str]:
        """All that is installed, as NAME==VERSION."""
        return set(self._pip("freeze").splitlines())

    def check(self) -> None:
        """Fails where a package's own requirements are not met."""
        self._pip("check")

    def back_to_base(self) -> None:
        """Takes off what was put on after the wheel without extras."""
        assert self._base <= self.packages()
        added = sorted(line.split("==")[0] for line in self.packages() - self._base)
        if added:
            self._pip("uninstall", *added)

    def remove(self) -> None:
        shutil.rmtree(self.directory)

    def _pip(self, command: str, *words: str | os.PathLike) -> str:
        return uv("pip", command, "--quiet", "--python", self.python, *words)
