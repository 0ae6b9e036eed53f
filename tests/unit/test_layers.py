"""Import layers: the architecture page shows the layers that import-linter enforces, for all modules and third
parties.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "trace_dagster"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
SPAWNING = {"subprocess", "multiprocessing"}
"""Modules of the standard library that have places of their own."""


def contract(kind: str) -> list[dict]:
    return [each for each in CONTRACTS if each["type"] == kind]


def layers() -> list[str]:
    (found,) = contract("layers")
    return found["layers"]


def members() -> set[str]:
    """Return every package of trace_dagster and every module that is in no package."""
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return packages | {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}


def third_parties() -> set[str]:
    """Return the top-level third-party packages that trace_dagster imports."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return {name for name in found if name not in sys.stdlib_module_names or name in SPAWNING} - {"trace_dagster"}


def test_the_architecture_page_shows_the_layers_that_are_enforced():
    block = re.search(r"<!-- layers: begin -->\n(.*)<!-- layers: end -->", PAGE, re.DOTALL)
    assert block is not None
    assert [line.strip() for line in block[1].splitlines() if line.strip()] == layers()


def test_every_package_and_module_is_in_one_layer():
    listed = [name.strip() for layer in layers() for name in layer.split("|")]
    assert sorted(listed) == sorted(members())
    (found,) = contract("layers")
    assert found["exhaustive"], "a new module in no layer must be an error"


@pytest.mark.parametrize("name", sorted(third_parties()))
def test_every_third_party_package_has_its_places(name):
    holders = [each["name"] for each in contract("protected") if name in each["protected_modules"]]
    assert len(holders) == 1, f"name in pyproject.toml, in one contract, where {name} may be imported"


def test_the_module_map_names_every_package_and_loose_module():
    table = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert table == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    for name in members() - table:
        assert f"`{name}`" in PAGE.partition("## Packages")[2], name


CLASSES = [
    (node.name, path.relative_to(PACKAGE))
    for path in sorted(PACKAGE.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.ClassDef)
]


def test_a_class_name_is_used_once_in_the_package():
    places: dict[str, list[str]] = {}
    for name, path in CLASSES:
        places.setdefault(name, []).append(str(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
