"""Packed files, .gz and .npz: how much they may unpack to, and whether an archive has what it claims.

A megabyte of zeros packs into a kilobyte, so a small file can fill the memory. Data sets and weights shrink to a half or a
tenth, so the limit is far above them. A file that is not packed has no limit.
"""
import math
import zipfile
from pathlib import Path

import numpy as np

from tinymae.messages import message as _

MOST_TIMES = 32             # MNIST shrinks to a fifth, text to a third, trained weights not at all
ALWAYS_ALLOWED = 1 << 24    # bytes: small files may shrink to anything


def most_unpacked(path: Path | str) -> int:
    """The number of bytes that a packed file may unpack to."""
    return max(MOST_TIMES * Path(path).stat().st_size, ALWAYS_ALLOWED)


def check_npz(path: Path | str, key: str | None = None) -> None:
    """Compare what an .npz archive claims with the file, before its arrays take memory.

    Parameters
    ----------
    path : the archive
    key : of the only array to compare; None for all

    Raises
    ------
    ValueError
        if it unpacks to more than `most_unpacked`, an array claims more bytes than it has, or it is packed in another way than
        by np.savez_compressed
    zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError
        if it is damaged, as zipfile raises them
    """
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if key is None or member.filename == f"{key}.npy"]
        if (unpacked := sum(member.file_size for member in members)) > (most := most_unpacked(path)):
            raise ValueError(_("it unpacks to {unpacked} bytes, expected at most {most}, {times} times its size: if you "
                               "trust it, write it again with np.savez, which does not compress",
                               unpacked=unpacked, most=most, times=MOST_TIMES))
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):      # others claim memory, too
                raise ValueError(_("{filename!r} in it is packed in a way that np.savez_compressed does not have",
                                   filename=member.filename))
            with archive.open(member) as file:
                if file.read(6) == np.lib.format.MAGIC_PREFIX:
                    _check_array(file, member)


def _check_array(file, member):
    version = tuple(file.read(2))
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in headers:
        raise ValueError(_("{filename!r} in it has the .npy version {version}, expected 1.0 or 2.0, as of np.savez",
                           filename=member.filename, version=version))
    shape, _order, dtype = headers[version](file)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > member.file_size and not dtype.hasobject:
        raise ValueError(_("{filename!r} in it claims {shape} of {dtype}, {claimed} bytes, and has {file_size}",
                           filename=member.filename, shape=shape, dtype=dtype, claimed=claimed, file_size=member.file_size))
