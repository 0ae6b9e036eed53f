"""Folders of queries: private, gone with their query, and swept when their process was killed."""

import os
import stat
import tempfile

import pytest

from trace_dagster.errors import Unavailable
from trace_dagster.query.temporary_space import TemporarySpace


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"trace-queries-{os.getuid()}"


def test_each_query_has_a_folder_that_nobody_else_can_enter(root):
    space = TemporarySpace(1)
    with space.folder() as one, space.folder() as other:
        assert one != other
        for path in (root, root / os.listdir(root)[0], one):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
        with open(f"{one}/rows", "w") as file:
            file.write("x")
    assert not os.path.exists(one)
    space.close()
    assert os.listdir(root) == []


def test_without_space_there_is_no_folder(root):
    with TemporarySpace(0).folder() as found:
        assert found is None
    assert not root.exists()


def test_what_a_query_makes_after_its_end_goes_with_the_next_one(root):
    space = TemporarySpace(1)
    with space.folder() as one:
        pass
    os.mkdir(one)
    with space.folder():
        assert os.path.exists(one)
    assert not os.path.exists(one)
    space.close()


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(root):
    used = TemporarySpace(1)
    left = root / "left" / "query"
    left.mkdir(parents=True)
    (left / "rows").write_text("x")
    with used.folder() as mine:
        TemporarySpace(1).close()
        assert not (root / "left").exists()
        assert os.path.exists(mine)
    used.close()


@pytest.mark.parametrize("make", [lambda root: root.symlink_to("/var"), lambda root: root.mkdir(0o755)])
def test_a_folder_that_others_can_enter_is_refused(root, make):
    make(root)
    with pytest.raises(Unavailable, match="set TMPDIR"):
        TemporarySpace(1)
