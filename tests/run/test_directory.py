"""Two processes never work in one run directory, and a crash leaves no lock."""

import subprocess
import sys

import pytest

from spoutnik.errors import UserError
from spoutnik.run.directory import RunDirectory, write_whole

HOLD = f"import sys; sys.path[:0] = {sys.path!r}; from pathlib import Path; from spoutnik.run.directory import RunDirectory\n"
HOLD += "with RunDirectory(Path(sys.argv[1])).locked(): print('held', flush=True); sys.stdin.read()"


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=str(holder.pid)), RunDirectory(tmp_path).locked():
        pass
    holder.kill()
    holder.wait()
    with RunDirectory(tmp_path).locked():
        pass


def test_a_definition_comes_back_as_it_was_given(tmp_path):
    directory = RunDirectory(tmp_path)
    assert directory.definition("base") is None
    directory.begin("base", {"steps": 3, "seed": 1})
    assert directory.definition("base") == {"steps": 3, "seed": 1}
    assert not directory.is_done("base")
    directory.mark_done("base")
    assert directory.is_done("base")


def test_writing_over_a_file_leaves_the_old_one_when_it_fails(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_text() == "old"
