"""Write the tables of chains into docs/chains.md and README.md: ``make docs-tables``."""

from pathlib import Path

from trace_dagster.datasets.chains_table import with_tables

PAGES = (Path(__file__).with_name("chains.md"), Path(__file__).parents[1] / "README.md")

if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
