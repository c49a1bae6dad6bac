"""Word vectors of others as the start of an embedding, and what is said about files that are broken."""
import gzip

import numpy as np
import pytest

from tinymae.text.vectors import load_word_vectors
from tinymae.text.vocabulary import BOS, EOS, PAD, UNK, Vocabulary

VECTORS = b"cat 1 2 -3e-1\ndog 0.5 0.25 8\n. . . 1 1 1\ncat 9 9 9\nfish 3 2 1\n"


@pytest.mark.parametrize("name", ["v.txt", "v.txt.gz"])
@pytest.mark.parametrize("head", [b"", b"5 3\n"])
def test_load_word_vectors(tmp_path, name, head):
    vocabulary = Vocabulary(["dog", "horse", "cat", "cow"])
    path = tmp_path / name
    path.write_bytes(gzip.compress(head + VECTORS) if name.endswith(".gz") else head + VECTORS)
    table, found, fraction, missing = load_word_vectors(path, vocabulary, np.random.default_rng(0), dimension=3)
    assert table.shape == (8, 3) and table.dtype == np.float32
    assert found.dtype == bool and found.tolist() == [False] * 4 + [True, False, True, False]
    assert fraction == 0.5 and missing == ["horse", "cow"]
    assert table[4].tolist() == [0.5, 0.25, 8]
    assert np.array_equal(table[6], np.array([1, 2, -0.3], np.float32))         # the first cat, not the second
    assert not table[PAD].any() and all(table[i].any() for i in (BOS, EOS, UNK, 5, 7))
    again = load_word_vectors(path, vocabulary, np.random.default_rng(0))
    assert np.array_equal(again.table, table)


def test_missing_words_look_like_the_others(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal([5, -5], [0.1, 2.0], (500, 2))
    path = tmp_path / "v.txt"
    path.write_text("".join(f"w{i} {a} {b}\n" for i, (a, b) in enumerate(values)), encoding="utf-8")
    vocabulary = Vocabulary([f"w{i}" for i in range(500)] + [f"x{i}" for i in range(500)])
    found = load_word_vectors(path, vocabulary, rng)
    assert found.fraction == 0.5 and found.found.nonzero()[0].tolist() == list(range(4, 504))
    drawn = found.table[-500:]
    assert np.allclose(drawn.mean(axis=0), [5, -5], atol=0.5) and np.allclose(drawn.std(axis=0), [0.1, 2], rtol=0.2)


def test_specials_that_stand_in_the_file(tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes(b"<pad> 9 9\ncat 1 2\n<unk> 3 4\n")
    vectors = load_word_vectors(path, Vocabulary(["cat", "dog"]), np.random.default_rng(0))
    assert vectors.found.tolist() == [False, False, False, True, True, False]   # the row of <pad> is not the file's
    assert vectors.table[[PAD, UNK, 4]].tolist() == [[0, 0], [3, 4], [1, 2]]
    assert vectors.fraction == 0.5 and vectors.missing == ["dog"]                  # of words; specials are not counted
    assert (vectors.table[[BOS, EOS, 5]] < 5).all()                             # drawn like those found, without <pad>


@pytest.mark.parametrize(("content", "dimension", "message"), [
    (VECTORS, 4, r"v\.txt, line 1: the vectors have dimension 3, and the model's is 4"),
    (b"5 3\n" + VECTORS, 2, r"v\.txt, line 1: the vectors have dimension 3"),
    (b"cat 1 2 3\ndog 1 2\n", None, r"v\.txt, line 2: has 2 numbers; expected a word and 3"),
    (b"cat 1 2 3\ndog 1 2 3 4\n", None, r"v\.txt, line 2: has more than 3 numbers"),
    (b"cat 1 2 3\ncow 1 x 3\n", None, r"v\.txt, line 2: is broken .*'x'"),
    (b"cat 1 2 3\n\ncow 1 2 3\n", None, r"v\.txt, line 2: has 0 numbers"),
    (b"cat 1 2 3\ncow 1 nan 3\n", None, r"v\.txt, line 2: the vector of 'cow' holds nan, not finite in float32"),
    (b"cat 1 inf 3\n", None, r"v\.txt, line 1: the vector of 'cat' holds inf, not finite"),
    (b"cat 1 2 3\ncow 1e39 -1e39 3\n", None, r"v\.txt, line 2: the vector of 'cow' holds 1e\+39, not finite"),
    (b"cow 1 2 3\ncat 0 0 0\n", None, r"v\.txt: the vectors of all 1 words that the model needs are 0"),
    (b"2 3\ncat 1 2 3\ncow 1 2\n", None, r"v\.txt, line 3: has 2 numbers"),
    (b"9 3\ncat 1 2 3\n", None, r"v\.txt, line 1: promises 9 vectors, and 1 lines follow"),
    (b"9 3\n", None, r"v\.txt, line 1: .*no vectors follow"),
    (b"9 0\ncat\n", None, r"v\.txt, line 1: has no numbers"),
    (b"cat\n", None, r"v\.txt, line 1: has no numbers"),
    (b"cat 1 2 3\n\xff 1 2 3\n", None, r"v\.txt, line 2: is not UTF-8"),
    (b"COW 1 2 3\n", None, r"has none of the 1 words, such as \['cat'\]"),
    (b"", None, "is empty"),
])
def test_load_word_vectors_errors(tmp_path, content, dimension, message):
    path = tmp_path / "v.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_word_vectors(path, Vocabulary(["cat"]), np.random.default_rng(0), dimension)


@pytest.mark.parametrize("head", ["5 1000000000\n", "5 100000000000000\n", "5 " + "9" * 30 + "\n", "5 " + "9" * 5000 + "\n"])
def test_a_first_line_that_promises_more_than_there_is(tmp_path, head):
    """The table is made when a line has as many numbers as the first promises."""
    path = tmp_path / "v.txt"
    path.write_bytes(head.encode() + VECTORS)
    with pytest.raises(ValueError, match=r"v\.txt, line \d: (has 3 numbers; expected a word and 10+|has more|the vector)"):
        load_word_vectors(path, Vocabulary(["cat"]), np.random.default_rng(0))


def test_a_word_that_is_a_no_break_space(tmp_path):
    """It is a line like the others, also as the first; nobody asks for its vector."""
    vocabulary = Vocabulary(["cat", "cow"])
    for lines in (["\u00a0 1 2 3", "cat 4 5 6", "cow 7 8 9"], ["cat 4 5 6", "\u00a0 1 2 3", "cow 7 8 9"]):
        path = tmp_path / "v.txt"
        path.write_text("\n".join(lines) + "\n", "utf-8")
        found = load_word_vectors(path, vocabulary, np.random.default_rng(0))
        assert found.fraction == 1 and found.table.shape[1] == 3
        assert found.table[vocabulary.encode(["cat"])[0]].tolist() == [4, 5, 6]


def test_vectors_of_zeros_are_named_and_drawn(tmp_path):
    vocabulary = Vocabulary(["cat", "cow", "dog"])
    path = tmp_path / "v.txt"
    path.write_text("cat 4 5 6\ncow 0 0 0\ndog 7 8 9\n", "utf-8")
    with pytest.warns(UserWarning, match=r"vectors of 0 are drawn at random, .*: 'cow' \(line 2\)"):
        found = load_word_vectors(path, vocabulary, np.random.default_rng(0))
    assert found.table.any(axis=1).tolist() == [row > 0 for row in range(len(vocabulary))] and found.missing == ["cow"]
