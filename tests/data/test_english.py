"""Text sources."""

import pytest

from spoutnik.data.english import BUILTIN, read_text
from spoutnik.errors import UserError


def test_every_python_brings_prose():
    documents = read_text(BUILTIN)
    assert len(documents) > 300
    assert len(set(documents)) == len(documents)
    assert all(document.endswith(".") and len(document) >= 80 and "\n" not in document for document in documents)


def test_documents_of_a_file_stand_apart_by_blank_lines(tmp_path):
    (tmp_path / "a.txt").write_text("\n\none\nstill one\n \n\ntwo\n", encoding="utf-8")
    assert read_text(str(tmp_path / "a.txt")) == ["one\nstill one", "two"]


def test_a_folder_stands_for_its_text_files_in_order(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, text in (("b.txt", "second"), ("a.txt", "first"), ("sub/c.txt", "third"), ("d.md", "no text file")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_text(str(tmp_path)) == ["first", "second", "third"]


@pytest.mark.parametrize("content", [b"", b" \n\n\t\n"])
def test_an_empty_source_is_told(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match="empty"):
        read_text(str(tmp_path / "a.txt"))


def test_bytes_that_are_no_text_are_told_with_their_place(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\n\nbad \xff\xfe")
    with pytest.raises(UserError, match=r"a\.txt is not UTF-8 text \(byte 10\)"):
        read_text(str(tmp_path))


@pytest.mark.parametrize("name", ["absent.txt", "empty-folder"])
def test_a_source_that_is_not_there_is_told(tmp_path, name):
    (tmp_path / "empty-folder").mkdir()
    with pytest.raises(UserError, match="neither"):
        read_text(str(tmp_path / name))
