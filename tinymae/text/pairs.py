"""Sentence pairs from files: two parallel files, or one with tabs.

Bad data is common and fails late: a line lost in one of two parallel files shifts all pairs after it, and a model
learns from them without complaint. So whatever is read here is checked, and an error names the file and the line.
"""
import gzip
import zlib
from pathlib import Path


def read_parallel(source_path, target_path):
    """Pairs from two text files: line n of one is the translation of line n of the other.

    Parameters
    ----------
    source_path, target_path : str or Path, UTF-8, also packed with gzip; a byte order mark is skipped

    Returns
    -------
    pairs : list of (str, str)

    Raises
    ------
    ValueError
        for text that is not UTF-8, an empty line, unequal numbers of lines, an empty file or a broken gzip file,
        with the file and the line
    OSError
        when a file cannot be read
    """
    sides = [[line.strip() for line in read_lines(path)] for path in (source_path, target_path)]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"{source_path} has {len(sides[0])} lines and {target_path} has {len(sides[1])}: line n of "
                         f"one must be the translation of line n of the other, and line {min(map(len, sides)) + 1} "
                         "has none. Was a line lost, or is a file cut off?")
    for path, lines in zip((source_path, target_path), sides, strict=True):
        for number, line in enumerate(lines, 1):
            if not line:
                raise ValueError(f"{path}, line {number}: is empty; expected a sentence. Remove the line from both "
                                 "files")
    return list(zip(*sides, strict=True))


def read_tsv(path, columns=(0, 1)):
    """Pairs from a file with columns between tabs, such as those of Tatoeba (English, Chinese, attribution).

    Parameters
    ----------
    path : str or Path, UTF-8, also packed with gzip; a byte order mark is skipped
    columns : (int, int), the columns of source and target, counted from 0: (1, 0) reads Tatoeba as Chinese -> English

    Returns
    -------
    pairs : list of (str, str)

    Raises
    ------
    ValueError
        for text that is not UTF-8, an empty line or field, too few columns, an empty file or a broken gzip file,
        with the file and the line; for columns that are not two different ones
    OSError
        when the file cannot be read
    """
    columns = tuple(columns)
    if len(columns) != 2 or columns[0] == columns[1] or min(columns) < 0:
        raise ValueError(f"columns are {columns}; expected two different ones, counted from 0")
    pairs = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            raise ValueError(f"{path}, line {number}: is empty; expected columns between tabs. Remove the line")
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) <= max(columns):
            raise ValueError(f"{path}, line {number}: has {len(fields)} column(s), and column {max(columns)} (from "
                             f"0) is wanted; are the columns between tabs, not spaces or commas? {line[:60]!r}")
        for column in columns:
            if not fields[column]:
                raise ValueError(f"{path}, line {number}: column {column} (from 0) is empty; expected a sentence")
        pairs.append((fields[columns[0]], fields[columns[1]]))
    return pairs


def read_lines(path):
    """The lines of a text file without their ends, one at a time: word vectors can be larger than the memory.

    A line ends at \\n or \\r\\n only, not at the other signs that Unicode counts as ends.

    Parameters
    ----------
    path : str or Path, UTF-8, also packed with gzip (known by its first bytes); a byte order mark is skipped

    Yields
    ------
    line : str

    Raises
    ------
    ValueError
        for text that is not UTF-8, an empty file or a broken gzip file, with the file and the line; each when it is reached
    OSError
        when the file cannot be read
    """
    number = 0
    with Path(path).open("rb") as raw:
        mark = raw.read(3)
        raw.seek(0)
        packed = mark.startswith(b"\x1f\x8b")
        if Path(path).suffix == ".gz" and not packed:
            raise ValueError(f"{path} is named .gz but does not begin as gzip does; is it unpacked already, or an "
                             "error page?")
        try:
            for row in gzip.GzipFile(fileobj=raw) if packed else raw:       # cut at \n only, not at signs inside a line
                number += 1
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
                         f"{error.start}); Chinese files may be GB18030, German ones Latin-1: convert it, say with "
                         "iconv") from error
