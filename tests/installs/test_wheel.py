"""What the wheel holds and says."""

import email
import fnmatch

import pytest
from packaging.specifiers import SpecifierSet

from .environments import PYTHONS, content
from .extras import EXTRAS

pytestmark = pytest.mark.long

PACKAGES = ("common", "loaders", "pipeline", "preprocessing", "training")


@pytest.fixture(scope="module")
def members(built) -> dict[str, bytes]:
    return content(built.wheel)


def metadata(members: dict[str, bytes]) -> email.message.Message:
    (name,) = fnmatch.filter(members, "*.dist-info/METADATA")
    return email.message_from_bytes(members[name])


def test_the_wheel_has_every_file_of_the_packages_and_no_other(built, members):
    ours = {name for name in members if ".dist-info/" not in name}
    assert ours == {name for name in built.files if name.split("/")[0] in PACKAGES}
    assert [name for name in ours if members[name] != (built.source / name).read_bytes()] == []


def test_the_source_distribution_builds_the_same_wheel(built, members):
    assert built.wheel_of_sdist.name == built.wheel.name
    again = content(built.wheel_of_sdist)
    assert sorted(again) == sorted(members)
    assert [name for name in members if members[name] != again[name]] == []


def test_it_says_which_pythons_and_extras_these_tests_must_know(members):
    said = metadata(members)
    supported = SpecifierSet(said["Requires-Python"])
    minors = [f"3.{minor}" for minor in range(30)]
    assert [version for version in minors if f"{version}.5" in supported] == list(PYTHONS)
    assert sorted(said.get_all("Provides-Extra")) == sorted(EXTRAS)


def test_the_licence_and_the_readme_go_with_it(built, members):
    assert [name for name in members if name.endswith("/LICENSE")]
    said = metadata(members)
    assert said.get_payload(decode=True) == (built.source / "README.md").read_bytes()
    assert said["Description-Content-Type"] == "text/markdown"
