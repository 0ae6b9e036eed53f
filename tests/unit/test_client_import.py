"""The import of the client: a notebook or a script gets it in a moment, without the parts that run a lake."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, time
began = time.process_time()
import trace_dagster
lake = trace_dagster.connect("http://127.0.0.1:9", "token")
spent = time.process_time() - began
print(spent, *sorted({name.partition(".")[0] for name in sys.modules}))
print(*sorted(name for name in sys.modules if name.startswith("trace_dagster.")))
"""
HEAVY = {"boto3", "dagster", "duckdb", "fastapi", "numba", "numpy", "obstore", "pandas", "polars", "psycopg", "pyarrow"}
HEAVY |= {"click", "psutil", "pydantic", "pydantic_settings", "rich", "sqlalchemy"}


def test_connect_imports_only_an_http_client():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    first, ours = done.stdout.splitlines()
    seconds, *modules = first.split()
    assert not HEAVY & set(modules)
    assert "urllib3" in modules
    assert {name.split(".")[1] for name in ours.split()} == {"client", "errors", "messages"}
    assert float(seconds) < 2, "0.3 s of CPU on a busy machine"


def test_the_package_alone_imports_nothing():
    program = (
        "import sys, trace_dagster; print([n for n in sys.modules if 'trace_dagster' in n], 'typing' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['trace_dagster'] False\n"
