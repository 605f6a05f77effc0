import pytest

from utils.text import decode, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"])
def test_encodings(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("# Gebäude\r\n1 2 3\r4 5 6\n".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "# Gebäude\n1 2 3\n4 5 6\n"


@pytest.mark.parametrize("mark", [b"\xfe\xff", b"\xff\xfe"])
def test_utf16_of_either_byte_order(mark):
    assert decode(mark + "chaise é".encode("utf-16-be" if mark == b"\xfe\xff" else "utf-16-le")) == "chaise é"


@pytest.mark.parametrize("encoding", ["gbk", "big5", "shift_jis", "cp1252", "koi8-r"])
def test_comments_of_any_encoding_add_no_line(encoding):
    comment = {"koi8-r": "стул", "cp1252": "… and so on"}.get(encoding, "一椅子表中圖")
    text = decode(f"# {comment}\n1 2 3\n".encode(encoding))
    assert text.splitlines()[1:] == ["1 2 3"]


def test_marks_inside_go():
    assert decode(b"\xef\xbb\xbfa\n\xef\xbb\xbfb") == "a\nb"


def test_bytes_without_meaning_are_no_error():
    assert decode(b"\xff\xfe\x00") == "\ufffd"
    assert decode(b"1 \x81 2") == "1 \ufffd 2"
