"""Files that ship with the package are found in the repository, and are in the wheel."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import trace_dagster
from trace_dagster.config.shipped_files import shipped_file

PACKAGE = Path(trace_dagster.__file__).parent


def used_names():
    """Return the names that the package passes to ``shipped_file``."""
    calls = (re.findall(r'shipped_file\("([^"]+)"\)', path.read_text()) for path in PACKAGE.rglob("*.py"))
    return sorted({name for names in calls for name in names})


@pytest.mark.parametrize("name", used_names())
def test_each_file_exists_and_is_in_the_wheel(name):
    assert shipped_file(name).exists()
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    packaged = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    source = name.partition("/")[0]
    assert packaged[source] == f"trace_dagster/{source}"


def test_the_package_uses_them():
    assert used_names() == ["dagster.yaml", "examples/devchain.yaml", "examples/devchain_tip.yaml", "sql_templates"]
