"""Whole files or none: a file appears under its name only when it is complete."""
import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tinymae.messages import message as _


@contextmanager
def whole_file(path: Path | str) -> Iterator[BinaryIO]:
    """A binary file to write to, which receives its name when the block ends without an error.

    It is written to the same folder under a temporary name, flushed to the disk, and renamed. After an error, the old file is
    unchanged and the temporary file is deleted. A missing folder is created.

    Raises
    ------
    OSError
        if the folder cannot be created or written to, or path is a folder
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error            # a full disk names no file
        raise


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of `whole_file` that killed processes left in a folder."""
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\..+\.[0-9a-f]{32}\.tmp", path.name):
            path.unlink(missing_ok=True)


def never_downloaded(path: Path | str) -> str | None:
    """What a file is, by its first bytes, if the data that should be there was never downloaded; or None."""
    with Path(path).open("rb") as file:
        start = file.read(1 << 10)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        return _("a Git LFS pointer, not the data itself: run git lfs pull in its folder")
    if re.match(rb"<(!doctype|html|head|body|\?xml|!--)", text, re.IGNORECASE):
        return _("a web page, not the data itself: download the file, not the page about it; does it ask you to log in?")
    if re.match(rb"""\{\s*"(error|message|detail|errors|status|code)"\s*:""", text):
        return _("a message of a server, not the data itself: {text!r}", text=text[:80].decode("utf-8", "replace"))
    return None


def visible(text: str) -> str:
    """A text for a terminal: what is neither a letter nor a sign nor a line break is escaped, as in `repr`."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def fingerprint(parts: Iterable[bytes | str]) -> str:
    """16 hexadecimal digits that stand for some data: equal for equal parts in the same order, different for all others."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        digest.update(len(part).to_bytes(8, "little"))          # or ["ab", "c"] would be ["a", "bc"]
        digest.update(part)
    return digest.hexdigest()
