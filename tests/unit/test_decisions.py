"""Compares the numbers of the decisions in docs/adr, and the references to them."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))


def test_each_number_is_given_once():
    numbers = Counter(path.name[:4] for path in DECISIONS)
    assert [number for number, count in numbers.items() if count > 1] == []


def test_a_decisions_title_has_the_number_of_its_file():
    for path in DECISIONS:
        title = path.read_text().splitlines()[0]
        assert int(re.match(r"# 0*(\d+)", title)[1]) == int(path.name[:4]), path.name


def test_links_to_files_of_this_repository_lead_somewhere():
    listed = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        page = ROOT / name
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert re.match(r"[a-z]+:", target) or (page.parent / target).exists(), f"{name} links to {target}"


def test_decisions_that_the_code_names_exist():
    numbers = {path.name[:4] for path in DECISIONS}
    for page in (ROOT / "trace_dagster").rglob("*.py"):
        for number in re.findall(r"\bADR (\d{4})\b", page.read_text()):
            assert number in numbers, f"{page} names ADR {number}"
