"""Every source ends as the same kind of picture, and a file that is not what it says is an error that names it."""
import gzip
import io
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from tinymae import packed
from tinymae.images import pixels, sources
from tinymae.images.crops import picture_bank, unseen_crops
from tinymae.images.pixels import load_picture, resize_picture, to_picture, to_pixels
from tinymae.images.sources import find_source, load_images, unseen_photo


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


# Sources that scikit-learn brings


def test_photos():
    photos = load_images("photos")
    assert [photo.shape for photo in photos] == [(427, 640, 3)] * 2
    assert all(photo.dtype == np.uint8 and photo.flags.writeable for photo in photos)
    assert not np.array_equal(*photos)
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


def test_a_path_called_digits_is_not_the_digits(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    Image.fromarray(numbers((3, 4, 3))).save(tmp_path / "digits" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert_pictures(load_images("./digits"), [numbers((3, 4, 3))])


def test_folder(tmp_path):
    expected = [numbers((4 + i, 7, 3), seed=i) for i in range(3)]
    for name, array in zip(["a.png", "b.PNG", "c.bmp"], expected, strict=True):
        Image.fromarray(array).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "deeper").mkdir()
    Image.fromarray(expected[0]).save(tmp_path / "deeper" / "d.png")
    (tmp_path / "folder.png").mkdir()
    assert_pictures(load_images(tmp_path), expected)
    assert_pictures(load_images(str(tmp_path)), expected)


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
    (idx_bytes(numbers((4, 3, 5)), kind=0x0D), "type 0x0d; expected 0x08, unsigned bytes"),
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
    np.array([[-1000, 0, 1000], [2_000_000_000, 500, -2_000_000_000]], np.int32),
    np.array([[-0.5, 0.25, 0.75], [1.5, 0.0, 0.1]], np.float32),
])
def test_load_picture_i_and_f_are_scaled_by_their_range(tmp_path, values):
    picture = load_picture(saved(tmp_path, Image.fromarray(values), "tif"))
    low, high = float(values.min()), float(values.max())
    for row, col in np.ndindex(values.shape):
        expected = round((float(values[row, col]) - low) / (high - low) * 255)
        assert picture[row, col].tolist() == [expected] * 3, (row, col)
    assert picture.min() == 0 and picture.max() == 255


def test_load_picture_flat_float(tmp_path):
    picture = load_picture(saved(tmp_path, Image.fromarray(np.full((2, 3), 0.3, np.float32)), "tif"))
    assert_pictures([picture], [np.zeros((2, 3, 3))])


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
    monkeypatch.setattr(pixels, "MOST_MEGAPIXELS", 0.002)
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
    monkeypatch.setattr(pixels, "MOST_MEGAPIXELS", 0.005)
    half = load_picture(path)
    assert whole.shape == (80, 120, 3) and half.shape == (60, 40, 3)            # upright, too
    expected = np.rot90(whole, -1).reshape(60, 2, 40, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - expected).max() < 4
    path = saved(tmp_path, Image.fromarray(smooth), "jpg", progressive=True)
    with pytest.raises(ValueError, match=r"expected at most 0\.005: .*a JPEG that is not progressive"):
        load_picture(path)
    monkeypatch.setattr(pixels, "MOST_MEGAPIXELS", 0.002)       # half its size is too large, too
    with pytest.raises(ValueError, match="120 x 80 pixels"):
        load_picture(saved(tmp_path, Image.fromarray(smooth), "jpg"))


def test_unseen_photo():
    photo = unseen_photo()
    assert photo.shape == (600, 512, 3) and photo.dtype == np.uint8 and photo.std() > 20


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


@pytest.mark.parametrize("channels", range(1, 17))
@pytest.mark.parametrize("last", [0, 1, 255])
def test_resize_scales_each_band_by_itself(channels, last):
    """Pillow takes the last of two or four bands for opacity, and would multiply the others by it. Sizes are random."""
    rng = np.random.default_rng([channels, last])
    rows, cols, size = (int(side) for side in rng.integers(1, 70, 3))
    picture = rng.integers(0, 256, (rows, cols, channels), dtype=np.uint8)
    picture[:, : cols // 2, -1] = last
    resized = resize_picture(picture, size)
    assert resized.shape == (size, size, channels) and resized.dtype == np.uint8
    side = min(rows, cols)
    top, left = (rows - side) // 2, (cols - side) // 2
    for c in range(channels):
        band = Image.fromarray(np.ascontiguousarray(picture[top:top + side, left:left + side, c]))
        np.testing.assert_array_equal(resized[..., c], np.asarray(band.resize((size, size), Image.Resampling.LANCZOS)))


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
    with pytest.raises(ValueError, match="size is 0"):
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
