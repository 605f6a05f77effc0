"""Text files in the encodings that people have, and JSON in them."""
import codecs
import json
import pathlib

# UTF-32 first: its mark of little-endian text begins with that of UTF-16
MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
         codecs.BOM_UTF16_BE: "utf-16"}


def decode(content: bytes) -> str:
    """Return ``content`` as text without byte order marks, its line ends as ``\\n``.

    It is read as UTF-16 or UTF-32 where a byte order mark says so, else as UTF-8, else as Windows-1252, which contains
    Latin-1's letters. Comments in any other encoding, such as GBK, become wrong letters, but leave the numbers beside
    them intact and add no line. Nothing is refused: what has no meaning becomes U+FFFD.
    """
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("cp1252" if encoding == "utf-8" else encoding, errors="replace")
    # a mark also stands inside where files were joined
    return text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: str | pathlib.Path) -> str:
    """Return the text of the file ``path``, decoded as ``decode`` does; raises OSError alone."""
    return decode(pathlib.Path(path).read_bytes())


def parse_json(text):
    """Return what a JSON ``text`` says; ValueError where it is damaged."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("lists within lists too deeply nested") from error
