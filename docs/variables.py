"""Write the table of environment variables into docs/operations.md: ``make docs-tables``."""

from pathlib import Path

from trace_dagster.config.variables import with_table

PAGE = Path(__file__).with_name("operations.md")

if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
