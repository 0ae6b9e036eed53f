"""Names in the package: a class name stands for one thing."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "trace_dagster"

STILL_TWICE_BY_OWNER = {
    "evidence": {"Batch"},
    "estimate": {"Counts"},
    "query": {"Limits", "Session"},
    "ingest": {"Rows"},
    "settings": {"_Strict"},
}


def classes() -> dict[str, list[str]]:
    """The places of every class definition in the package, by class name."""
    found = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    return found


def test_a_class_name_is_used_a_single_time():
    found = classes()
    assert len(found) > 200, "the scan missed the package: this test shows nothing"
    allowed = set().union(*STILL_TWICE_BY_OWNER.values())
    assert {name: places for name, places in found.items() if len(places) > 1 and name not in allowed} == {}
