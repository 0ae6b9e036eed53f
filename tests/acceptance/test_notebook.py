"""The notebook in examples/ runs from its first cell to its last, and the code of docs/python.md, on a real stack."""

from __future__ import annotations

import re
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from tests.acceptance.conftest import ROOT

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
NOTEBOOK = ROOT / "examples" / "lake.ipynb"


@pytest.fixture(scope="module")
def cells(stack, synced):
    """Run the notebook; return the outputs of its code cells, by the first line of their source."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the notebook is committed without outputs"
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}})
    client.execute(env={**stack.environment, "PYTHONPATH": str(ROOT)})
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def test_it_shows_the_lake_and_its_rows(cells):
    datasets, tail, relations, plot, rows, cuts, changes = cells
    assert "chain_20143.blocks" in shown(datasets, "text/html")
    assert "999" in shown(tail, "text/html")
    assert "chain_20143.blocks" in shown(relations)
    assert any("image/png" in output.get("data", {}) for output in plot)
    assert shown(rows) == "1000"
    assert "899" in shown(cuts)
    assert "'committed'" in shown(changes)


def test_the_code_of_the_python_page_runs(stack, synced):
    """The token sees one chain: other tests bring datasets of the same names for other chains."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    code = "".join(blocks).replace("cursor = lake.cursor()", "cursor = None")  # since then nothing may have changed
    assert code.count("lake.changes(after=cursor)") == 1
    environment = {
        **stack.environment,
        "PYTHONPATH": str(ROOT),
        "TRACE_QUERY_URL": stack.state.environment()["TRACE_QUERY_URL"],
        "TRACE_QUERY_TOKEN": stack.json("token", "new", "page", "--dataset", "chain_20143.*", "--json")["token"],
    }
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "committed blocks 0 100 " in ended.stdout


def shown(outputs, kind="text/plain"):
    """Return what a cell shows."""
    (found,) = [output["data"][kind] for output in outputs if kind in output.get("data", {})]
    return found
