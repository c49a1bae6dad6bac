"""Sentence pairs from files: two parallel text files, or one with tabs.

Bad data is common, and its effect is noticed late: one missing line in one of two parallel files shifts all pairs after it, and
a model trains on them without any error. So everything is checked here, and an error names the file and the line.
"""
import gzip
import itertools
import math
import re
import warnings
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
        if there is text that is not UTF-8, lines that are empty in one file alone, an unequal number of lines, an empty file or
        a broken gzip file; the message names the file and the lines. Lines that are empty in both are left out, with a warning
    OSError
        if a file cannot be read
    """
    paths = (source_path, target_path)
    pairs, empty, counts, neither = [], ([], []), [0, 0], 0
    for number, lines in enumerate(itertools.zip_longest(*map(read_lines, paths)), 1):
        sides = ["" if line is None else line.strip() for line in lines]
        counts = [count if line is None else number for count, line in zip(counts, lines, strict=True)]
        if all(sides):
            pairs.append(tuple(sides))
        elif any(sides):
            empty[sides.index("")].append(number)
        else:
            neither += 1                                        # counted, not collected: a small packed file can have millions
    if counts[0] != counts[1]:
        raise ValueError(f"{source_path} has {counts[0]} lines and {target_path} has {counts[1]}: line n of "
                         f"one must be the translation of line n of the other, and line {min(counts) + 1} "
                         "has none. Was a line lost, or is a file cut off?")
    for path, lines in zip(paths, empty, strict=True):
        if lines:
            raise ValueError(f"{path}, {_numbered(lines)} empty, with a sentence in the other file; remove them from both")
    return _without_empty(pairs, neither, source_path)


def _numbered(numbers):
    """Lines by their numbers, at most thirty: "lines 3, 7 are"."""
    shown = ", ".join(map(str, numbers[:30])) + (f" and {len(numbers) - 30} more" if len(numbers) > 30 else "")
    return f"line {shown}: is" if len(numbers) == 1 else f"lines {shown}: are"


def _without_empty(pairs, neither, path):
    """The pairs, with a warning if lines were left out because both sides are empty."""
    if not pairs:
        raise ValueError(f"{path}: has only empty lines; expected sentences")
    if neither:
        warnings.warn(f"{path}: {neither} lines that are empty on both sides are left out", stacklevel=3)
    return pairs


def read_tsv(path: Path | str) -> list[tuple[str, str]]:
    """Pairs from the first two columns of a file with tabs, such as those of Tatoeba (English, Chinese, attribution).

    Parameters
    ----------
    path : UTF-8, also compressed with gzip; a byte order mark is skipped

    Raises
    ------
    ValueError
        if there is text that is not UTF-8, an empty field, a single column, an empty file or a broken gzip file; the message
        names the file and the lines. Empty lines are left out, with a warning
    OSError
        if the file cannot be read
    """
    pairs, empty, neither = [], ([], []), 0
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            neither += 1
            continue
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) < 2:
            raise ValueError(f"{path}, line {number}: has 1 column, but a source and a target are expected; are the columns "
                             f"separated by spaces or commas instead of tabs? {line[:60]!r}")
        for field, lines in zip(fields, empty, strict=False):
            if not field:
                lines.append(number)
        pairs.append((fields[0], fields[1]))
    for lines, column in zip(empty, ("first", "second"), strict=True):
        if lines:
            raise ValueError(f"{path}, {_numbered(lines)} empty in the {column} column; expected a sentence")
    return _without_empty(pairs, neither, path)


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
                if b"\0" in row:
                    raise ValueError(f"{path}, line {number}: holds a byte of 0, as no text does: {_with_zeros(row)}")
                yield _decoded(path, number, row).rstrip("\r\n")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}, after line {number}: the gzip file is broken ({error}); was its download cut "
                             "off?") from error
    if not number:
        raise ValueError(f"{path} is empty; expected text")


def _with_zeros(row):
    """What a line with bytes of 0 could be."""
    half = len(row) // 2
    for first, name in ((0, "UTF-16 (big-endian)"), (1, "UTF-16 (little-endian)")):
        if half and row[first::2].count(0) > half / 4:
            return f"it is {name} without a byte order mark; save it as UTF-8"
    return "is it a binary file, or damaged?"


def _decoded(path, number, row):
    try:
        return row.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number}: is not UTF-8 ({error.reason}, byte 0x{row[error.start]:02x} at "
                         f"{error.start}); {_encoding(row)}: convert it, for example with iconv") from error


def _encoding(row):
    """What a line that is not UTF-8 could be, in words."""
    runs = re.findall(rb"[\x80-\xff]+", row)                     # a usual Chinese character has two such bytes, an umlaut one
    name, where = ("gb18030", "Chinese") if all(len(run) % 2 == 0 for run in runs) else ("latin-1", "Western Europe")
    return f"it could be {name} ({where}), in which it reads {row.decode(name, 'replace')[:20]!r}"
