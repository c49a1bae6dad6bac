"""Every source ends as the same kind of picture, and a file that is not what it says is an error that names it."""
import gzip
import io
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from fractions import Fraction

import numpy as np
import PIL
import pytest
import sklearn.datasets
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from tinymae import packed
from tinymae.images import load, sources
from tinymae.images.crops import picture_bank, unseen_crops
from tinymae.images.dead_leaves import dead_leaves
from tinymae.images.labelled import load_labelled
from tinymae.images.load import load_picture
from tinymae.images.pixels import to_picture, to_pixels
from tinymae.images.resize import resize_picture
from tinymae.images.sources import find_source, load_images, unseen_photo, unseen_photos


def numbers(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx_bytes(array, kind=0x08):
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def assert_pictures(pictures, expected):
    """A list of uint8 (rows, cols, C) that the caller may write into."""
    assert isinstance(pictures, list) and len(pictures) == len(expected)
    for picture, array in zip(pictures, expected, strict=True):
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.flags.writeable
        np.testing.assert_array_equal(picture, array)


# Sources that scikit-learn and scikit-image bring


def test_photos():
    photos = load_images("photos")
    assert len(photos) == 11 and [photo.shape for photo in photos[:2]] == [(427, 640, 3)] * 2
    assert all(photo.dtype == np.uint8 and photo.flags.writeable and photo.shape[2] == 3 for photo in photos)
    assert all(200 < min(photo.shape[:2]) <= max(photo.shape[:2]) <= 800 for photo in photos)
    sky, flower = photos[0][:50].mean(axis=(0, 1)), photos[1][180:260, 280:360].mean(axis=(0, 1))
    assert sky[2] > 150                                         # china.jpg: bright sky on top
    assert flower[0] > flower[2]                                # flower.jpg: red-orange in the middle


def test_digits():
    """In a fixed order of our own: the file's last fifth is by other writers than the rest."""
    digits = load_images("digits")
    assert len(digits) == 1797
    order = np.random.default_rng(0).permutation(1797)
    assert sorted(order.tolist()) == list(range(1797))
    for i in (0, 5, 1796):
        raw = sklearn.datasets.load_digits().images[order[i]]
        for row in range(8):
            for col in range(8):
                assert digits[i][row, col, 0] == round(raw[row, col] * 255 / 16)
    assert digits[0].shape == (8, 8, 1) and digits[0].dtype == np.uint8
    assert max(digit.max() for digit in digits) == 255


# OpenML, with the download replaced


def fake_openml(monkeypatch, rows=None, error=None):
    def fetch(name, *, as_frame):
        assert name == "thing" and as_frame is False
        if error is not None:
            raise error
        return sklearn.utils.Bunch(data=rows)

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)


def test_openml_grey(monkeypatch):
    pictures = numbers((4, 5, 5, 1))
    fake_openml(monkeypatch, pictures.reshape(4, 25).astype(np.float64))
    assert_pictures(load_images("openml:thing"), pictures)


def test_openml_colour_is_planar(monkeypatch):
    pictures = numbers((3, 4, 4, 3))
    rows = [np.concatenate([picture[..., c].ravel() for c in range(3)]) for picture in pictures]
    fake_openml(monkeypatch, np.array(rows, dtype=np.int64))
    assert_pictures(load_images("openml:thing"), pictures)


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError("slow"), ValueError("no such dataset")])
def test_openml_failure_says_network(monkeypatch, error):
    fake_openml(monkeypatch, error=error)
    with pytest.raises(OSError, match=rf"'thing'.*{error}.*one source that needs the network") as caught:
        load_images("openml:thing")
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(("rows", "message"), [
    (np.zeros((3, 26)), "rows of 26 values; expected S\\*S"),
    (np.zeros((3, 24)), "rows of 24 values"),
    (np.full((3, 25), -1.0), "-1.0 to -1.0; expected whole numbers"),
    (np.full((3, 25), 256), "256 to 256; expected whole numbers"),
    (np.full((3, 25), 0.5), "expected whole numbers"),
    (np.full((3, 25), np.nan), "expected whole numbers"),
    (np.full((3, 25), "cat", dtype=object), "not a dense table"),
    (np.zeros((0, 25)), "not a dense table"),
    (np.zeros(25), "not a dense table"),
    ([[1, 2]], "not a dense table"),
])
def test_openml_that_is_not_pictures(monkeypatch, rows, message):
    fake_openml(monkeypatch, rows)
    with pytest.raises(ValueError, match=f"openml:thing.*{message}"):
        load_images("openml:thing")


# Paths


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_missing_path_lists_the_sources(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*'photos', 'digits', 'openml:NAME'"):
        load_images(kind(tmp_path / "nowhere"))


@pytest.mark.parametrize("source", [None, 3, b"photos", np.zeros(3)])
def test_source_of_another_type(source):
    with pytest.raises(TypeError, match=f"data is a {type(source).__name__}.*'photos'"):
        load_images(source)


def test_the_messages_name_every_source():
    """They are sentences for translation, so they cannot be made from the table."""
    for name, source in sources.SOURCES.items():
        assert repr(name) in sources.KNOWN_IMAGES
        assert (repr(name) in sources.KNOWN_LABELLED) == (source.load_labels is not None)


def test_a_path_called_digits_is_not_the_digits(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    Image.fromarray(numbers((3, 4, 3))).save(tmp_path / "digits" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert_pictures(load_images("./digits"), [numbers((3, 4, 3))])


def test_folder(tmp_path):
    expected = [numbers((4 + i, 7, 3), seed=i) for i in range(3)]
    for name, array in zip(["a.png", "b.PNG", "c.bmp"], expected, strict=True):
        Image.fromarray(array).save(tmp_path / name)
    for hidden in (".DS_Store", "Thumbs.db", "desktop.ini", "._a.png"):
        (tmp_path / hidden).write_bytes(b"no picture")
    (tmp_path / "folder.png").mkdir()
    assert_pictures(load_images(tmp_path), expected)
    assert_pictures(load_images(str(tmp_path)), expected)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.warns(UserWarning, match=r"1 files are skipped, whose names are not those of images: notes\.txt"):
        assert_pictures(load_images(tmp_path), expected)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG", ".avif", ".jp2", ".dib", ".tga", ".pbm"])
def test_names_of_images(tmp_path, suffix):
    format = Image.registered_extensions()[suffix.lower()]
    if format not in Image.SAVE or (format == "AVIF" and not features.check("avif")):
        pytest.skip(f"this Pillow writes no {format}")
    Image.new("1" if suffix == ".pbm" else "RGB", (8, 6), 1).save(tmp_path / f"a{suffix}")
    assert load_images(tmp_path)[0].shape == (6, 8, 3)


def test_every_name_of_an_image_is_one_that_pillow_reads():
    Image.init()
    assert {Image.registered_extensions()[suffix] for suffix in sources.PICTURE_SUFFIXES} <= Image.OPEN.keys()


def class_folders(folder, count=10):
    for number, name in enumerate(("cat", "dog")):
        (folder / name / "more").mkdir(parents=True)
        for i in range(count):
            array = np.full((6, 6 + i % 2, 3), 100 * number + i, np.uint8)
            Image.fromarray(array).save(folder / name / ("more" if i % 2 else "") / f"{i}.png")
        (folder / name / "._0.png").write_bytes(b"of macOS")
    return folder


def test_folders_of_classes(tmp_path):
    """The name of the folder is the class; always in the same mixed order, so that the last fifth has every class."""
    folder = class_folders(tmp_path)
    assert len(load_images(folder)) == 20
    with pytest.warns(UserWarning, match="several sizes: the centre of each is scaled to 6 x 6"):
        data = load_labelled(folder)
    assert data.names == ("cat", "dog") and data.images.shape == (20, 6, 6, 3)
    np.testing.assert_array_equal(data.labels, data.images[:, 0, 0, 0] >= 100)
    assert sorted(data.images[:, 0, 0, 0].tolist()) == [*range(10), *range(100, 110)]
    with pytest.warns(UserWarning):
        np.testing.assert_array_equal(load_labelled(folder).images, data.images)
    assert {len(set(part.labels.tolist())) for part in data.split()} == {2}


def test_folders_that_are_no_classes(tmp_path):
    class_folders(tmp_path / "train")
    class_folders(tmp_path / "val")
    with pytest.raises(ValueError, match=r"has the parts train, val of a data set, not classes: give .*train"):
        load_labelled(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "train" / "loose.png")
    with pytest.raises(ValueError, match=r"every image in a folder with the name of its class, loose\.png is in none"):
        load_labelled(tmp_path / "train")
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "flat" / "a.png")
    with pytest.raises(ValueError, match=r"images without labels; expected .* a folder of images for each class"):
        load_labelled(tmp_path / "flat")


def test_transposed_idx(tmp_path):
    array = numbers((4, 3, 5))
    (tmp_path / "emnist-images-idx3-ubyte").write_bytes(idx_bytes(array))
    (tmp_path / "emnist-labels-idx1-ubyte").write_bytes(idx_bytes(np.array([0, 1, 0, 1], np.uint8)))
    source = f"transposed:{tmp_path / 'emnist-images-idx3-ubyte'}"
    assert_pictures(load_images(source), list(array.swapaxes(1, 2)[..., None]))
    assert load_labelled(source).labels.tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"expected an IDX file after transposed:, .* got a folder"):
        load_images(f"transposed:{tmp_path}")


@pytest.mark.parametrize("packed", [False, True])
def test_labels_of_qmnist(tmp_path, packed):
    """Eight int32 for each image: the class, then who wrote it."""
    pack = gzip.compress if packed else bytes
    (tmp_path / "qmnist-train-images-idx3-ubyte").write_bytes(idx_bytes(numbers((4, 3, 5))))
    wide = (np.arange(32) % 16).reshape(4, 8).astype(">i4")
    name = "qmnist-train-labels-idx2-int" + (".gz" if packed else "")
    (tmp_path / name).write_bytes(pack(b"\0\0\x0c\x02" + struct.pack(">2I", 4, 8) + wide.tobytes()))
    data = load_labelled(tmp_path / "qmnist-train-images-idx3-ubyte")
    assert data.labels.tolist() == [0, 1, 0, 1] and data.names == ("0", "8")
    images = tmp_path / "images-of-integers"
    images.write_bytes(b"\0\0\x0c\x03" + struct.pack(">3I", 1, 1, 1) + bytes(4))
    with pytest.raises(ValueError, match=r"type 0x0c, integers; expected 0x08"):
        load_images(images)


def test_empty_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"no images.*\.jpg.*\.png") as caught:
        load_images(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_folder_with_a_broken_picture(tmp_path):
    Image.fromarray(numbers((4, 4, 3))).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"not a jpeg")
    with pytest.raises(ValueError, match=r"b\.jpg.*cannot identify"):
        load_images(tmp_path)


# IDX


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 3, 5, 1), (4, 3, 5, 3)])
def test_idx(tmp_path, shape, packed):
    array = numbers(shape)
    path = tmp_path / "train-images"
    path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    assert_pictures(load_images(path), array.reshape(4, 3, 5, -1))


def test_idx_unpacked_under_a_gz_name(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(idx_bytes(numbers((2, 3, 3))))
    assert_pictures(load_images(path), numbers((2, 3, 3))[..., None])


GOOD_IDX = idx_bytes(numbers((4, 3, 5)))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("data", "message"), [
    (b"", "starts with nothing"),
    (b"\0\0\x08", "starts with 00 00 08"),
    (b"\x89PNG" + GOOD_IDX[4:], "starts with 89 50 4e 47.*load_picture"),
    (idx_bytes(numbers((4, 3, 5)), kind=0x0D), "type 0x0d; expected 0x08, unsigned bytes, or 0x0c"),
    (idx_bytes(numbers((9,))), "holds labels"),
    (idx_bytes(numbers((4, 3))), "2 axes"),
    (idx_bytes(numbers((1, 1, 1, 1, 1))), "5 axes"),
    (GOOD_IDX[:12], "cut short: 12 bytes, but the header alone takes 16"),
    (GOOD_IDX[:-1], "cut short: the header says \\(4, 3, 5\\), 76 bytes in all; found 75"),
    (GOOD_IDX + b"\0", "left over.*76 bytes in all; found 77"),
    (bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"\1", "cut short"),
    (idx_bytes(numbers((0, 3, 5))), "no images: shape \\(0, 3, 5\\)"),
    (idx_bytes(numbers((4, 3, 5, 2))), "2 channels; expected 1 or 3"),
    (idx_bytes(numbers((4, 3, 5, 7))), "7 channels; expected 1 or 3.*PyTorch"),
])
def test_idx_errors(tmp_path, data, message, packed):
    path = tmp_path / "train-images"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(ValueError, match=f"train-images: .*{message}"):
        load_images(path)


@pytest.mark.parametrize("kept", [3, 12, -9, -1])
def test_idx_in_a_truncated_gzip(tmp_path, kept):
    path = tmp_path / "train-images.gz"
    path.write_bytes(gzip.compress(GOOD_IDX)[:kept])
    with pytest.raises(ValueError, match=r"train-images\.gz: gzip file cut short or damaged"):
        load_images(path)


def test_idx_in_a_damaged_gzip(tmp_path):
    data = bytearray(gzip.compress(GOOD_IDX))
    data[-6] ^= 1                                               # in the checksum
    path = tmp_path / "train-images.gz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        load_images(path)


class Counted(io.BytesIO):
    """A file that knows how much of it was read."""

    def read(self, size=-1):
        data = super().read(size)
        self.count = getattr(self, "count", 0) + len(data)
        return data


def test_idx_that_unpacks_to_more_than_it_may(tmp_path, monkeypatch):
    """Refused by its header, before the zeros are unpacked; unpacked first, it is read."""
    monkeypatch.setattr(packed, "ALWAYS_ALLOWED", 1 << 16)
    array = np.zeros((100, 100, 100), np.uint8)
    path = tmp_path / "train-images.gz"
    path.write_bytes(gzip.compress(idx_bytes(array)))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"train-images\.gz: .*\(100, 100, 100\), 1000016 bytes .* at most 65536, 32 .*gunzip"):
        load_images(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000
    path.write_bytes(idx_bytes(array))
    assert_pictures(load_images(path), array[..., None])
    noise = numbers((50, 60, 60))                               # packed, but hardly smaller
    path.write_bytes(gzip.compress(idx_bytes(noise)))
    assert_pictures(load_images(path), noise[..., None])


def test_idx_is_read_no_further_than_its_header_says(tmp_path):
    file = Counted(GOOD_IDX + bytes(10**6))
    (tmp_path / "images.gz").touch()
    with pytest.raises(ValueError, match=r"left over.*76 bytes in all; found 77 or more"):
        sources._idx_values(tmp_path / "images.gz", file, None)
    assert file.count == 77


# npz


def test_npz_that_claims_more_than_it_has(tmp_path, monkeypatch):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("images.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 1000, 1000)})
    with pytest.raises(ValueError, match=r"data\.npz: its images cannot be read .*1000000000000 bytes, and has 128"):
        load_images(path)
    monkeypatch.setattr(packed, "ALWAYS_ALLOWED", 1 << 16)
    array = np.zeros((100, 100, 100), np.uint8)
    np.savez_compressed(path, images=array)
    with pytest.raises(ValueError, match=r"it unpacks to 1000128 bytes, expected at most 65536, 32 times its size.*np.savez"):
        load_images(path)
    np.savez(path, images=array)
    assert_pictures(load_images(path), array[..., None])
    np.savez_compressed(path, images=numbers((5, 8, 8)), other=array)           # only the images count
    assert_pictures(load_images(path), numbers((5, 8, 8))[..., None])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 3, 5, 1), (4, 3, 5, 3), (4, 3, 5, 16)])
def test_npz(tmp_path, shape, save):
    array = numbers(shape)
    save(tmp_path / "data.npz", images=array, labels=np.arange(4))
    assert_pictures(load_images(tmp_path / "data.npz"), array.reshape(4, 3, 5, -1))


@pytest.mark.parametrize(("arrays", "message"), [
    ({"pictures": numbers((2, 3, 3)), "y": np.arange(2)}, r"no key 'images'; found \['pictures', 'y'\]"),
    ({"images": np.zeros((2, 3, 3), np.float32)}, r"float32; expected uint8.*\* 255"),
    ({"images": np.zeros((2, 3, 3), bool)}, "bool; expected uint8"),
    ({"images": np.array([{}, {}], dtype=object)}, "cannot be read.*allow_pickle"),
    ({"images": numbers((3, 3))}, r"shape \(3, 3\); expected \(N, rows, cols\)"),
    ({"images": numbers((2, 3, 3, 3, 3))}, r"expected \(N, rows, cols\)"),
    ({"images": numbers((2, 3, 32, 32))}, r"32 channels; expected 1 to 16.*PyTorch"),
    ({"images": numbers((0, 3, 3))}, "no images"),
])
def test_npz_errors(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ValueError, match=rf"data\.npz: .*{message}"):
        load_images(tmp_path / "data.npz")


def test_npz_that_is_none(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, images=numbers((4, 3, 5)))
    good = path.read_bytes()
    np.save(tmp_path / "plain.npy", numbers((4, 3, 5)))
    for data in (b"", b"text", good[:-30], good[:len(good) // 2], (tmp_path / "plain.npy").read_bytes()):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"data\.npz: not an \.npz archive, or cut short"):
            load_images(path)


def test_npz_with_a_damaged_member(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, images=numbers((4, 30, 50)))
    data = bytearray(path.read_bytes())
    data[3000] ^= 1                                             # in the pixels: the checksum no longer fits
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"data\.npz: its images cannot be read.*CRC"):
        load_images(path)


def test_npz_with_an_empty_member(tmp_path):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"")
    with pytest.raises(ValueError, match=r"data\.npz: .*'images' is not a NumPy array"):
        load_images(path)


# One picture


def saved(tmp_path, image, suffix="png", **options):
    path = tmp_path / f"picture.{suffix}"
    image.save(path, **options)
    return path


def test_load_picture_rgb(tmp_path):
    array = numbers((6, 9, 3))
    picture = load_picture(str(saved(tmp_path, Image.fromarray(array))))
    assert_pictures([picture], [array])


def test_load_picture_grey(tmp_path):
    array = numbers((6, 9))
    expected = np.stack([array] * 3, axis=-1)
    assert_pictures([load_picture(saved(tmp_path, Image.fromarray(array)))], [expected])


def test_load_picture_black_and_white(tmp_path):
    array = numbers((6, 9)) > 127
    expected = np.stack([array * np.uint8(255)] * 3, axis=-1)
    assert_pictures([load_picture(saved(tmp_path, Image.fromarray(array)))], [expected])


def on_white(colour, alpha):
    """Loop-written: alpha parts of the colour, the rest white."""
    expected = np.empty(colour.shape)
    for row, col, c in np.ndindex(colour.shape):
        expected[row, col, c] = (alpha[row, col] * float(colour[row, col, c]) + (255 - alpha[row, col]) * 255.0) / 255
    return expected


def test_load_picture_rgba_lies_on_white(tmp_path):
    colour, alpha = numbers((6, 9, 3)), numbers((6, 9), seed=1)
    alpha[0], alpha[1] = 0, 255
    picture = load_picture(saved(tmp_path, Image.fromarray(np.dstack([colour, alpha]))))
    assert picture.shape == (6, 9, 3) and picture.dtype == np.uint8
    assert np.abs(picture - on_white(colour, alpha)).max() <= 1
    assert (picture[0] == 255).all()
    np.testing.assert_array_equal(picture[1], colour[1])


def test_load_picture_grey_with_alpha_lies_on_white(tmp_path):
    grey, alpha = numbers((6, 9)), numbers((6, 9), seed=1)
    picture = load_picture(saved(tmp_path, Image.fromarray(np.dstack([grey, alpha]))))
    assert np.abs(picture - on_white(np.stack([grey] * 3, axis=-1), alpha)).max() <= 1


def palette_image():
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8))
    image.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9], "RGB")
    return image


PALETTE_COLOURS = np.array([[[10, 20, 30], [200, 100, 50], [7, 8, 9]], [[7, 8, 9], [200, 100, 50], [10, 20, 30]]])


def test_load_picture_palette(tmp_path):
    assert_pictures([load_picture(saved(tmp_path, palette_image()))], [PALETTE_COLOURS])


@pytest.mark.parametrize(("suffix", "transparency"), [("png", 1), ("gif", 1), ("png", bytes([255, 0, 255]))])
def test_load_picture_palette_with_transparency(tmp_path, suffix, transparency):
    expected = PALETTE_COLOURS.copy()
    expected[:, 1] = 255
    path = saved(tmp_path, palette_image(), suffix, transparency=transparency)
    assert_pictures([load_picture(path)], [expected])


def test_load_picture_cmyk(tmp_path):
    cmyk = np.zeros((4, 4, 4), np.uint8)
    cmyk[0, :, 0] = 255                                         # cyan ink takes the red away
    cmyk[1, :, 3] = 255                                         # black ink
    picture = load_picture(saved(tmp_path, Image.frombytes("CMYK", (4, 4), cmyk.tobytes()), "tif"))
    assert picture[:, 0].tolist() == [[0, 255, 255], [0, 0, 0], [255, 255, 255], [255, 255, 255]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_load_picture_16_bit_is_scaled_by_its_depth(tmp_path, suffix):
    values = np.array([[0, 128, 129, 257], [30000, 65278, 65407, 65535]], np.uint16)
    path = saved(tmp_path, Image.fromarray(values), suffix)
    with Image.open(path) as image:
        assert image.mode.startswith("I;16")
    expected = [[round(int(value) / 257) for value in row] for row in values]
    assert_pictures([load_picture(path)], [np.stack([expected] * 3, axis=-1)])


@pytest.mark.parametrize("values", [
    [[0.0, 0.25, 0.75], [1.0, 1e-9, 0.1]], [[0.3, 0.3, 0.3]], [[0.001, 0.002, 0.003]],
])
@pytest.mark.parametrize("suffix", ["tif", "pfm"])
def test_load_picture_floats_go_from_0_to_1(tmp_path, values, suffix):
    picture = load_picture(saved(tmp_path, Image.fromarray(np.array(values, np.float32)), suffix))
    expected = [[[round(value * 255)] * 3 for value in row] for row in values]
    assert_pictures([picture], [np.array(expected)])


@pytest.mark.parametrize(("values", "message"), [
    (np.array([[0, 0.5, 255]], np.float32), "float image with values from 0 to 255; expected 0 .black. to 1 .white.: scale"),
    (np.array([[0.5, -0.25]], np.float32), "from -0.25 to 0.5; expected 0"),
    (np.array([[-1000, 0, 70_000]], np.int32), "integers of 32 bits, .* from -1000 to 70000; expected 8 or 16 bits.*: scale"),
])
def test_load_picture_numbers_without_a_white(tmp_path, values, message):
    with pytest.raises(ValueError, match=rf"picture\.tif: .*{message}"):
        load_picture(saved(tmp_path, Image.fromarray(values), "tif"))


@pytest.mark.parametrize("maxval", [255, 100, 1000, 65535])
@pytest.mark.parametrize("binary", [True, False])
def test_load_picture_pgm_white_is_its_maxval(tmp_path, maxval, binary):
    """It was stretched: its darkest grey black, its brightest white."""
    values = np.linspace(0.3 * maxval, 0.6 * maxval, 20).astype(int).reshape(4, 5)
    data = values.astype(">u2" if maxval > 255 else "u1").tobytes() if binary else " ".join(map(str, values.ravel())).encode()
    path = tmp_path / "grey.pgm"
    path.write_bytes(b"P%d\n5 4\n%d\n" % (5 if binary else 2, maxval) + data)
    expected = np.repeat((values / maxval * 255)[..., None], 3, axis=2)
    assert np.abs(load_picture(path) - expected).max() <= 0.51


NEW_PILLOW = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 12, reason="Pillow 10 cannot decode such a file")


def retagged(path, tag, old, new):
    """A little-endian TIFF with a tag of one short number changed."""
    before, after = (struct.pack("<HHIHH", tag, 3, 1, value, 0) for value in (old, new))
    data = path.read_bytes()
    assert data[:2] == b"II" and data.count(before) == 1
    path.write_bytes(data.replace(before, after))
    return path


def test_load_picture_12_bit_tiff(tmp_path):
    values = np.array([[0, 8, 9, 2047], [2048, 4086, 4087, 4095]])
    path = saved(tmp_path, Image.fromarray(values.astype(np.uint16)), "tif")
    packed = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in values.reshape(-1, 2).tolist())
    data = path.read_bytes()
    assert data.count(values.astype("<u2").tobytes()) == 1
    path.write_bytes(data.replace(values.astype("<u2").tobytes(), packed + bytes(4)))
    picture = load_picture(retagged(path, 258, 16, 12))
    assert_pictures([picture], [np.repeat(np.rint(values / 4095 * 255)[..., None], 3, axis=2)])


@pytest.mark.parametrize("values", [
    np.array([[0, 255, 3]], np.uint8), np.array([[0, 65535, 771]], np.uint16), np.array([[0, 1, 3 / 255]], np.float32),
])
def test_load_picture_tiff_in_which_0_is_white(tmp_path, values):
    path = retagged(saved(tmp_path, Image.fromarray(values), "tif"), 262, 1, 0)
    assert load_picture(path)[..., 0].tolist() == [[255, 0, 252]]


@NEW_PILLOW
def test_load_picture_premultiplied_grey(tmp_path):
    """La: grey times opacity."""
    stored = np.array([[[50, 100], [100, 100], [0, 0], [255, 255]]], np.uint8)
    path = retagged(saved(tmp_path, Image.fromarray(stored, "LA"), "tif"), 338, 2, 1)
    with Image.open(path) as image:
        assert image.mode == "La"
    assert np.abs(load_picture(path)[..., 1] - np.array([[205, 255, 255, 255]], int)).max() <= 1        # 50 + (255 - 100)


@NEW_PILLOW
def test_load_picture_ycbcr(tmp_path):
    picture = load_picture(saved(tmp_path, Image.frombytes("YCbCr", (2, 1), bytes([76, 85, 255, 90, 128, 128])), "tif"))
    assert np.abs(picture[0] - np.array([[254, 0, 0], [90, 90, 90]])).max() <= 1


def test_load_picture_cmyk_jpeg(tmp_path):
    """Such files hold the inks inverted."""
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.abs(load_picture(saved(tmp_path, inks, "jpg", quality=95)) - np.array([0, 255, 255])).max() <= 3


def png_bytes(width, depth, kind, row, *chunks):
    """One row of a PNG, as Pillow writes none: with few or many bits and one transparent colour."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0)), *chunks,
              (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    whole = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


@pytest.mark.parametrize(("depth", "kind", "row", "transparent", "expected"), [
    (1, 0, b"\x30", b"\0\0", [255, 255, 255, 255]),
    (2, 0, b"\x1b", b"\0\2", [0, 85, 255, 255]),
    (4, 0, b"\x03\x5f", b"\0\3", [0, 255, 85, 255]),
    (8, 0, b"\0\3\5\7", b"\0\3", [0, 255, 5, 7]),
    (16, 0, b"\0\0\3\3\3\4\xff\xff", b"\3\3", [0, 255, 3, 255]),
    (16, 2, bytes([0, 0] * 3 + [9, 1] * 3 + [8, 0] * 3 + [255, 255] * 3), bytes([9, 1] * 3), [0, 255, 8, 255]),
])
def test_load_picture_png_with_a_transparent_colour(tmp_path, depth, kind, row, transparent, expected):
    path = tmp_path / "p.png"
    path.write_bytes(png_bytes(4, depth, kind, row, (b"tRNS", transparent * (3 if kind == 2 and len(transparent) == 2 else 1))))
    assert load_picture(path)[0].tolist() == [[value] * 3 for value in expected]


# Colour profiles


def icc(space, tags, result=b"XYZ "):
    """An ICC profile of version 2 for a screen (or, with a table, of a press)."""
    tags = {b"wtpt": xyz(0.9642, 1, 0.8249), **tags}
    start, table, data = 132 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content
    kind = b"mntr" if result == b"XYZ " else b"prtr"
    head = struct.pack(">I4sI4s4s4s12s4s", start + len(data), bytes(4), 0x02400000, kind, space, result, bytes(12), b"acsp")
    head += bytes(28) + struct.pack(">3i", *(round(value * 65536) for value in (0.9642, 1, 0.8249)))    # the white of the space
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + data


def xyz(*values):
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma(value):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


ADOBE = np.array([[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]])      # R, G, B as XYZ
P3 = np.array([[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]])
SRGB = np.array([[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]])


def screen(primaries, power):
    names = zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)
    return icc(b"RGB ", {**{name: xyz(*it) for name, it in names}, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(power))})


def shown(colours, primaries, power):
    """Colours (..., 3) of 0..255 on such a screen, in sRGB, by the formulas of IEC 61966-2-1, 0..255."""
    return encoded((colours / 255.0) ** power @ primaries @ np.linalg.inv(SRGB))


def encoded(light):
    """Light (..., 3), 1 for white, as bytes of sRGB."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


PROFILES = {"adobe": (ADOBE, 2.2), "p3": (P3, 2.2), "red and green exchanged": (SRGB[[1, 0, 2]], 2.2), "gamma 1": (SRGB, 1.0)}


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_a_profile_is_applied(tmp_path, name, suffix):
    array = numbers((30, 40, 3))
    path = saved(tmp_path, Image.fromarray(array), suffix, icc_profile=screen(*PROFILES[name]), **lossless(suffix))
    expected = shown(array, *PROFILES[name])
    picture = load_picture(path)
    assert picture.flags.writeable and picture.shape == array.shape
    assert np.abs(picture - expected).max() < 2 and np.abs(picture - array.astype(int)).max() > 20


def lossless(suffix):
    return {"lossless": True, "exact": True} if suffix == "webp" else {}


def test_a_profile_is_applied_to_a_jpeg(tmp_path):
    smooth = np.repeat(np.array([[[200, 60, 90]]], np.uint8), 16, axis=0).repeat(16, axis=1)
    path = saved(tmp_path, Image.fromarray(smooth), "jpg", icc_profile=screen(ADOBE, 2.2), quality=95)
    assert np.abs(load_picture(path) - shown(smooth, ADOBE, 2.2)).max() < 5


@pytest.mark.parametrize("mode", ["RGBA", "P", "P, one transparent", "RGB, one transparent", "LA", "L", "1", "I;16"])
def test_a_profile_is_applied_in_every_mode(tmp_path, mode):
    """To the colours and not to the opacity: what is transparent lies on the white of sRGB."""
    colours, opacity = numbers((6, 9, 3)), numbers((6, 9), seed=1)
    options = {}
    if mode[0] in "L1I":
        colours = np.repeat(numbers((6, 9, 1)) if mode != "1" else np.uint8(255) * (numbers((6, 9, 1)) > 99), 3, axis=2)
    if mode == "RGBA" or mode == "LA":
        image = Image.fromarray(np.dstack([colours, opacity]), "RGBA").convert(mode)
    elif mode == "I;16":
        image = Image.fromarray(colours[..., 0].astype(np.uint16) * 257)
    elif mode[0] == "P":
        image = palette_image()
        colours = PALETTE_COLOURS
        options = {"transparency": 1} if "," in mode else {}
    else:
        image = Image.fromarray(colours).convert(mode.partition(",")[0])
        options = {"transparency": tuple(colours[2, 3].tolist())} if "," in mode else {}
    if mode not in ("RGBA", "LA"):
        opacity = np.full(colours.shape[:2], 255)
        if options:
            key = PALETTE_COLOURS[0, 1] if mode[0] == "P" else colours[2, 3]
            opacity[(colours == key).all(axis=2)] = 0
            assert (opacity == 0).any()
    path = saved(tmp_path, image, "png", icc_profile=screen(P3, 1.8), **options)
    with Image.open(path) as stored:
        assert stored.mode == mode.partition(",")[0]
    assert np.abs(load_picture(path) - on_white(shown(colours, P3, 1.8), opacity)).max() < 2


def test_load_picture_lab(tmp_path):
    """By the formulas of CIE L*a*b*, for the white of profiles, D50; the file holds a and b with their sign."""
    lab = np.array([[255, 0, 0], [128, 0, 0], [137, 75, 60], [60, -20, 30], [200, -60, 50], [90, 10, -40]])
    y = (lab[:, 0] / 2.55 + 16) / 116
    edges = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], axis=1)
    light = np.where(edges > 6 / 29, edges**3, 3 * (6 / 29) ** 2 * (edges - 4 / 29)) * [0.9642, 1, 0.8249] @ np.linalg.inv(SRGB)
    path = saved(tmp_path, Image.frombytes("LAB", (6, 1), lab.astype(np.int8).tobytes()), "tif")
    assert np.abs(load_picture(path)[0] - encoded(light)).max() < 2.5


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_profile(tmp_path, mode):
    grey = numbers((6, 9))
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    path = saved(tmp_path, image, icc_profile=icc(b"GRAY", {b"kTRC": gamma(1.0)}))
    light = np.repeat(grey[..., None], 3, axis=2)
    picture = load_picture(path)
    assert np.abs(picture - shown(light, SRGB, 1.0)).max() < 2 and (picture[..., :1] == picture).all()


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_a_profile_of_a_press(tmp_path, suffix):
    """A table from inks to L*a*b*: L* is 100 without ink, 20 with any, 0 with all. Without a profile they have colours."""
    corners = bytes(value for i in range(16) for value in ((255, *[51] * 14, 0)[i], 128, 128))          # two points an ink
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).ravel().tolist())
    profile = icc(b"CMYK", {b"A2B0": table + bytes(range(256)) * 4 + corners + bytes(range(256)) * 3}, b"Lab ")
    for inks, expected in (((0, 0, 0, 0), 255), ((255, 0, 0, 0), 48), ((0, 255, 255, 0), 48)):          # L* 20 is 48
        path = saved(tmp_path, Image.new("CMYK", (16, 16), inks), suffix, icc_profile=profile)
        assert np.abs(load_picture(path).astype(int) - expected).max() <= 4, inks


@pytest.mark.parametrize("profile", ["of Pillow", "in numbers"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_a_profile_that_is_srgb_changes_nothing(tmp_path, monkeypatch, mode, profile):
    """Not one bit, and it costs no time: the image is not transformed. What counts is what a profile does, not its name."""
    image = palette_image() if mode == "P" else Image.fromarray(numbers((50, 70, 4)), "RGBA").convert(mode)
    plain = load_picture(saved(tmp_path, image))
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() if profile == "of Pillow" else srgb_in_numbers()
    sizes, apply = [], ImageCms.applyTransform
    monkeypatch.setattr(ImageCms, "applyTransform", lambda image, *rest: sizes.append(image.size) or apply(image, *rest))
    picture = load_picture(saved(tmp_path, image, icc_profile=data))
    np.testing.assert_array_equal(picture, plain)
    assert len(sizes) == 1 and image.size not in sizes


def srgb_in_numbers():
    """sRGB with its curve as a table of 1024 numbers, as the commonest profile has it."""
    signal = np.linspace(0, 1, 1024)
    light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    curve = b"curv" + bytes(4) + struct.pack(">I1024H", 1024, *np.rint(65535 * light).astype(int).tolist())
    names = zip((b"rXYZ", b"gXYZ", b"bXYZ"), SRGB, strict=True)
    return icc(b"RGB ", {**{name: xyz(*it) for name, it in names}, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)})


@pytest.mark.parametrize(("mode", "profile", "reason"), [
    ("RGB", b"no profile at all", "it is damaged"),
    ("RGB", screen(P3, 2.2)[:200], "it is damaged"),
    ("RGB", screen(P3, 2.2).replace(b"RGB ", b"\xe9\x1b[m"), "it is damaged"),
    ("RGB", icc(b"RGB ", {}), "cannot build transform"),
    ("RGB", icc(b"GRAY", {b"kTRC": gamma(1.0)}), "it is for 'GRAY' images, this one is 'RGB'"),
    ("CMYK", screen(P3, 2.2), "it is for 'RGB' images, this one is 'CMYK'"),
    ("L", icc(b"CMYK", {}), "it is for 'CMYK' images, this one is 'L'"),
])
def test_a_profile_that_cannot_be_applied(tmp_path, mode, profile, reason):
    image = Image.fromarray(numbers((6, 9, 3))).convert(mode)
    plain = load_picture(saved(tmp_path, image, "tif"))
    path = saved(tmp_path, image, "tif", icc_profile=profile)
    with pytest.warns(UserWarning, match=rf"picture\.tif: its colour profile is ignored.*{reason}"):
        picture = load_picture(path)
    np.testing.assert_array_equal(picture, plain)


def test_a_profile_that_pillow_cannot_unpack(tmp_path):
    path = tmp_path / "p.png"
    path.write_bytes(png_bytes(1, 8, 2, b"\1\2\3", (b"iCCP", b"name\0\0" + b"damaged")))
    with pytest.warns(UserWarning, match=r"p\.png: .*it is damaged"):
        assert load_picture(path).tolist() == [[[1, 2, 3]]]


def test_a_pillow_without_littlecms(tmp_path, monkeypatch):
    monkeypatch.setattr(load.features, "check", lambda name: {"littlecms2": False}[name])
    array = numbers((6, 9, 3))
    path = saved(tmp_path, Image.fromarray(array), icc_profile=screen(P3, 2.2))
    with pytest.warns(UserWarning, match=r"picture\.png: its colour profile is ignored.*without littlecms.*pip install pillow"):
        np.testing.assert_array_equal(load_picture(path), array)
    with pytest.raises(ValueError, match=r"picture\.tif: .*littlecms"):
        load_picture(saved(tmp_path, Image.new("LAB", (2, 2)), "tif"))


def test_load_picture_float_with_nan(tmp_path):
    values = np.array([[0.0, np.nan]], np.float32)
    with pytest.raises(ValueError, match=r"picture\.tif: .*not finite"):
        load_picture(saved(tmp_path, Image.fromarray(values), "tif"))


ORIENTATIONS = {                                                # EXIF tag 274: how to turn what is stored
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),                               # clockwise
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),                                   # counterclockwise
}


@pytest.mark.parametrize("tag", ORIENTATIONS)
def test_load_picture_is_upright(tmp_path, tag):
    array = numbers((3, 5, 3))
    exif = Image.Exif()
    exif[274] = tag
    path = saved(tmp_path, Image.fromarray(array), exif=exif)
    assert_pictures([load_picture(path)], [ORIENTATIONS[tag](array)])


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "ppm"])
def test_load_picture_cut_short(tmp_path, suffix):
    path = saved(tmp_path, Image.fromarray(numbers((40, 50, 3))), suffix)
    data = path.read_bytes()
    assert load_picture(path).shape == (40, 50, 3)
    path.write_bytes(data[:len(data) // 2])
    with pytest.raises(ValueError, match=rf"picture\.{suffix}: cannot be read .*truncated"):
        load_picture(path)


def test_load_picture_that_is_none(tmp_path):
    path = tmp_path / "letter.png"
    for data in (b"", b"Dear reader"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"letter\.png: cannot be read as an image \(Unidentified"):
            load_picture(path)
    with pytest.raises(ValueError, match="cannot be read as an image"):
        load_picture(tmp_path)                                  # a folder
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_picture(tmp_path / "nowhere.png")


def test_load_picture_decompression_bomb(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(numbers((10, 10, 3))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 49)          # Pillow refuses from twice this on
    with pytest.raises(ValueError, match=r"picture\.png: .*DecompressionBombError.*100 pixels"):
        load_picture(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)          # ... and only warns here; warnings are errors
    with pytest.warns(Image.DecompressionBombWarning), Image.open(path):
        pass
    assert_pictures([load_picture(path)], [numbers((10, 10, 3))])


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_an_image_of_too_many_pixels(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(load, "MOST_MEGAPIXELS", 0.002)
    path = saved(tmp_path, Image.fromarray(numbers((40, 50, 3))), suffix)
    assert load_picture(path).shape == (40, 50, 3)              # just as many as allowed
    path = saved(tmp_path, Image.fromarray(numbers((40, 51, 3))), suffix)
    message = rf"picture\.{suffix}: .*51 x 40 pixels, .*expected at most 0\.002: make it smaller first, or save it as a JPEG"
    with pytest.raises(ValueError, match=message):
        load_picture(path)
    with pytest.raises(ValueError, match=message):
        load_images(tmp_path)                                   # a folder names the file


def test_a_large_jpeg_is_read_at_half_its_size(tmp_path, monkeypatch):
    """As a telephone's 108 megapixels; a progressive one is in memory as a whole when it is decoded."""
    smooth = np.repeat(np.linspace(0, 255, 80).astype(np.uint8)[:, None, None], 120, axis=1).repeat(3, axis=2)
    whole = load_picture(saved(tmp_path, Image.fromarray(smooth), "jpg", quality=95))
    exif = Image.Exif()
    exif[274] = 6
    path = saved(tmp_path, Image.fromarray(smooth), "jpg", quality=95, exif=exif)
    monkeypatch.setattr(load, "MOST_MEGAPIXELS", 0.005)
    half = load_picture(path)
    assert whole.shape == (80, 120, 3) and half.shape == (60, 40, 3)            # upright, too
    expected = np.rot90(whole, -1).reshape(60, 2, 40, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - expected).max() < 4
    path = saved(tmp_path, Image.fromarray(smooth), "jpg", progressive=True)
    with pytest.raises(ValueError, match=r"expected at most 0\.005: .*a JPEG that is not progressive"):
        load_picture(path)
    monkeypatch.setattr(load, "MOST_MEGAPIXELS", 0.002)       # half its size is too large, too
    with pytest.raises(ValueError, match="120 x 80 pixels"):
        load_picture(saved(tmp_path, Image.fromarray(smooth), "jpg"))


def test_unseen_photo():
    photo = unseen_photo()
    assert photo.shape == (600, 512, 3) and photo.dtype == np.uint8 and photo.std() > 20


def test_no_photo_of_the_table_is_trained_on():
    """Nor a part of one, as far as the first pixels of its rows tell."""
    unseen = unseen_photos()
    assert list(unseen) == ["grace_hopper", "cat", "coffee"] and np.array_equal(unseen["grace_hopper"], unseen_photo())
    rows = {row.tobytes() for photo in load_images("photos") for row in photo[:, :40]}
    assert not any(row.tobytes() in rows for photo in unseen.values() for row in photo[:, :40])


def test_made_up_images():
    """The same from the same seed; shapes with edges: most neighbours are alike, some are far apart, at every scale."""
    image = dead_leaves(np.random.default_rng(5), 128)
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, dead_leaves(np.random.default_rng(5), 128))
    assert not np.array_equal(image, dead_leaves(np.random.default_rng(6), 128))
    for step in (1, 2, 4):
        grey = image[::step, ::step].mean(axis=2)
        jumps = np.abs(np.diff(grey, axis=0))
        assert np.median(jumps) < 16 * step and np.quantile(jumps, 0.97) > 40, step


def test_unseen_photo_does_not_import_matplotlib():
    code = ("import sys; from tinymae.images.sources import unseen_photo; unseen_photo(); "
            "sys.exit('matplotlib' in sys.modules or 'sklearn' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unseen_photo_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"grace_hopper\.jpg.*pip install matplotlib"):
        unseen_photo()
    bare = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: bare)
    with pytest.raises(FileNotFoundError) as caught:
        unseen_photo()
    assert str(tmp_path) in str(caught.value)


# Resizing


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("shape", "top", "left"), [((9, 9), 0, 0), ((9, 14), 0, 2), ((14, 9), 2, 0), ((9, 10), 0, 0)])
def test_resize_takes_the_central_square(shape, top, left, channels):
    picture = numbers((*shape, channels))
    resized = resize_picture(picture, 9)                        # as large as the square: not a pixel may change
    assert_pictures([resized], [picture[top:top + 9, left:left + 9]])
    resized[:] = 0
    np.testing.assert_array_equal(picture, numbers((*shape, channels)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_resize_shape_and_flat_colour(size, channels):
    picture = np.full((30, 21, channels), 77, np.uint8)
    assert_pictures([resize_picture(picture, size)], [np.full((size, size, channels), 77)])


SIDES = st.integers(1, 70)
LAYOUTS = {
    "as it is": lambda picture: picture,
    "Fortran's order": np.asfortranarray,
    "every second of each": lambda picture: np.repeat(np.repeat(np.repeat(picture, 2, 0), 2, 1), 2, 2)[::2, ::2, ::2],
    "backwards": lambda picture: picture[::-1, ::-1, ::-1],
    "channels first": lambda picture: np.moveaxis(np.ascontiguousarray(np.moveaxis(picture, 2, 0)), 0, 2),
}


@settings(derandomize=True, database=None, deadline=None, max_examples=150)
@given(shape=st.tuples(SIDES, SIDES, st.integers(1, 16)), size=SIDES | st.tuples(SIDES, SIDES), seed=st.integers(0, 2**32),
       last=st.sampled_from([0, 1, 255]), layout=st.sampled_from(list(LAYOUTS)))
def test_resize_scales_each_band_by_itself(shape, size, seed, last, layout):
    """Pillow takes the last of two or four bands for opacity, and would multiply the others by it."""
    picture = numbers(shape, seed)
    picture[:, : shape[1] // 2, -1] = last
    picture = LAYOUTS[layout](picture)
    picture.flags.writeable = False
    resized = resize_picture(picture, size)
    new = size if isinstance(size, tuple) else (size, size)
    assert resized.shape == (*new, shape[2]) and resized.dtype == np.uint8 and resized.flags.writeable

    scale = min(Fraction(shape[0], new[0]), Fraction(shape[1], new[1]))
    sides = [scale * side for side in new]
    assume(all(side % 1 != Fraction(1, 2) for side in sides))    # half a pixel may go either way
    down, across = (max(1, round(side)) for side in sides)
    top, left = (shape[0] - down) // 2, (shape[1] - across) // 2
    for c in range(shape[2]):
        band = Image.fromarray(np.ascontiguousarray(picture[top:top + down, left:left + across, c]))
        np.testing.assert_array_equal(resized[..., c], np.asarray(band.resize(new[::-1], Image.Resampling.LANCZOS)))


@pytest.mark.parametrize("channels", [2, 4, 10])
def test_crops_treat_each_band_by_itself(channels):
    """A bank and the crops of the validation set; black in one band stays black, whatever the others are."""
    picture = numbers((70, 52, channels))
    picture[..., -1] = 0
    bank, crops = picture_bank([picture], 16, most=6), unseen_crops(picture, 16, 3)
    assert [variant.shape[2] for variant in bank] == [channels] * 6 and crops.shape == (3, 16, 16, channels)
    for c in range(channels):
        alone = picture[..., c:c + 1]
        for variant, expected in zip(bank, picture_bank([alone], 16, most=6), strict=True):
            np.testing.assert_array_equal(variant[..., c:c + 1], expected)
        np.testing.assert_array_equal(crops[..., c:c + 1], unseen_crops(alone, 16, 3))
    assert crops[..., :-1].std() > 20 and not crops[..., -1].any()


def test_resize_shrinks_without_aliasing():
    rows, cols = np.mgrid[:64, :64]
    checks = ((rows + cols) % 2 * 255).astype(np.uint8)[..., None]
    assert set(checks[4::8, 4::8].ravel()) == {0}               # leaving pixels out would make it black
    small = resize_picture(checks, 8).astype(float)
    assert np.abs(small - 127.5).max() < 5


def test_resize_keeps_a_ramp():
    ramp = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :], 120, axis=0)[..., None]
    small = resize_picture(ramp, 30)[..., 0].astype(float)
    expected = ramp.reshape(30, 4, 30, 4).mean(axis=(1, 3))
    assert np.abs(small - expected)[:, 3:-3].max() <= 1         # at the edges the window is one-sided


def test_an_image_of_the_size_is_copied():
    image = numbers((6, 6, 4))
    same = resize_picture(image, 6)
    np.testing.assert_array_equal(same, image)
    assert not np.shares_memory(same, image)


def test_a_bank_needs_photographs():
    with pytest.raises(ValueError, match="at least one photograph"):
        picture_bank([], 8)


def test_default_minutes():
    assert find_source("digits").mae_minutes < find_source("photos").mae_minutes == find_source("openml:thing").mae_minutes
    assert find_source("photos").load_labels is None


def test_resize_errors():
    with pytest.raises(TypeError, match="float32; expected uint8"):
        resize_picture(np.zeros((8, 8, 3), np.float32), 4)
    for shape in [(8, 8), (2, 8, 8, 3), (0, 8, 3), (4, 4, 0)]:
        with pytest.raises(ValueError, match="expected \\(rows, cols, C\\)"):
            resize_picture(np.zeros(shape, np.uint8), 4)
    with pytest.raises(ValueError, match="got 0"):
        resize_picture(np.zeros((8, 8, 3), np.uint8), 0)


# Bytes and pixels

EVERY_BYTE = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip_is_exact(dtype):
    pixels = to_pixels(EVERY_BYTE, dtype)
    assert pixels.dtype == dtype and pixels.shape == EVERY_BYTE.shape
    assert (np.diff(pixels.ravel()) > 0).all()
    back = to_picture(pixels)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, EVERY_BYTE)


def test_to_pixels_values():
    assert to_pixels(EVERY_BYTE).dtype == np.float32
    pixels = to_pixels(EVERY_BYTE, np.float64).ravel()
    for value in range(256):
        assert abs(pixels[value] - (value / 255 - 0.45) / 0.25) < 1e-14


def test_to_picture_clips_and_rounds():
    pixels = np.array([-1e38, -2.0, -1.8, (100.4 / 255 - 0.45) / 0.25, (100.6 / 255 - 0.45) / 0.25, 2.2, 3.0, 1e38],
                      dtype=np.float32)
    frozen = pixels.copy()
    with np.errstate(all="raise"):
        assert to_picture(pixels).tolist() == [0, 0, 0, 100, 101, 255, 255, 255]
    np.testing.assert_array_equal(pixels, frozen)


def test_pixel_errors():
    with pytest.raises(TypeError, match="float64; expected uint8"):
        to_pixels(np.zeros(3))
    with pytest.raises(TypeError, match="int64; expected float32 or float64"):
        to_pixels(EVERY_BYTE, np.int64)
    with pytest.raises(TypeError, match="uint8; expected floats"):
        to_picture(EVERY_BYTE)
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=r"1 of 3 pixels are NaN or infinite.*diverged"):
            to_picture(np.array([0.0, bad, 1.0]))
