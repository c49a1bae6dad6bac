"""Labelled pictures: where labels are found, how they are split, and what is refused."""
import gzip
import struct

import numpy as np
import pytest
import sklearn.datasets
import sklearn.utils

from tinymae.images.labelled import Labelled, fit_pictures, load_labelled, model_size
from tinymae.images.resize import resize_picture


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_digits():
    data = load_labelled("digits")
    expected, order = sklearn.datasets.load_digits(), np.random.default_rng(0).permutation(1797)
    np.testing.assert_array_equal(data.labels, expected.target[order])
    np.testing.assert_array_equal(np.rint(data.images[..., 0] * (16 / 255)), expected.images[order])
    assert data.images.dtype == np.uint8 and data.names == tuple("0123456789")


def test_the_last_fifth_is_for_testing():
    images, labels = numbers(11, 4, 4, 1), np.arange(11) % 2
    train, test = Labelled(images, labels, ("a", "b")).split()
    np.testing.assert_array_equal(train.images, images[:8])
    np.testing.assert_array_equal(test.images, images[8:])          # ceil(11 / 5) = 3
    np.testing.assert_array_equal(test.labels, labels[8:])
    assert train.names == test.names == ("a", "b")


def test_sorted_classes_are_noticed():
    labels = np.repeat([0, 1], [8, 2])
    with pytest.raises(ValueError, match=r"class 'boats', which is not in the first four fifths.*sorted by class"):
        Labelled(numbers(10, 4, 4, 1), labels, ("cars", "boats")).split()


@pytest.mark.parametrize("values", [np.array([7, 3, 7, 5], np.uint8), np.array(["tree", "cat", "tree", "dog"])])
def test_npz(tmp_path, values):
    images = numbers(4, 6, 5, 3)
    np.savez(tmp_path / "d.npz", images=images, labels=values)
    data = load_labelled(tmp_path / "d.npz")
    np.testing.assert_array_equal(data.images, images)
    np.testing.assert_array_equal(data.labels, [2, 0, 2, 1])        # in the order of the names
    assert data.names == tuple(map(str, sorted(set(values.tolist()))))
    assert data.labels.dtype == np.int64


@pytest.mark.parametrize(("arrays", "message"), [
    ({}, "no key 'labels'"),
    ({"labels": np.zeros((4, 2), int)}, r"shape \(4, 2\).*not one-hot"),
    ({"labels": np.zeros(4)}, "type float64.*integers or strings"),
    ({"labels": np.zeros(3, int)}, "4 images, but 3 labels"),
    ({"labels": np.zeros(4, int)}, "at least two classes, got only '0'"),
    ({"labels": np.array([1, None, 2, 3], object)}, "labels cannot be read.*pickle"),
])
def test_npz_without_good_labels(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", images=numbers(4, 4, 4), **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        load_labelled(str(tmp_path / "d.npz"))
    assert "d.npz" in str(caught.value)


def test_npz_with_damaged_labels(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, images=numbers(4, 4, 4), labels=np.arange(100, 104))
    content = bytearray(path.read_bytes())
    content[content.index(np.arange(100, 104).tobytes())] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"labels cannot be read.*CRC"):
        load_labelled(path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("label_suffix", ["", ".gz"])
def test_idx(tmp_path, suffix, label_suffix):
    images, labels = numbers(5, 4, 4), np.array([1, 0, 4, 1, 0], np.uint8)
    pack = {"": bytes, ".gz": gzip.compress}
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(pack[suffix](idx(images)))
    (tmp_path / f"train-labels-idx1-ubyte{label_suffix}").write_bytes(pack[label_suffix](idx(labels)))
    data = load_labelled(path)
    np.testing.assert_array_equal(data.images[..., 0], images)
    np.testing.assert_array_equal(data.labels, [1, 0, 2, 1, 0])
    assert data.names == ("0", "1", "4")


@pytest.mark.parametrize("values", [np.array([4, 7, 4, 7], np.uint8), np.array(["b", "é", "b", "é"])])
def test_labels_in_a_column(tmp_path, values):
    np.savez(tmp_path / "d.npz", images=numbers(4, 4, 4), labels=values[:, None])
    data = load_labelled(tmp_path / "d.npz")
    np.testing.assert_array_equal(data.labels, [0, 1, 0, 1])
    assert data.names == tuple(map(str, values[:2]))


def test_idx_labels_in_a_column(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(numbers(3, 4, 4)))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([[1], [0], [1]], np.uint8)))
    np.testing.assert_array_equal(load_labelled(tmp_path / "t10k-images-idx3-ubyte").labels, [1, 0, 1])


LABELS = idx(np.arange(5, dtype=np.uint8))


@pytest.mark.parametrize(("content", "message"), [
    (b"", "starts with nothing"),
    (idx(numbers(5, 4, 4)), r"3 axes; expected labels, one axis \(N,\)"),
    (LABELS[:-1], r"cut short: the header says \(5,\), 13 bytes in all; found 12"),
    (LABELS + b"x", "left over.*found 14"),
    (b"\0\0\x08\x01\xff\xff\xff\xff", "cut short.*4294967295"),
    (LABELS[:6], "cut short: 6 bytes"),
    (gzip.compress(LABELS, mtime=0)[:-9], "gzip file cut short"),
])
def test_idx_with_bad_labels(tmp_path, content, message):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(numbers(5, 4, 4)))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=rf"t10k-labels-idx1-ubyte.*{message}"):
        load_labelled(tmp_path / "t10k-images-idx3-ubyte")


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "pictures"])
def test_idx_without_labels(tmp_path, name):
    (tmp_path / name).write_bytes(idx(numbers(5, 4, 4)))
    with pytest.raises(FileNotFoundError, match=f"{name}: expected its labels beside it"):
        load_labelled(tmp_path / name)


@pytest.mark.parametrize("target", [np.array(["b", "a", "b"], object), np.array(["b", "a", "b"]), np.array([5, 2, 5])])
def test_openml(monkeypatch, target):
    rows = numbers(3, 25)
    monkeypatch.setattr(
        sklearn.datasets, "fetch_openml", lambda name, as_frame: sklearn.utils.Bunch(data=rows.astype(float), target=target)
    )
    data = load_labelled("openml:thing")
    np.testing.assert_array_equal(data.images.reshape(3, 25), rows)
    np.testing.assert_array_equal(data.labels, [1, 0, 1])
    assert data.names == tuple(map(str, sorted(set(target.tolist()))))


@pytest.mark.parametrize(("target", "message"), [
    (None, "names no target"), (np.array([0.5, 1.5, 2.5]), "float64.*integers or strings"),
])
def test_openml_without_classes(monkeypatch, target, message):
    bunch = sklearn.utils.Bunch(data=np.zeros((3, 25)), target=target)
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda name, as_frame: bunch)
    with pytest.raises(ValueError, match=f"openml:thing.*{message}"):
        load_labelled("openml:thing")


def test_pictures_without_labels(tmp_path):
    for data in ("photos", str(tmp_path)):
        with pytest.raises(ValueError, match="images without labels; expected 'digits'"):
            load_labelled(data)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_labelled(str(tmp_path / "nowhere"))
    with pytest.raises(TypeError, match="data is a int"):
        load_labelled(3)


@pytest.mark.parametrize(("shape", "expected"), [
    ((8, 8, 1), (8, 2)), ((28, 28, 1), (28, 4)), ((32, 32, 3), (32, 4)), ((64, 80, 3), (64, 8)), ((300, 200), (64, 8)),
    ((13, 13), (8, 2)), ((3, 5), (8, 2)), ((96, 96, 3), (64, 8)),
])
def test_model_size(shape, expected):
    size, patch = model_size(shape)
    assert (size, patch) == expected and size % patch == 0


def test_fit_pictures():
    grey, colour = numbers(3, 6, 6, 1), numbers(3, 6, 8, 3, seed=1)
    assert fit_pictures(grey, 6, 1) is grey
    np.testing.assert_array_equal(fit_pictures(grey, 6, 3), np.concatenate([grey] * 3, axis=3))
    np.testing.assert_array_equal(fit_pictures(colour, 4, 3), [resize_picture(picture, 4) for picture in colour])
    flat = np.full((2, 5, 5, 3), 90, np.uint8)
    np.testing.assert_array_equal(fit_pictures(flat, 10, 1), np.full((2, 10, 10, 1), 90, np.uint8))
    pure = np.zeros((1, 2, 2, 3), np.uint8)
    pure[..., 1] = 255
    assert fit_pictures(pure, 2, 1).ravel().tolist() == [150] * 4   # green counts 0.587
    bands = numbers(2, 9, 7, 5)
    np.testing.assert_array_equal(fit_pictures(bands, 4, 5), [resize_picture(picture, 4) for picture in bands])
    with pytest.raises(ValueError, match="of 3 channels, as the model was trained on, got 4"):
        fit_pictures(numbers(2, 6, 6, 4), 6, 3)
