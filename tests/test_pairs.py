"""Files of sentence pairs, and what is said about those that are broken."""
import gzip
import tracemalloc

import numpy as np
import pytest

from tinymae import packed
from tinymae.text import pairs
from tinymae.text.pairs import read_lines, read_parallel, read_tsv


def put(path, data):
    if isinstance(data, str):
        data = data.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("names", [("a.de", "a.en"), ("a.de.gz", "a.en.gz"), ("a.de", "a.en.gz")])
def test_read_parallel(tmp_path, names):
    source = put(tmp_path / names[0], "\ufeffein Hund \r\nzwei\u2028Hunde\r\n")     # U+2028 is no line's end here
    target = put(tmp_path / names[1], "a dog\n two dogs")
    assert read_parallel(source, str(target)) == [("ein Hund", "a dog"), ("zwei\u2028Hunde", "two dogs")]


def test_read_lines(tmp_path):
    path = put(tmp_path / "a.txt", "\ufeff one \r\n\ntwo\u2028three\n")
    assert list(read_lines(path)) == [" one ", "", "two\u2028three"]


def test_read_lines_reads_as_it_goes(tmp_path):
    lines = read_lines(put(tmp_path / "a.txt", b"good\n\xff\n"))
    assert next(lines) == "good"
    with pytest.raises(ValueError, match=r"a\.txt, line 2: is not UTF-8"):
        next(lines)


def test_gzip_is_known_by_its_first_bytes(tmp_path):
    path = tmp_path / "packed.txt"
    path.write_bytes(gzip.compress("猫\tcat\n".encode()))
    assert read_tsv(path) == [("猫", "cat")]


@pytest.mark.parametrize(("source", "target", "message"), [
    ("a\nb\nc\n", "a\nb\n", r"a\.txt has 3 lines and .*b\.txt has 2.*line 3 has none"),
    ("a\nb\n", "a\n\n", r"b\.txt, line 2: is empty, with a sentence in the other file"),
    ("a\nb\nc\n", "\n\nc\n", r"b\.txt, lines 1, 2: are empty, with a sentence in the other file; remove them from both"),
    ("a\n" * 40, "\n" * 40, r"b\.txt, lines 1, 2, .*, 30 and 10 more: are empty"),
    ("a\n \t\nc\n", "a\nb\nc\n", r"a\.txt, line 2: is empty"),
    ("a\nb\n", "a\nb\n\n", r"has 2 lines and .* has 3"),
    ("", "a\n", r"a\.txt is empty"),
    ("a\n", b"caf\xe9\n", r"b\.txt, line 1: is not UTF-8.*0xe9 at 3"),
    ("a\nb\n", b"a\n\xb0\xa1\n", r"b\.txt, line 2: is not UTF-8.*gb18030"),
    ("a\n", "a\n".encode("utf-16"), r"b\.txt, line 1: is UTF-16"),
])
def test_read_parallel_errors(tmp_path, source, target, message):
    with pytest.raises(ValueError, match=message):
        read_parallel(put(tmp_path / "a.txt", source), put(tmp_path / "b.txt", target))


def test_broken_gzip(tmp_path):
    good = put(tmp_path / "good.txt", "line\n" * 1000)
    random = np.random.default_rng(0).integers(97, 122, 20_000).astype(np.uint8).tobytes()
    packed = gzip.compress(random)
    cut, damaged, plain = (tmp_path / name for name in ("cut.gz", "damaged.gz", "plain.gz"))
    cut.write_bytes(packed[: len(packed) // 2])
    damaged.write_bytes(packed[:-6] + b"\0\0" + packed[-4:])                    # its check sum
    plain.write_bytes(b"a\nb\n")
    for path in (cut, damaged):
        with pytest.raises(ValueError, match=rf"{path.name}.*gzip file is broken"):
            read_parallel(good, path)
        with pytest.raises(ValueError, match=rf"{path.name}.*gzip file is broken"):
            read_tsv(path)
    with pytest.raises(ValueError, match=r"plain\.gz is named \.gz"):
        read_tsv(plain)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        read_tsv(tmp_path / "none.txt")


@pytest.mark.parametrize("name", ["cmn.txt", "cmn.tsv.gz"])
def test_read_tsv(tmp_path, name):
    path = put(tmp_path / name, "\ufeffHi.\t嗨。\tCC-BY\r\nI run. \t 我跑。\r\n")
    assert read_tsv(path) == [("Hi.", "嗨。"), ("I run.", "我跑。")]


@pytest.mark.parametrize(("content", "message"), [
    ("a\tb\n\tc\n\td\n", r"t\.tsv, lines 2, 3: are empty in the first column"),
    ("a\tb\n\tc\ne\t\n", r"t\.tsv, line 2: is empty in the first column"),
    ("\n \n", r"t\.tsv: has only empty lines"),
    ("a\tb\nc d\n", r"t\.tsv, line 2: has 1 column, but .*'c d'"),
    ("a\tb\nc\t \n", r"t\.tsv, line 2: is empty in the second column"),
    ("a\tb\n\td\n", r"t\.tsv, line 2: is empty in the first column"),
    (b"a\tb\nc\t\xff\n", r"t\.tsv, line 2: is not UTF-8"),
    ("", r"t\.tsv is empty"),
])
def test_read_tsv_errors(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_tsv(put(tmp_path / "t.tsv", content))


# Files that would fill the memory


@pytest.mark.parametrize("name", ["t.txt", "t.txt.gz"])
def test_a_line_without_end(tmp_path, monkeypatch, name):
    monkeypatch.setattr(pairs, "LONGEST_LINE", 100)
    path = put(tmp_path / name, b"x" * 99 + b"\n" + b"y" * 99 + b"\r\n" + b"z" * 100)
    lines = read_lines(path)
    assert next(lines) == "x" * 99
    with pytest.raises(ValueError, match=r"t\.txt.*, line 2: is longer than 100 bytes; .*Break the line"):
        next(lines)


def test_zeros_in_a_gzip_file(tmp_path):
    """One line of 30 megabytes: no more of it is read than the longest line has."""
    path = put(tmp_path / "zeros.gz", bytes(30 << 20))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"zeros\.gz, line 1: is longer than 1048576 bytes"):
        read_parallel(path, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


def test_a_gzip_file_of_too_many_lines(tmp_path, monkeypatch):
    """Refused with the way out: unpacked first, it is read."""
    monkeypatch.setattr(packed, "ALWAYS_ALLOWED", 10_000)
    content = b"a\tb\n" * 10_000
    with pytest.raises(ValueError, match=r"t\.gz, line 2501: unpacked, it has more than 10000 bytes, 32 times the .*gunzip"):
        read_tsv(put(tmp_path / "t.gz", content))
    assert len(read_tsv(put(tmp_path / "t.txt", content))) == 10_000
    words = "".join(f"{i}\t{i * i}\n" for i in range(10_000))
    assert len(read_tsv(put(tmp_path / "t.gz", words))) == 10_000               # 120 kB that shrink to a third


def test_nothing_but_line_ends(tmp_path):
    """The lines are not collected."""
    path = put(tmp_path / "a.gz", b"\n" * 30_000)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.gz: has only empty lines; expected sentences"):
        read_parallel(path, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e5                                           # 1.2e5; two lists of them would take 1.4e6


def test_lines_that_are_empty_on_both_sides_are_left_out(tmp_path):
    a, b = put(tmp_path / "a.txt", b"x\n\ny\n \n"), put(tmp_path / "b.txt", b"u\n\nv\n\n")
    tabs = put(tmp_path / "t.tsv", b"x\tu\n\ny\tv\n")
    for read, count in ((lambda: read_parallel(a, b), 2), (lambda: read_tsv(tabs), 1)):
        with pytest.warns(UserWarning, match=f"{count} lines that are empty on both sides are left out"):
            assert read() == [("x", "u"), ("y", "v")]


@pytest.mark.parametrize(("text", "encoding", "message"), [
    ("hello\tworld\n", "utf-16-be", "a byte of 0, as no text does: it is UTF-16 \\(big-endian\\) without a byte order mark"),
    ("hello\tworld\n", "utf-16-le", "it is UTF-16 \\(little-endian\\) without a byte order mark; save it as UTF-8"),
    ("hello\0\tworld, and more\n", "utf-8", "a byte of 0, .* is it a binary file, or damaged"),
    ("猫在这里\tcat\n", "gb18030", "it could be gb18030 \\(Chinese\\), in which it reads '猫在这里"),
    ("für\tfor\n", "latin-1", "it could be latin-1 \\(Western Europe\\), in which it reads 'für"),
    ("hello\tworld\n", "utf-16", "is UTF-16, by its first two bytes"),
])
def test_other_encodings_are_named(tmp_path, text, encoding, message):
    path = put(tmp_path / "t.tsv", text.encode(encoding))
    with pytest.raises(ValueError, match=rf"t\.tsv, line 1: .*{message}"):
        read_tsv(path)
