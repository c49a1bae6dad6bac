"""Sentence pairs from files: two parallel text files, or one with tabs.

Bad data is common, and its effect is noticed late: one missing line in one of two parallel files shifts all pairs after it, and
a model trains on them without any error. So everything is checked here, and an error names the file and the line.
"""
import gzip
import math
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tinymae.files import never_downloaded
from tinymae.packed import MOST_TIMES, most_unpacked

LONGEST_LINE = 1 << 20      # bytes: a word vector of dimension 4096 has about 50,000


def read_parallel(source_path: Path | str, target_path: Path | str) -> list[tuple[str, str]]:
    """Pairs from two text files: line n of one is the translation of line n of the other.

    Parameters
    ----------
    source_path, target_path : UTF-8, also compressed with gzip; a byte order mark is skipped

    Raises
    ------
    ValueError
        if there is text that is not UTF-8, an empty line, an unequal number of lines, an empty file or a broken gzip file;
        the message names the file and the line
    OSError
        if a file cannot be read
    """
    sides = [_sentences(path) for path in (source_path, target_path)]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"{source_path} has {len(sides[0])} lines and {target_path} has {len(sides[1])}: line n of "
                         f"one must be the translation of line n of the other, and line {min(map(len, sides)) + 1} "
                         "has none. Was a line lost, or is a file cut off?")
    for path, lines in zip((source_path, target_path), sides, strict=True):
        _check_last(path, lines)
    return list(zip(*sides, strict=True))


def _sentences(path):
    """The lines of a file. An empty one is reported when another line follows: the last may be one too many."""
    lines = []
    for line in read_lines(path):
        _check_last(path, lines)
        lines.append(line.strip())
    return lines


def _check_last(path, lines):
    if lines and not lines[-1]:
        raise ValueError(f"{path}, line {len(lines)}: is empty; expected a sentence. Remove the line from both files")


def read_tsv(path: Path | str) -> list[tuple[str, str]]:
    """Pairs from the first two columns of a file with tabs, such as those of Tatoeba (English, Chinese, attribution).

    Parameters
    ----------
    path : UTF-8, also compressed with gzip; a byte order mark is skipped

    Raises
    ------
    ValueError
        if there is text that is not UTF-8, an empty line or field, a single column, an empty file or a broken gzip file; the
        message names the file and the line
    OSError
        if the file cannot be read
    """
    pairs = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            raise ValueError(f"{path}, line {number}: is empty; expected two columns with a tab between them. Remove the line")
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) < 2:
            raise ValueError(f"{path}, line {number}: has 1 column, but a source and a target are expected; are the columns "
                             f"separated by spaces or commas instead of tabs? {line[:60]!r}")
        for field, column in zip(fields, ("first", "second"), strict=False):
            if not field:
                raise ValueError(f"{path}, line {number}: the {column} column is empty; expected a sentence")
        pairs.append((fields[0], fields[1]))
    return pairs


def read_lines(path: Path | str) -> Iterator[str]:
    """The lines of a text file without their ends, one at a time: word vectors can be larger than the memory.

    A line ends only at \\n or \\r\\n, not at the further characters that Unicode counts as line ends.

    Parameters
    ----------
    path : UTF-8, also compressed with gzip (recognised by its first bytes); a byte order mark is skipped

    Raises
    ------
    ValueError
        if there is text that is not UTF-8, a line longer than LONGEST_LINE, an empty file, or a gzip file that is broken or
        unpacks to more than `packed.most_unpacked`; the message names the file and the line, and is raised when this line is
        reached
    OSError
        if the file cannot be read
    """
    number = 0
    if wrong := never_downloaded(path):
        raise ValueError(f"{path}: {wrong}")
    with Path(path).open("rb") as raw:
        mark = raw.read(3)
        raw.seek(0)
        packed = mark.startswith(b"\x1f\x8b")
        if Path(path).suffix == ".gz" and not packed:
            raise ValueError(f"{path} is named .gz but does not begin as gzip does; is it unpacked already, or an "
                             "error page?")
        file = gzip.GzipFile(fileobj=raw) if packed else raw
        most, unpacked = most_unpacked(path) if packed else math.inf, 0
        try:
            for row in iter(partial(file.readline, LONGEST_LINE + 1), b""):         # split at \n only
                number += 1
                unpacked += len(row)
                if len(row) > LONGEST_LINE:
                    raise ValueError(f"{path}, line {number}: is longer than {LONGEST_LINE} bytes; expected a sentence, or a "
                                     "word and its vector: is it text? Break the line")
                if unpacked > most:
                    raise ValueError(f"{path}, line {number}: unpacked, it has more than {most} bytes, {MOST_TIMES} times the "
                                     "packed file; if you trust it, unpack it first, with gunzip")
                if number == 1:
                    row = row.removeprefix(b"\xef\xbb\xbf")
                    if row.startswith((b"\xff\xfe", b"\xfe\xff")):
                        raise ValueError(f"{path}, line 1: is UTF-16, by its first two bytes; save it as UTF-8")
                yield _decoded(path, number, row).rstrip("\r\n")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}, after line {number}: the gzip file is broken ({error}); was its download cut "
                             "off?") from error
    if not number:
        raise ValueError(f"{path} is empty; expected text")


def _decoded(path, number, row):
    try:
        return row.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number}: is not UTF-8 ({error.reason}, byte 0x{row[error.start]:02x} at "
                         f"{error.start}); Chinese files may be GB18030, German ones Latin-1: convert it, for example "
                         "with iconv") from error
