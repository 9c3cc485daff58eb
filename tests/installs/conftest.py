import pytest

from .environments import PYTHONS, Built, Environment, build, interpreter


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Built:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session", params=PYTHONS)
def environment(request, built, tmp_path_factory):
    """The wheel without extras, in a fresh environment of each Python."""
    python = interpreter(request.param)
    if python is None:
        pytest.skip(f"no Python {request.param} here")
    directory = tmp_path_factory.mktemp(f"python-{request.param}") / "environment"
    environment = Environment(directory, python, built.wheel)
    yield environment
    environment.remove()
