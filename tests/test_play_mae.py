"""The tab "mae" of the live page: its functions answer what the package computes, and refuse what does not fit."""
import base64
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tinymae.images.fills import linear_fill
from tinymae.images.harmonic import harmonic_fill
from tinymae.images.hide import hidden_patches
from tinymae.images.pixels import to_pixels
from tinymae.images.sources import unseen_photos
from tinymae.models.attention_maps import mae_attention
from tinymae.play import mae_tab
from tinymae.play.api import answer_json
from tinymae.play.mae_tab import made_up
from tinymae.tasks.photograph import hidden_pixels, restore_photo
from tinymae.tasks.reconstruct import own_model

SIDES = [(48, 48), (60, 96)]            # one image of the model; six tiles


@pytest.fixture(scope="module")
def models():
    return SimpleNamespace(photos=own_model())


def ask(models, name, /, **question):
    """The answer of a function, by way of JSON as the page asks it."""
    answer = json.loads(answer_json(f"mae_{name}", json.dumps(question), models))
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer


def question(rows, cols, grey=False):
    """A picture, half of its patches, and both as the page sends them."""
    rng = np.random.default_rng(rows)
    photo = np.repeat(np.repeat(rng.integers(0, 256, (rows // 4, cols // 4, 3), np.uint8), 4, axis=0), 4, axis=1)
    if grey:
        photo[:] = photo[..., :1]
    hidden = hidden_patches("random", (rows // 6, cols // 6), 0.5, rng)
    return photo, hidden, {"pixels": encoded(photo), "rows": rows, "cols": cols, "hidden": hidden.astype(int).tolist()}


def encoded(photo):
    return base64.b64encode(photo.tobytes()).decode()


def picture(answer, rows, cols):
    return np.frombuffer(base64.b64decode(answer["pixels"]), np.uint8).reshape(rows, cols, 3)


def test_the_page_hears_of_the_model(models):
    answer = ask(models, "model")
    assert answer["grid"] == [8, 8] and answer["patch"] == 6 and answer["details"] == [8, 16, 24]
    assert answer["layers"] == {"encoder": 4, "decoder": 2}


def test_samples(models):
    names = ask(models, "model")["samples"]
    assert names == ["cat", "coffee", "grace_hopper", "made_up"]
    for name in ("cat", "made_up"):
        answer = ask(models, "sample", name=name)
        photo = picture(answer, answer["rows"], answer["cols"])
        expected = unseen_photos()[name] if name == "cat" else made_up(np.random.default_rng(0))
        np.testing.assert_array_equal(photo, expected)
        assert min(photo.shape[:2]) >= 144 and photo.std() > 30         # large enough for the finest detail, and not flat
    with pytest.raises(ValueError, match=r"one of cat, .* got 'dog'"):
        ask(models, "sample", name="dog")


@pytest.mark.parametrize("kind", ["random", "block", "grid"])
def test_hide_is_the_package_s(models, kind):
    answer = ask(models, "hide", kind=kind, ratio=0.6, rows=60, cols=96, seed=3)
    np.testing.assert_array_equal(answer["hidden"], hidden_patches(kind, (10, 16), 0.6, np.random.default_rng(3)))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(("rows", "cols"), SIDES)
def test_restore_is_the_package_s(models, rows, cols, grey):
    photo, hidden, asked = question(rows, cols, grey)
    answer = ask(models, "restore", **asked)
    removed, config = hidden_pixels(hidden, photo.shape), models.photos.config
    shown = photo[..., :1] if grey else photo
    expected = restore_photo(shown, removed, models.photos.params, config, detail=rows // 6, turned=False)
    restored = picture(answer, rows, cols)
    np.testing.assert_array_equal(restored, np.broadcast_to(expected.photo, photo.shape))
    np.testing.assert_array_equal(restored[~removed], photo[~removed])
    true = to_pixels(photo)
    linear = linear_fill(true[None], removed[None])[0]
    filled = {"model": to_pixels(restored), "linear": linear, "harmonic": harmonic_fill(true[None], removed[None])[0]}
    for name, fill in filled.items():
        assert answer["errors"][name] == pytest.approx(np.mean((fill - true)[removed] ** 2), rel=1e-3)     # four digits
    assert answer["milliseconds"] > 0


def test_attention_of_a_whole_image_is_the_package_s(models):
    photo, _, asked = question(48, 48)
    asked["hidden"] = np.zeros((8, 8), int).tolist()
    answer = ask(models, "attention", **asked, patch=[2, 5])
    expected = mae_attention(to_pixels(photo)[None], models.photos.params, models.photos.config)
    for layer, weights in zip(answer["encoder"], expected, strict=True):
        row = weights[0].mean(axis=0)[1 + 2 * 8 + 5]            # the class token is first
        np.testing.assert_allclose(layer["patches"], row[1:].reshape(8, 8), rtol=1e-3, atol=1e-9)
        assert layer["class_token"] == pytest.approx(row[0], rel=1e-3)


def test_attention_knows_visible_patches_only_in_the_encoder(models):
    _, hidden, asked = question(60, 96)
    for place in ([9, 15], [0, 0], [5, 7]):
        answer = ask(models, "attention", **asked, patch=place)
        top, left = answer["top"], answer["left"]
        assert top <= place[0] < top + 8 <= 10 and left <= place[1] < left + 8 <= 16
        assert (answer["encoder"] is None) == hidden[*place]
        tile = hidden[top : top + 8, left : left + 8]
        for layer in answer["encoder"] or []:
            assert [[weight is None for weight in row] for row in layer["patches"]] == tile.tolist()
        for layer in (answer["encoder"] or []) + answer["decoder"]:
            weights = [weight for row in layer["patches"] for weight in row if weight is not None]
            assert sum(weights) + layer["class_token"] == pytest.approx(1, abs=1e-2)        # of numbers with four digits
        assert len(answer["decoder"]) == 2


def test_attention_reads_nothing_that_is_hidden(models):
    photo, hidden, asked = question(48, 48)
    other = np.where(hidden_pixels(hidden, photo.shape)[..., None], 255 - photo, photo)
    changed = asked | {"pixels": encoded(other)}
    place = np.argwhere(~hidden)[0].tolist()
    assert ask(models, "attention", **asked, patch=place) == ask(models, "attention", **changed, patch=place)


WRONG = [
    ("hide", {"kind": "stripes"}, "expected a mask random, block, grid, got 'stripes'"),
    ("hide", {"ratio": 1}, "above 0 and below 1"), ("hide", {"ratio": "half"}, "above 0 and below 1"),
    ("hide", {"ratio": float("nan")}, "expected numbers, got NaN"),
    ("hide", {"seed": -1}, "a whole number from 0 up, got -1"), ("hide", {"seed": 1.5}, "a whole number from 0 up, got 1.5"),
    ("hide", {"rows": 50}, "multiples of 6"), ("hide", {"cols": "48"}, "multiples of 6"),
    ("hide", {"rows": 42}, "at least 48 x 48"),
    ("hide", {"rows": 6 * 100_000}, "at most 864 patches"),
    ("restore", {"pixels": "AAAA"}, "9216 letters, got 4"), ("restore", {"pixels": 7}, "9216 letters, got int"),
    ("restore", {"pixels": "*" * 9216}, "expected pixels, base64 of bytes"),
    ("restore", {"pixels": "A" * 9214 + "=="}, "6912 bytes in pixels, got 6910"),
    ("restore", {"hidden": [[1, 0]]}, "8 rows of 8 patches"), ("restore", {"hidden": [[2] * 8] * 8}, "each 1 .hidden. or 0"),
    ("restore", {"hidden": [[0] * 8] * 8}, "nothing to restore"),
    ("restore", {"hidden": [[1] * 8] * 8}, "expected a visible patch"),
    ("attention", {"patch": [8, 0]}, "of 8 x 8, got .8, 0."), ("attention", {"patch": [-1, 0]}, "counted from 0"),
    ("attention", {"patch": 3}, "expected a patch"), ("attention", {"patch": [0.5, 1]}, "expected a patch"),
]


@pytest.mark.parametrize(("name", "change", "words"), WRONG)
def test_what_does_not_fit_is_refused_with_a_sentence(models, name, change, words):
    _, _, asked = question(48, 48)
    if name == "hide":
        asked = {"kind": "random", "ratio": 0.5, "rows": 48, "cols": 48, "seed": 0}
    asked |= {"patch": [0, 0]} if name == "attention" else {}
    ask(models, name, **asked)                                  # without the change it fits
    with pytest.raises(ValueError, match=words):
        ask(models, name, **(asked | change))


def test_the_largest_picture_is_what_the_page_offers(models):
    answer = ask(models, "model")
    shorter, patch = max(answer["details"]), answer["patch"]
    longer = round(shorter * answer["longest"])
    largest = {"kind": "grid", "ratio": 0.5, "seed": 0, "rows": shorter * patch}
    assert np.shape(ask(models, "hide", cols=longer * patch, **largest)["hidden"]) == (shorter, longer)
    with pytest.raises(ValueError, match="at most"):
        ask(models, "hide", cols=(longer + 1) * patch, **largest)


SCRIPT = """
import sys
allowed = {*sys.stdlib_module_names, "numpy", "tinymae"}


class OnlyNumPy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, OnlyNumPy())
from types import SimpleNamespace

import numpy as np

from tinymae.images.pixels import MEAN, STD
from tinymae.play import mae_tab
from tinymae.weights.shipped import read_model, shipped

mae_tab.importlib.util.find_spec = lambda name: None            # as in a browser: no such package
config, params, _ = read_model(shipped("mae"), "mae")
models = SimpleNamespace(photos=SimpleNamespace(config=config, params=params, mean=MEAN, std=STD))
print(mae_tab.mae_model(models)["samples"], mae_tab.mae_sample(models, name="made_up")["rows"])
hidden = mae_tab.mae_hide(models, kind="random", ratio=0.75, rows=48, cols=48, seed=0)["hidden"]
asked = {"pixels": "A" * 9216, "rows": 48, "cols": 48, "hidden": hidden}
errors, weights = mae_tab.restored_photo(models, **asked)["errors"], mae_tab.seen_from_patch(models, **asked, patch=[0, 0])
print(errors["linear"], errors["harmonic"] < 1e-6 < errors["model"], len(weights["decoder"]))
"""


def test_it_needs_numpy_alone():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["['made_up'] 192", "None True 2"]


def test_names_are_the_tab_s_own():
    assert all(name.startswith("mae_") for name in mae_tab.FUNCTIONS)           # the four tabs share one table
