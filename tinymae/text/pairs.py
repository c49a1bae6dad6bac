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
from tinymae.messages import marked, translated
from tinymae.messages import message as _
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
        raise ValueError(_("{source_path} has {first} lines and {target_path} has {second}: line n of one must be the "
                           "translation of line n of the other, and line {missing} has none. Was a line lost, or is a file "
                           "cut off?",
                           source_path=source_path, first=counts[0], target_path=target_path, second=counts[1],
                           missing=min(counts) + 1))
    for path, lines in zip(paths, empty, strict=True):
        if lines:
            raise ValueError(_("{path}, {lines} empty, with a sentence in the other file; remove them from both",
                               path=path, lines=_numbered(lines)))
    return _without_empty(pairs, neither, source_path)


def _numbered(numbers):
    """Lines by their numbers, at most thirty: "lines 3, 7 are"."""
    shown = ", ".join(map(str, numbers[:30]))
    if len(numbers) == 1:
        return _("line {number}: is", number=shown)
    if len(numbers) > 30:
        shown = _("{some} and {count} more", some=shown, count=len(numbers) - 30)
    return _("lines {numbers}: are", numbers=shown)


def _without_empty(pairs, neither, path):
    """The pairs, with a warning if lines were left out because both sides are empty."""
    if not pairs:
        raise ValueError(_("{path}: has only empty lines; expected sentences", path=path))
    if neither:
        warnings.warn(_("{path}: {neither} lines that are empty on both sides are left out",
                        path=path, neither=neither), stacklevel=3)
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
            raise ValueError(_("{path}, line {number}: has 1 column, but a source and a target are expected; are the columns "
                               "separated by spaces or commas instead of tabs? {text!r}",
                               path=path, number=number, text=line[:60]))
        for field, lines in zip(fields, empty, strict=False):
            if not field:
                lines.append(number)
        pairs.append((fields[0], fields[1]))
    for lines, column in zip(empty, (marked("first"), marked("second")), strict=True):
        if lines:
            raise ValueError(_("{path}, {lines} empty in the {column} column; expected a sentence",
                               path=path, lines=_numbered(lines), column=translated(column)))
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
        raise ValueError(_("{file}: {reason}", file=path, reason=wrong))
    with Path(path).open("rb") as raw:
        mark = raw.read(3)
        raw.seek(0)
        packed = mark.startswith(b"\x1f\x8b")
        if Path(path).suffix == ".gz" and not packed:
            raise ValueError(_("{path} is named .gz but does not begin as gzip does; is it unpacked already, or an error page?",
                               path=path))
        file = gzip.GzipFile(fileobj=raw) if packed else raw
        most, unpacked = most_unpacked(path) if packed else math.inf, 0
        try:
            for row in iter(partial(file.readline, LONGEST_LINE + 1), b""):         # split at \n only
                number += 1
                unpacked += len(row)
                if len(row) > LONGEST_LINE:
                    raise ValueError(_("{path}, line {number}: is longer than {most} bytes; expected a sentence, or a "
                                       "word and its vector: is it text? Break the line",
                                       path=path, number=number, most=LONGEST_LINE))
                if unpacked > most:
                    raise ValueError(_("{path}, line {number}: unpacked, it has more than {most} bytes, {times} times "
                                       "the packed file; if you trust it, unpack it first, with gunzip",
                                       path=path, number=number, most=most, times=MOST_TIMES))
                if number == 1:
                    row = row.removeprefix(b"\xef\xbb\xbf")
                    if row.startswith((b"\xff\xfe", b"\xfe\xff")):
                        raise ValueError(_("{path}, line 1: is UTF-16, by its first two bytes; save it as UTF-8", path=path))
                if b"\0" in row:
                    raise ValueError(_("{path}, line {number}: holds a byte of 0, as no text does: {cause}",
                                       path=path, number=number, cause=_with_zeros(row)))
                yield _decoded(path, number, row).rstrip("\r\n")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(_("{path}, after line {number}: the gzip file is broken ({error}); was its download cut off?",
                               path=path, number=number, error=error)) from error
    if not number:
        raise ValueError(_("{path} is empty; expected text", path=path))


def _with_zeros(row):
    """What a line with bytes of 0 could be."""
    half = len(row) // 2
    for first, name in ((0, "UTF-16 (big-endian)"), (1, "UTF-16 (little-endian)")):
        if half and row[first::2].count(0) > half / 4:
            return _("it is {name} without a byte order mark; save it as UTF-8", name=name)
    return _("is it a binary file, or damaged?")


def _decoded(path, number, row):
    try:
        return row.decode()
    except UnicodeDecodeError as error:
        raise ValueError(_("{path}, line {number}: is not UTF-8 ({reason}, byte 0x{byte:02x} at {start}); {cause}: convert "
                           "it, for example with iconv",
                           path=path, number=number, reason=error.reason, byte=row[error.start], start=error.start,
                           cause=_encoding(row))) from error


def _encoding(row):
    """What a line that is not UTF-8 could be, in words."""
    runs = re.findall(rb"[\x80-\xff]+", row)                     # a usual Chinese character has two such bytes, an umlaut one
    chinese = all(len(run) % 2 == 0 for run in runs)
    name, where = ("gb18030", marked("Chinese")) if chinese else ("latin-1", marked("Western Europe"))
    return _("it could be {name} ({where}), in which it reads {text!r}",
             name=name, where=translated(where), text=row.decode(name, "replace")[:20])
