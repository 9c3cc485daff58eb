"""Who may import whom, read from the source; nothing is run but one small process."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("benchmarks", "common", "loaders", "pipeline", "preprocessing", "training")
HEAVY = ("tensorflow", "keras", "tensorflow_datasets")

# By the prefix of the importing module, the longest that fits: prefixes of what it may import.
ALLOWED = {
    "common": ("common",),
    "preprocessing": ("preprocessing", "common"),
    "training": (
        "training",
        "common",
        "preprocessing.class_list",
        "preprocessing.examples",
        "preprocessing.manifest",
        "preprocessing.records",
        "preprocessing.tfrecord",
    ),
    # The one exception upward: training may start from a TF1 checkpoint.
    "training.initial": ("training", "common", "loaders.open"),
    "loaders": (
        "loaders",
        "common",
        "training.models",
        "training.checkpoints",
        "training.runtime",
    ),
    "pipeline": ("pipeline", "loaders", "training", "preprocessing", "common"),
    "benchmarks": ("benchmarks", "pipeline", "loaders", "training", "preprocessing", "common"),
}


def python_files() -> dict[str, pathlib.Path]:
    """Files of the packages by module name; a package is the name of its __init__."""
    files = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


FILES = python_files()


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def import_nodes(tree: ast.AST, lazy: bool, types: bool):
    """Import statements: those inside functions if `lazy`, those for types alone if `types`."""
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif (lazy or not is_function) and (types or not is_for_types_only(node)):
            yield from import_nodes(node, lazy, types)


def imports_of(module: str, lazy: bool = True, types: bool = True) -> set[str]:
    """Full names of the modules that `module` imports, ours and others'."""
    found = set()
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    for node in import_nodes(tree, lazy, types):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
            continue
        assert node.level == 0, f"{module} imports by a relative name"
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            found.add(inner if inner in FILES else node.module)
    return found


def fits(name: str, prefixes) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def test_the_reader_of_imports_sees_what_it_should():
    assert len(FILES) > 40
    assert "loaders.open" in imports_of("training.initial")
    assert "loaders.open" not in imports_of("training.initial", lazy=False, types=False)
    assert "training.evaluation" in imports_of("pipeline.evaluate", lazy=False)
    assert "training.evaluation" not in imports_of("pipeline.evaluate", lazy=False, types=False)
    assert "tensorflow" in imports_of("training.trainer", lazy=False)


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_only_what_its_package_may(module):
    prefix = max((p for p in ALLOWED if fits(module, [p])), key=len)
    ours = {name for name in imports_of(module) if fits(name, PACKAGES)}
    assert not {name for name in ours if not fits(name, ALLOWED[prefix])}


def test_no_two_modules_need_each_other():
    edges = {
        module: {name for name in imports_of(module, types=False) if name in FILES} - {module}
        for module in FILES
    }
    # Take away whatever needs nothing that is left; what stays is a circle, or hangs on one.
    while free := [module for module, needs in edges.items() if not needs]:
        for module in free:
            del edges[module]
        for needs in edges.values():
            needs.difference_update(free)
    assert not edges


def closure_at_import(*modules: str) -> set[str]:
    """All modules that are loaded with these, as far as our own source tells."""
    waiting, seen = list(modules), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in FILES:
            waiting += imports_of(name, lazy=False, types=False)
            parts = name.split(".")
            waiting += [".".join(parts[:n]) for n in range(1, len(parts))]
    return seen


def test_what_a_beam_worker_loads_needs_no_tensorflow():
    # A worker starts with the first, and unpickles what the second defines.
    modules = (
        "preprocessing.runners.worker",
        "preprocessing.runners.job",
        "preprocessing.shard_writer",
    )
    loaded = closure_at_import(*modules)
    assert "preprocessing.examples" in loaded
    assert not {name for name in loaded if fits(name, (*HEAVY, "training", "loaders", "pipeline"))}
    code = (
        "import sys, preprocessing.shard_writer;"
        f"sys.exit(' '.join(n for n in {(*HEAVY, 'training')} if n in sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.stderr.strip() == ""


def test_no_file_is_longer_than_500_lines():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in (*PACKAGES, "infra", "tests")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert lengths["tests/test_architecture.py"] > 100
    assert not {path: length for path, length in lengths.items() if length > 500}
