"""None of the versions in constraints.txt has a vulnerability that an advisory tells of."""

import json
import pathlib
import subprocess

import pytest

from .environments import CONSTRAINTS, uv

pytestmark = pytest.mark.long

# A release with advisories (CVE-2024-22195 among them). Where a service does not know them, it has
# nothing to say about the rest either.
KNOWN_BAD = "jinja2==3.1.2"
SERVICES = ("pypi", "osv")


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    """Asks one service about a file of pinned requirements; None where it cannot be asked."""
    work = tmp_path_factory.mktemp("audit")
    python = work / "environment" / "bin" / "python"
    uv("venv", "--quiet", work / "environment")
    uv("pip", "install", "--quiet", "--python", python, "pip-audit")

    def ask(service: str, requirements: pathlib.Path) -> dict[str, list[str]] | None:
        words = [python.with_name("pip-audit"), "--disable-pip", "--no-deps", "--format=json"]
        words += ["--progress-spinner=off", f"--vulnerability-service={service}"]
        words += ["--requirement", requirements]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
        if not done.stdout.startswith("{"):
            return None
        found = [one for one in json.loads(done.stdout)["dependencies"] if "vulns" in one]
        return {
            f"{one['name']}=={one['version']}": [known["id"] for known in one["vulns"]]
            for one in found
        }

    return ask


@pytest.fixture(scope="module")
def service(audit, tmp_path_factory) -> str:
    control = tmp_path_factory.mktemp("control") / "requirements.txt"
    control.write_text(f"{KNOWN_BAD}\n")
    for name in SERVICES:
        if (audit(name, control) or {}).get(KNOWN_BAD):
            return name
    pytest.skip("neither PyPI's advisories nor OSV's can be asked from here")


def test_no_version_has_a_known_vulnerability(audit, service):
    found = audit(service, CONSTRAINTS)
    assert len(found) > 100
    assert {name: known for name, known in found.items() if known} == {}
