"""Write the tables of chains into docs/chains.md, docs/finality.md and README.md: ``make docs-tables``."""

from pathlib import Path

from trace_dagster.datasets.chains_table import with_tables

_HERE = Path(__file__).parent
PAGES = (_HERE / "chains.md", _HERE / "finality.md", _HERE.parent / "README.md")

if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
