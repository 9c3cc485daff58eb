"""The Terraform files: what they say, and what Terraform itself makes of them.

Terraform fetches its providers from a registry of its own. Here it is given one that knows only the
schema, which suffices to validate each argument and to run infra/terraform/tests. Those tests need
the program, and packages of infra/requirements.txt: `make lint-infra`.
"""

import os
import pathlib
import re
import shutil
import subprocess

import hcl2
import pytest

from tests.infra.google_schema import Bindings, find_archive
from tests.infra.schema_provider import encode_schemas, serving

ROOT = pathlib.Path(__file__).parents[2]
TERRAFORM = ROOT / "infra" / "terraform"
FILES = sorted(TERRAFORM.glob("*.tf"))
ENVIRONMENT = ROOT / ".venv-infra"

# Primitive roles, and those that give more than any job needs.
TOO_MUCH = re.compile(r"^roles/(owner|editor|viewer|.*[aA]dmin|iam\.serviceAccountTokenCreator)$")


def text(value: str) -> str:
    """A string as it is: the parser keeps its quotes."""
    return value.strip('"')


def read(kind: str) -> dict[str, dict]:
    """All blocks of a kind by name, like variable or output."""
    blocks = {}
    for path in FILES:
        for block in hcl2.loads(path.read_text()).get(kind, []):
            (name, body), *_ = block.items()
            blocks[text(name)] = body
    return blocks


VARIABLES, OUTPUTS = read("variable"), read("output")


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_is_typed_described_and_validated(name):
    variable = VARIABLES[name]
    assert variable["type"]
    assert "any" not in str(variable["type"])
    assert text(variable["description"]).endswith(".")
    assert variable["validation"]
    for rule in variable["validation"]:
        assert name in text(rule["error_message"])


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_output_is_described(name):
    assert len(text(OUTPUTS[name]["description"])) > 10


def test_the_page_names_every_variable_and_output():
    page = (TERRAFORM / "README.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert rows == set(VARIABLES) | set(OUTPUTS)


def test_the_page_gives_the_defaults():
    page = (TERRAFORM / "README.md").read_text().split("| output |")[0]
    cells = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", page, re.MULTILINE))
    for name, variable in VARIABLES.items():
        default = variable.get("default")
        if default is None:
            assert cells[name] == "required", name
        elif isinstance(default, str | int | float):
            assert cells[name] == f"`{text(str(default))}`", name


def test_versions_are_pinned():
    (block,) = [
        block for path in FILES for block in hcl2.loads(path.read_text()).get("terraform", [])
    ]
    assert re.search(r">= \d+\.\d+, < \d+", block["required_version"])
    (providers,) = block["required_providers"]
    google = {text(key): text(value) for key, value in providers["google"].items()}
    assert google["source"] == "hashicorp/google"
    assert re.fullmatch(r"~> \d+\.\d+", google["version"])


def test_no_role_gives_more_than_a_job_needs():
    roles = set(re.findall(r'"(roles/[\w.]+)"', "".join(path.read_text() for path in FILES)))
    assert len(roles) > 5
    assert [role for role in roles if TOO_MUCH.match(role)] == []
    assert TOO_MUCH.match("roles/storage.objectAdmin")


def test_roles_are_added_and_never_replaced():
    """A binding or a policy would take away what others have been given."""
    kinds = set(re.findall(r'^resource "(\w+)"', "".join(p.read_text() for p in FILES), re.M))
    assert {kind for kind in kinds if "iam" in kind} == {
        kind for kind in kinds if kind.endswith("_iam_member")
    }


def test_nothing_secret_is_committed():
    ignored = (TERRAFORM / ".gitignore").read_text().splitlines()
    assert {".terraform/", "*.tfstate", "*.tfstate.*", "terraform.tfvars"} <= set(ignored)


# From here on Terraform itself is asked.


@pytest.fixture(scope="session")
def quiet_environment(tmp_path_factory) -> dict[str, str]:
    """Without the settings of this machine, and without calls home."""
    settings = tmp_path_factory.mktemp("terraform") / "empty.tfrc"
    settings.touch()
    mine = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return {**mine, "TF_CLI_CONFIG_FILE": str(settings), "CHECKPOINT_DISABLE": "1"}


@pytest.fixture(scope="session")
def program() -> str:
    found = shutil.which("terraform")
    if not found:
        pytest.skip("no terraform on the path")
    return found


def run(program, directory, environment, *words) -> subprocess.CompletedProcess:
    return subprocess.run(
        [program, *words],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_files_are_formatted(program, quiet_environment):
    result = run(program, TERRAFORM, quiet_environment, "fmt", "-check", "-recursive", "-diff")
    assert (result.returncode, result.stdout) == (0, "")


@pytest.fixture(scope="session")
def provider(quiet_environment):
    """The environment in which Terraform finds a provider for Google."""
    site_packages = next(iter(ENVIRONMENT.glob("lib/python3*/site-packages")), ENVIRONMENT)
    archive = find_archive(site_packages)
    if archive is None:
        pytest.skip(f"no schema in {ENVIRONMENT.name}: `make lint-infra` installs it")
    bindings = Bindings(archive)
    source = "".join(path.read_text() for path in FILES)
    schemas = encode_schemas(
        bindings.provider(),
        {name: bindings.resource(name) for name in re.findall(r'^resource "(\w+)"', source, re.M)},
        {name: bindings.data_source(name) for name in re.findall(r'^data "(\w+)"', source, re.M)},
    )
    with serving(schemas) as variables:
        yield {**quiet_environment, **variables}


@pytest.fixture
def module(program, provider, tmp_path) -> pathlib.Path:
    """A copy of the files, initialised."""
    directory = tmp_path / "module"
    shutil.copytree(
        TERRAFORM, directory, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*")
    )
    result = run(program, directory, provider, "init", "-backend=false", "-input=false")
    assert result.returncode == 0, result.stderr
    return directory


@pytest.mark.infra
def test_the_schema_is_that_of_the_version_in_use(program, provider):
    """The bindings' own page says of which version they are."""
    pages = ENVIRONMENT.glob("lib/python3*/site-packages/cdktf_cdktf_provider_google*/METADATA")
    version = re.search(r"hashicorp/google provider version (\d+\.\d+)", next(pages).read_text())
    assert f'version = "~> {version[1]}"' in (TERRAFORM / "versions.tf").read_text()


@pytest.mark.infra
def test_terraform_finds_the_files_valid(program, provider, module):
    result = run(program, module, provider, "validate", "-no-color")
    assert result.returncode == 0, result.stderr
    assert "The configuration is valid" in result.stdout


@pytest.mark.infra
@pytest.mark.parametrize(
    "file, old, new, complaint",
    [
        ("storage.tf", "force_destroy =", "force_delete =", "Unsupported argument"),
        ("storage.tf", "var.soft_delete_days * 24", '"a week"', "Invalid operand"),
        ("storage.tf", 'type = "Delete"', "", 'argument "type" is required'),
        ("storage.tf", "soft_delete_policy", "soft_delete", "Unsupported block type"),
        ("registry.tf", 'format        = "DOCKER"', "", 'argument "format" is required'),
        ("outputs.tf", "trainer.email", "trainer.address", "Unsupported attribute"),
        ("budget.tf", "var.budget_emails", "var.mails", "undeclared input variable"),
        (
            "accounts.tf",
            "google_service_account.builder.name",
            "google_account.b.name",
            "undeclared",
        ),
    ],
)
def test_terraform_would_find_a_mistake(program, provider, module, file, old, new, complaint):
    path = module / file
    before = path.read_text()
    after = re.sub(re.escape(old).replace(r"\ ", " +"), new, before, count=1)
    assert after != before
    path.write_text(after)
    result = run(program, module, provider, "validate", "-no-color")
    assert result.returncode == 1
    assert complaint in result.stderr


@pytest.mark.infra
def test_the_tests_beside_the_files_pass(program, provider, module):
    """They refuse bad values of each variable, and look at roles, rules and budget."""
    result = run(program, module, provider, "test", "-no-color")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    runs = re.findall(r'^run "(\w+)"', "".join(p.read_text() for p in module.glob("tests/*")), re.M)
    assert f"{len(runs)} passed, 0 failed" in result.stdout
    refused = {name for name in VARIABLES if any(each.startswith(name + "_") for each in runs)}
    assert refused == set(VARIABLES)


@pytest.mark.infra
@pytest.mark.parametrize(
    "words",
    [("terraform", "--directory=infra/terraform"), ("dockerfile", "--directory=infra/docker")],
)
def test_checkov_finds_nothing(words):
    framework, place = words
    checkov = ENVIRONMENT / "bin" / "checkov"
    if not checkov.is_file():
        pytest.skip(f"no checkov in {ENVIRONMENT.name}: `make lint-infra` installs it")
    options = [f"--framework={framework}", "--compact", "--quiet", "--skip-download"]
    result = subprocess.run(
        [checkov, place, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
    passed, failed = re.search(
        r"Passed checks: (\d+), Failed checks: (\d+)", result.stdout
    ).groups()
    assert int(passed) > 5
    assert failed == "0"
