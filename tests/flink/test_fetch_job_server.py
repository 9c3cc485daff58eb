"""The script that fetches the job server, as far as it goes without a network."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "infra/flink/fetch_job_server.py"
LIBRARIES = [f"a-library-of-a-rather-long-name-{number}.jar" for number in range(9)]

# Stand in for a Maven whose repository has the artifacts that the test says it has.
MAVEN = """#!{python}
import pathlib, sys
directory = next(w for w in sys.argv if w.startswith("-DoutputDirectory=")).split("=")[1]
names = {one_file} if "dependency:copy" in sys.argv else {libraries}
if not names:
    sys.exit("[INFO] looking\\n[ERROR] no such artifact\\n[ERROR] see the manual")
pathlib.Path(directory).mkdir()
for name in names:
    (pathlib.Path(directory) / name).write_text(name)
"""


@pytest.fixture
def fetch(tmp_path):
    """Runs the script with programs of these names on the path."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def call(*words: object, java=True, one_file=(), libraries=(), maven=True):
        for path in programs.iterdir():
            path.unlink()
        if java:
            (programs / "java").symlink_to("/bin/true")
        if maven:
            text = MAVEN.format(python=sys.executable, one_file=one_file, libraries=libraries)
            (programs / "mvn").write_text(text)
            (programs / "mvn").chmod(0o755)
        return subprocess.run(
            [sys.executable, SCRIPT, *words],
            env={**os.environ, "PATH": str(programs)},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def test_the_one_file_job_server_is_taken_where_there_is_one(fetch, tmp_path):
    done = fetch(tmp_path / "out", one_file=["job-server-2.jar"], libraries=LIBRARIES)
    jar = tmp_path / "out/flink-job-server.jar"
    assert (done.returncode, done.stdout) == (0, f"{jar}\n")
    assert jar.read_text() == "job-server-2.jar"
    assert [path.name for path in jar.parent.iterdir()] == [jar.name]
    # It is there, so that nothing is needed any more.
    assert fetch(tmp_path / "out", java=False, maven=False).stdout == done.stdout


def test_else_a_jar_points_to_the_libraries(fetch, tmp_path):
    done = fetch(tmp_path / "out", libraries=LIBRARIES)
    jar = tmp_path / "out/flink-job-server.jar"
    assert (done.returncode, done.stdout) == (0, f"{jar}\n")
    with zipfile.ZipFile(jar) as file:
        manifest = file.read("META-INF/MANIFEST.MF")
    assert all(len(line) <= 72 for line in manifest.split(b"\r\n"))
    values = dict(
        line.split(": ") for line in manifest.decode().replace("\r\n ", "").split("\r\n") if line
    )
    assert values["Main-Class"] == "org.apache.beam.runners.flink.FlinkJobServerDriver"
    assert values["Class-Path"].split(" ") == [f"lib/{name}" for name in LIBRARIES]
    for name in LIBRARIES:
        assert (jar.parent / "lib" / name).read_text() == name


@pytest.mark.parametrize("missing", ["java", "mvn"])
def test_without_java_or_maven_it_says_so(fetch, tmp_path, missing):
    done = fetch(tmp_path / "out", java=missing != "java", maven=missing != "mvn")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and f"no {missing!r} on the path" in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_maven_cannot_fetch_leaves_nothing(fetch, tmp_path):
    done = fetch(tmp_path / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].endswith(
        "error: Maven cannot fetch the job server for Flink: no such artifact"
    )
    assert list((tmp_path / "out").iterdir()) == []
