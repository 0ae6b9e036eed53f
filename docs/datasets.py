"""Write the tables of columns into docs/datasets.md: ``make docs-tables``."""

from pathlib import Path

from trace_dagster.datasets.columns_table import with_tables

PAGE = Path(__file__).with_name("datasets.md")

if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
