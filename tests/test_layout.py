"""The layout of the code: which module imports which, and what importing a script costs."""

import ast
import os
import re
import subprocess
import sys

import pytest

from tests.helpers import ROOT

SCRIPTS = ("train", "eval", "eval_genresult")
# From bottom to top: a module imports only modules that come before it. `support` stands for its
# own modules: errors, cli, files, noise, records, startup.
ORDER = (
    "support",
    "support.datasets",
    "data",
    "model",
    "support.analysis",
    "support.display",
    "support.storage",
    "support.training",
    *SCRIPTS,
)
HEAVY = {"tensorflow", "keras", "matplotlib", "jax", "sklearn", "scipy", "h5py", "tensorboard"}


def sources():
    """The paths of all modules by their names."""
    found = {name[:-3]: name for name in os.listdir(ROOT) if name.endswith(".py")}
    for folder, _, names in os.walk(os.path.join(ROOT, "support")):
        for name in names:
            if name.endswith(".py"):
                path = os.path.relpath(os.path.join(folder, name), ROOT)
                module = path[:-3].replace(os.sep, ".").removesuffix(".__init__")
                found[module] = path
    return found


SOURCES = sources()


def parsed(module):
    with open(os.path.join(ROOT, SOURCES[module]), encoding="utf-8") as file:
        return ast.parse(file.read())


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports_in(module, when_run=False):
    """The modules of this project that a module imports anywhere.

    Args:
        when_run: leave out imports for type hints only.
    """
    found = set()
    nodes = [parsed(module)]
    while nodes:
        node = nodes.pop()
        if when_run and is_type_checking(node):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in SOURCES else node.module for name in names]
        else:
            continue
        found.update(name for name in names if name in SOURCES)
    return found - {module}


def package_of(module):
    """The entry of ORDER that a module belongs to."""
    if module in ORDER:
        return module
    parts = module.split(".")
    if len(parts) == 2 and f"{'.'.join(parts)}" not in ORDER:
        return "support"
    return ".".join(parts[:2])


def test_every_module_has_a_place_in_the_order():
    assert {package_of(module) for module in SOURCES} == set(ORDER)
    assert len(SOURCES) > 30


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_no_module_imports_upwards(module):
    """Type hints may refer to modules that come later, but not to scripts."""
    place = ORDER.index(package_of(module))
    upwards = {
        name for name in imports_in(module, when_run=True) if ORDER.index(package_of(name)) > place
    }
    assert upwards == set()
    if package_of(module) not in SCRIPTS:
        assert not set(SCRIPTS) & imports_in(module)


def test_no_two_scripts_import_each_other():
    for script in SCRIPTS:
        assert not set(SCRIPTS) & imports_in(script)


def test_there_is_no_cycle_of_imports():
    """Neither of modules nor of packages, so that a reader can go from bottom to top."""
    graph = {module: imports_in(module, when_run=True) for module in SOURCES}
    # A package leads whoever imports it to its modules.
    assert_no_cycle(graph)
    packages = {package: set() for package in ORDER}
    for module, imported in graph.items():
        packages[package_of(module)] |= {package_of(name) for name in imported}
    for package, imported in packages.items():
        imported.discard(package)
    assert_no_cycle(packages)


def assert_no_cycle(graph):
    done, path = set(), []

    def visit(name):
        assert name not in path, f"a cycle: {' > '.join([*path[path.index(name) :], name])}"
        if name in done:
            return
        path.append(name)
        for other in sorted(graph[name]):
            visit(other)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


def test_a_cycle_would_be_found():
    with pytest.raises(AssertionError, match="a cycle: b > c > b"):
        assert_no_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}})


def test_only_the_bottom_needs_no_array():
    """`--help` imports these, and must not wait for NumPy or TensorFlow."""
    for module in ("support.cli", "support.errors"):
        top = {
            alias.name.partition(".")[0]
            for node in parsed(module).body
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert top <= set(sys.stdlib_module_names)


LIGHT = """
import sys
import {script} as module
heavy = {heavy} & set(sys.modules)
assert not heavy, f"importing took {{heavy}}"
code = module.main(["--help"])
heavy = {heavy} & set(sys.modules)
assert not heavy, f"--help took {{heavy}}"
assert module.main(["--nonsense"]) == 2
heavy = {heavy} & set(sys.modules)
assert not heavy, f"a wrong flag took {{heavy}}"
sys.exit(code)
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_every_default_and_imports_nothing_heavy(script):
    run = subprocess.run(
        [sys.executable, "-c", LIGHT.format(script=script, heavy=HEAVY)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert "usage: " in run.stdout
    options = re.split(r"\n  (?=--)", run.stdout)[1:]
    assert len(options) >= 11
    for option in options:
        assert "(default: " in " ".join(option.split()), option
