"""What lies on disk is read whole and right or not at all, whoever was killed, and stays within its bounds."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import spoutnik
from spoutnik.engine import store as module
from spoutnik.engine.shelf import Shelf
from spoutnik.engine.store import Store
from spoutnik.errors import UserError

PAGE, BYTES = 4, 1000
MODEL, OTHER = b"m" * 32, b"o" * 32
TOKENS = list(range(20))


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path)
    yield made
    made.close()


def content(number):
    return bytes([number % 256]) * BYTES


def write(store, tokens=TOKENS, owner="", model=MODEL, until=None):
    """Puts the prompt's pages there, the i-th full of i; returns their paths."""
    shelf = Shelf(store, model, PAGE, BYTES)
    prefix = shelf.prefix(owner, tokens)
    for index in range(len(prefix.names[:until])):
        shelf.keep(prefix, index, lambda index=index: content(index))
    store.flush()
    return [store.folder / f"{name}.page" for name in prefix.names[:until]]


def found(store, tokens=TOKENS, owner="", model=MODEL):
    """How many leading pages of a prompt are read, after checking what they hold."""
    shelf = Shelf(store, model, PAGE, BYTES)
    prefix = shelf.prefix(owner, tokens)
    for index in range(len(prefix.names)):
        page = bytearray(b"?" * BYTES)
        if not shelf.read(prefix, index, memoryview(page)):
            assert page in (b"?" * BYTES, bytes(BYTES)), "part of a page was left"
            return index
        assert page == content(index)
    return len(prefix.names)


def test_whole_pages_are_found_by_a_later_process(store, tmp_path):
    write(store)
    store.close()
    again = Store(tmp_path)
    assert found(again) == 5
    assert found(again, [*TOKENS[:9], 99, *TOKENS[10:]]) == 2
    assert found(again, TOKENS[:3]) == 0
    again.close()


def test_another_model_owner_or_page_size_finds_nothing(store):
    write(store, owner="mine")
    assert found(store, owner="mine") == 5
    assert found(store, owner="theirs") == found(store, owner="mine", model=OTHER) == 0
    shelf = Shelf(store, MODEL, PAGE, BYTES - 1)
    assert not shelf.read(shelf.prefix("mine", TOKENS), 0, memoryview(bytearray(BYTES - 1)))


def test_only_this_user_may_read_and_names_tell_nothing(store):
    old = os.umask(0)
    try:
        paths = write(store, owner="alice@example.org")
    finally:
        os.umask(old)
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in [*paths, store.folder / "key"]] == [0o600] * 6
    assert all(b"alice" not in path.read_bytes() and "alice" not in path.name for path in paths)
    assert len((store.folder / "key").read_bytes()) == 32


@pytest.mark.parametrize("damage", ["torn", "empty", "longer", "header", "data", "mac"])
def test_a_damaged_file_is_removed_with_a_line_and_read_as_nothing(damage, store, caplog):
    path = write(store)[2]
    whole = bytearray(path.read_bytes())
    places = {"header": 40, "data": len(whole) - 500, "mac": len(whole) - 3}
    if damage in places:
        whole[places[damage]] ^= 1
    path.write_bytes({"torn": whole[:-700], "empty": b"", "longer": whole + b"!"}.get(damage, whole))
    assert found(store) == 2
    assert not path.exists()
    assert len(caplog.records) == 1
    assert "damaged" in caplog.text
    write(store)
    assert found(store) == 5, "it is written anew"


def test_a_file_under_the_name_of_another_prompt_is_not_taken_for_it(store, caplog):
    """As if two prompts had one hash: the tokens themselves decide."""
    mine = write(store, [1, 2, 3, 4, 5, 6, 7, 8])
    theirs = write(store, [1, 2, 3, 9, 5, 6, 7, 8])
    for one, other in zip(mine, theirs, strict=True):
        other.write_bytes(one.read_bytes())
    assert found(store, [1, 2, 3, 9, 5, 6, 7, 8]) == 0
    assert "another model, owner or prompt" in caplog.text
    assert found(store, [1, 2, 3, 4, 5, 6, 7, 8]) == 2


def test_a_file_that_another_folder_s_key_signed_is_not_trusted(store, tmp_path, caplog):
    foreign = Store(tmp_path / "other")
    for mine, theirs in zip(write(store), write(foreign), strict=True):
        header = mine.read_bytes()[: -BYTES - module.MAC_BYTES]
        mine.write_bytes(header + theirs.read_bytes()[len(header) :])
    foreign.close()
    assert found(store) == 0
    assert "not what was written" in caplog.text


def test_what_was_unused_longest_goes_first_and_the_end_of_a_prompt_before_its_beginning(tmp_path):
    first = Store(tmp_path)
    bytes_of_one = sum(path.stat().st_size for path in write(first, [1, *TOKENS[1:]]))
    first.close()
    store = Store(tmp_path, max_bytes=8 * bytes_of_one)
    for number in range(2, 9):
        write(store, [number, *TOKENS[1:]])
    assert found(store, [1, *TOKENS[1:]]) == 5
    for path in write(store, [9, *TOKENS[1:]]):
        assert path.exists()
    assert sum(path.stat().st_size for path in store.folder.glob("*.page")) <= store.max_bytes
    assert [found(store, [number, *TOKENS[1:]]) for number in range(1, 10)] == [5, 0, 4, 5, 5, 5, 5, 5, 5]
    store.close()


def test_a_page_larger_than_the_bound_is_not_kept(tmp_path):
    store = Store(tmp_path, max_bytes=900)
    assert not write(store)[0].exists()
    store.close()


def test_what_was_not_used_for_too_long_is_neither_read_nor_kept(tmp_path):
    store = Store(tmp_path, max_age_s=100)
    paths = write(store)
    for path in paths:
        os.utime(path, (time.time() - 90,) * 2)
    assert found(store) == 5, "and is used now"
    for path in paths:
        os.utime(path, (time.time() - 101,) * 2)
    assert found(store) == 0
    assert not paths[0].exists()
    store.close()
    Store(tmp_path, max_age_s=100).close()
    assert not any(path.exists() for path in paths)


def test_keeping_a_page_that_is_there_marks_it_as_used(store):
    paths = write(store)
    for path in paths:
        os.utime(path, (1, time.time() - 1000))
    write(store)
    assert all(time.time() - path.stat().st_mtime < 100 for path in paths)


def test_a_page_that_is_gone_when_its_turn_comes_is_not_written(store):
    shelf = Shelf(store, MODEL, PAGE, BYTES)
    shelf.keep(shelf.prefix("", TOKENS), 0, lambda: None)
    store.flush()
    assert found(store) == 0


def test_a_full_disk_stops_the_writing_with_one_warning(store, caplog):
    write(store, until=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        write(store)
        write(store, [7, *TOKENS])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Nothing more is written" in caplog.text
    assert found(store) == 1, "what was there is still read"
    assert not list(store.folder.glob("*.new"))


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be kept in .*file"):
        Store(tmp_path / "file")
    (tmp_path / "prompts").symlink_to(tmp_path)
    with pytest.raises(UserError, match="not a folder of this user's own"):
        Store(tmp_path)


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    tmp_path.chmod(0o755)
    Store(tmp_path).close()
    mine = tmp_path / "prompts" / "notes.txt"
    mine.write_text("mine")
    os.utime(mine, (1, 1))
    Store(tmp_path, max_bytes=1, max_age_s=1).close()
    assert mine.exists()
    assert tmp_path.stat().st_mode & 0o777 == 0o755


WRITER = """
import sys
from spoutnik.engine.shelf import Shelf
from spoutnik.engine.store import Store
store = Store(sys.argv[1])
shelf = Shelf(store, b"m" * 32, 4, 1000)
for first in range(int(sys.argv[2]), int(sys.argv[3])):
    prefix = shelf.prefix("", [first, *range(1, 20)])
    for index in range(5):
        shelf.keep(prefix, index, lambda index=index: bytes([index]) * 1000)
    store.flush()
    print(first, flush=True)
"""


def writer(folder, first, last):
    environment = {**os.environ, "PYTHONPATH": str(Path(spoutnik.__file__).parent.parent)}
    command = [sys.executable, "-c", WRITER, str(folder), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("after", [1, 4, 30])
def test_a_process_killed_while_it_writes_leaves_only_whole_pages(after, tmp_path):
    process = writer(tmp_path, 0, 100_000)
    for _ in range(after):
        last = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = Store(tmp_path)
    assert all(found(store, [first, *TOKENS[1:]]) == 5 for first in range(last + 1))
    for path in store.folder.glob("*.new"):  # an unfinished file goes when nobody can be writing it any more
        os.utime(path, (time.time() - module.TIDY_S - 1,) * 2)
    store.close()
    Store(tmp_path).close()
    assert not list(store.folder.glob("*.new"))


def test_several_processes_share_a_folder_and_what_they_write_at_once(tmp_path):
    processes = [writer(tmp_path, 0, 40), writer(tmp_path, 0, 40), writer(tmp_path, 20, 60)]
    store = Store(tmp_path)
    seen = 0
    while any(process.poll() is None for process in processes):
        seen += sum(found(store, [first, *TOKENS[1:]]) for first in range(0, 60, 7))
    assert all(process.wait() == 0 for process in processes)
    assert all(found(store, [first, *TOKENS[1:]]) == 5 for first in range(60))
    store.close()
