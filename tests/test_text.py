"""Text to batches and back, and what is said about files that are broken."""
import builtins
import gzip
import json

import numpy as np
import pytest

from tinymae.data.text import (
    BOS,
    EOS,
    PAD,
    UNK,
    Bpe,
    Vocabulary,
    detokenize,
    load_word_vectors,
    pad_batch,
    read_parallel,
    read_tsv,
    token_batches,
    tokenize_characters,
    tokenize_words,
    train_bpe,
)

# Tokens


@pytest.mark.parametrize(("text", "tokens"), [
    ("Why do we work?", "why do we work ?"),
    ("The animal didn't cross.", "the animal didn't cross ."),
    ("the animal didn\u2019t cross", "the animal didn't cross"),
    ("'quoted' and the dogs' bones", "' quoted ' and the dogs ' bones"),
    ("It costs 1,000.50, or 3.5% of 20...", "it costs 1,000.50 , or 3.5 % of 20 . . ."),
    ("a 3rd t-shirt (new)", "a 3rd t - shirt ( new )"),
    ("Je suis e\u0301tudiant !", "je suis \u00e9tudiant !"),
    ("  spaces\tand\u00a0others \n", "spaces and others"),
    ("", ""),
])
def test_tokenize_words(text, tokens):
    assert tokenize_words(text) == tokens.split()


def test_tokenize_words_may_keep_capitals():
    assert tokenize_words("Why do we WORK?", lower=False) == ["Why", "do", "we", "WORK", "?"]


@pytest.mark.parametrize(("text", "tokens"), [
    ("我有一只猫", "我 有 一 只 猫"),
    ("我有 2024 年的T恤。", "我 有 2024 年 的 T 恤 。"),
    ("Tom喜欢café吗？", "Tom 喜 欢 café 吗 ？"),             # noqa: RUF001
    ("New York 很大", "New York 很 大"),
    ("\U00020000\u3000猫", "\U00020000 猫"),
])
def test_tokenize_characters(text, tokens):
    assert tokenize_characters(text) == tokens.split(" ")


@pytest.mark.parametrize(("text", "characters"), [
    ("why do we work?", False), ("i have a cat (and a dog), he said: yes; 50%!", False), ("", False),
    ("我有一只猫", True), ("我住在New York很久", True), ("我有2024年的T恤。", True), ("a 1 b", True),
])
def test_detokenize_undoes_it(text, characters):
    tokens = tokenize_characters(text) if characters else tokenize_words(text)
    assert detokenize(tokens, characters=characters) == text


@pytest.mark.parametrize("function", [tokenize_words, tokenize_characters])
@pytest.mark.parametrize("text", [["a", "b"], b"a", None])
def test_tokenizers_want_text(function, text):
    with pytest.raises(TypeError, match="expected one sentence, a str"):
        function(text)


def test_tokens_are_not_one_str():
    for function in (detokenize, Vocabulary, Vocabulary([]).encode, Vocabulary([]).unknown, Vocabulary.build):
        with pytest.raises(TypeError, match="one str, 'a cat'"):
            function("a cat")
    with pytest.raises(TypeError, match="one str, 'a cat'"):
        Vocabulary.build(["a cat"])


# Vocabulary


def test_vocabulary_order():
    sentences = [["b", "a", "c"], ["b", "a", "d"], ["e", "b"]]
    assert Vocabulary.build(sentences).words == ("<pad>", "<bos>", "<eos>", "<unk>", "b", "a", "c", "d", "e")
    assert Vocabulary.build(sentences[::-1]).words == Vocabulary.build(sentences).words
    assert Vocabulary.build(sentences, min_count=2).words[4:] == ("b", "a")
    assert Vocabulary.build(sentences, most=3).words[4:] == ("b", "a", "c")
    assert Vocabulary.build([["<unk>", "a"]]).words[4:] == ("a",)


def test_vocabulary_both_ways():
    vocabulary = Vocabulary(["i", "have", "a", "cat"])
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)
    assert vocabulary.encode(["i", "have", "a", "dog"]) == [4, 5, 6, UNK]
    assert vocabulary.unknown(["a", "dog", "i", "saw", "dog"]) == ["dog", "saw"]
    assert vocabulary.decode([BOS, 4, 5, PAD, UNK, 7, EOS, 4]) == ["i", "have", "<unk>", "cat"]
    assert vocabulary.decode(np.array([4, 7, EOS, PAD])) == ["i", "cat"]
    assert len(vocabulary) == 8 and "cat" in vocabulary and "dog" not in vocabulary


@pytest.mark.parametrize("i", [-1, 5])
def test_decode_refuses_foreign_ids(i):
    with pytest.raises(ValueError, match=f"id {i} is not in this vocabulary of 5 words"):
        Vocabulary(["a"]).decode([4, i])


@pytest.mark.parametrize(("words", "error", "message"), [
    (["a", "b", "a"], ValueError, "'a' comes 2 times"),
    (["a", "<eos>"], ValueError, "'<eos>' comes 2 times: the specials are added here"),
    (["a", ""], ValueError, "empty"),
    (["a", 3], TypeError, "word 3 is int"),
])
def test_vocabulary_errors(words, error, message):
    with pytest.raises(error, match=message):
        Vocabulary(words)


@pytest.mark.parametrize("options", [{"min_count": 0}, {"most": 0}])
def test_build_errors(options):
    with pytest.raises(ValueError, match="at least 1"):
        Vocabulary.build([["a"]], **options)


def test_vocabulary_file(tmp_path):
    path = tmp_path / "new" / "vocabulary.json"
    vocabulary = Vocabulary(["我", "étudiant", '"', "\\", "didn't", "\U00020000"])
    vocabulary.save(path)
    assert Vocabulary.load(path).words == vocabulary.words
    assert json.loads(path.read_text(encoding="utf-8"))["words"] == list(vocabulary.words)
    assert [file.name for file in path.parent.iterdir()] == ["vocabulary.json"]


@pytest.mark.parametrize(("content", "message"), [
    (b'{"words": ["<pad>", "<b', "is not JSON"),
    (b"\xff\xfe", "is not JSON in UTF-8"),
    (b'["a"]', "no vocabulary"),
    (b'{"words": 5}', "no vocabulary"),
    (b'{"words": ["a", "b", "c", "d"]}', "no vocabulary"),
    (b'{"words": ["<pad>", "<bos>", "<eos>", "<unk>", "a", "a"]}', "not valid.*'a' comes 2 times"),
    (b'{"words": ["<pad>", "<bos>", "<eos>", "<unk>", 7]}', "not valid.*7 is int"),
    (b'{"words": ["<pad>", "<bos>", "<eos>", "<unk>", []]}', "not valid"),
])
def test_vocabulary_file_errors(tmp_path, content, message):
    path = tmp_path / "v.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"v\.json.*{message}"):
        Vocabulary.load(path)


def test_vocabulary_file_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        Vocabulary.load(tmp_path / "none.json")


# Batches


def test_pad_batch():
    ids = pad_batch([[4, 5, EOS], np.array([6], np.int32), []])
    assert ids.dtype == np.int64
    assert ids.tolist() == [[4, 5, 2], [6, 0, 0], [0, 0, 0]]
    assert pad_batch([[1], [2, 3]], pad=9).tolist() == [[1, 9], [2, 3]]


@pytest.mark.parametrize(("rows", "error", "message"), [
    ([], ValueError, "0 rows"),
    ([[], []], ValueError, "2 rows, all empty"),
    ([1, 2], ValueError, "row 0 has shape"),
    ([[1], [[2]]], ValueError, "row 1 has shape"),
    ([["a"]], TypeError, "row 0 holds <U1"),
    ([[1], [0.5]], TypeError, "row 1 holds float64"),
])
def test_pad_batch_errors(rows, error, message):
    with pytest.raises(error, match=message):
        pad_batch(rows)


def lengths(n=1000, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.integers(2, 30, n)
    return np.maximum(target + rng.integers(-4, 5, n), 1), target


def test_token_batches():
    source, target = lengths()
    batches = token_batches(source, target, 256, np.random.default_rng(1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    longest = [max(source[batch].max(), target[batch].max()) for batch in batches]
    sizes = [len(batch) * most for batch, most in zip(batches, longest, strict=True)]
    assert max(sizes) <= 256
    assert np.mean(sizes) > 200                                                 # they are filled
    full = (source.sum() + target.sum()) / sum(
        len(batch) * (source[batch].max() + target[batch].max()) for batch in batches)
    assert full > 0.8                                                           # and little of it is padding
    order = np.corrcoef(longest, np.arange(len(batches)))[0, 1]
    assert abs(order) < 0.5                                                     # and short ones do not come first


def test_token_batches_fill_exactly():
    batches = token_batches([4] * 10, [4] * 10, 12, np.random.default_rng(0))
    assert sorted(map(len, batches)) == [1, 3, 3, 3]
    assert [len(batch) for batch in token_batches([12], [3], 12, np.random.default_rng(0))] == [1]


def test_token_batches_are_by_their_rng():
    def run(seed):
        return [batch.tolist() for batch in token_batches(*lengths(), 256, np.random.default_rng(seed))]

    assert run(0) == run(0)
    assert {frozenset(batch) for batch in run(0)} != {frozenset(batch) for batch in run(1)}     # other neighbours too


@pytest.mark.parametrize(("source", "target", "message"), [
    ([3, 4], [3], "shapes"),
    ([], [], "shapes"),
    ([[3]], [[3]], "shapes"),
    ([3, 4, 2], [3, 9, 2], "pair 1 is 9 tokens long, and a batch may hold 8"),
])
def test_token_batches_errors(source, target, message):
    with pytest.raises(ValueError, match=message):
        token_batches(source, target, 8, np.random.default_rng(0))


# Files of pairs


def put(path, data):
    if isinstance(data, str):
        data = data.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("names", [("a.de", "a.en"), ("a.de.gz", "a.en.gz"), ("a.de", "a.en.gz")])
def test_read_parallel(tmp_path, names):
    source = put(tmp_path / names[0], "\ufeffein Hund \r\nzwei\u2028Hunde\r\n")     # U+2028 is no line's end here
    target = put(tmp_path / names[1], "a dog\n two dogs")
    assert read_parallel(source, str(target)) == [("ein Hund", "a dog"), ("zwei\u2028Hunde", "two dogs")]


def test_gzip_is_known_by_its_first_bytes(tmp_path):
    path = tmp_path / "packed.txt"
    path.write_bytes(gzip.compress("猫\tcat\n".encode()))
    assert read_tsv(path) == [("猫", "cat")]


@pytest.mark.parametrize(("source", "target", "message"), [
    ("a\nb\nc\n", "a\nb\n", r"a\.txt has 3 lines and .*b\.txt has 2.*line 3 has none"),
    ("a\nb\n", "a\n\n", r"b\.txt, line 2: is empty"),
    ("a\n \t\nc\n", "a\nb\nc\n", r"a\.txt, line 2: is empty"),
    ("a\nb\n", "a\nb\n\n", r"has 2 lines and .* has 3"),
    ("", "a\n", r"a\.txt is empty"),
    ("a\n", b"caf\xe9\n", r"b\.txt, line 1: is not UTF-8.*0xe9 at 3"),
    ("a\nb\n", b"a\n\xb0\xa1\n", r"b\.txt, line 2: is not UTF-8.*GB18030"),
    ("a\n", "a\n".encode("utf-16"), r"b\.txt, line 1: is UTF-16"),
])
def test_read_parallel_errors(tmp_path, source, target, message):
    with pytest.raises(ValueError, match=message):
        read_parallel(put(tmp_path / "a.txt", source), put(tmp_path / "b.txt", target))


def test_broken_gzip(tmp_path):
    good = put(tmp_path / "good.txt", "line\n" * 1000)
    random = np.random.default_rng(0).integers(97, 122, 20_000).astype(np.uint8).tobytes()
    packed = gzip.compress(random)
    cut, damaged, plain = (tmp_path / name for name in ("cut.gz", "damaged.gz", "plain.gz"))
    cut.write_bytes(packed[: len(packed) // 2])
    damaged.write_bytes(packed[:-6] + b"\0\0" + packed[-4:])                    # its check sum
    plain.write_bytes(b"a\nb\n")
    for path in (cut, damaged):
        with pytest.raises(ValueError, match=rf"{path.name}.*gzip file is broken"):
            read_parallel(good, path)
        with pytest.raises(ValueError, match=rf"{path.name}.*gzip file is broken"):
            read_tsv(path)
    with pytest.raises(ValueError, match=r"plain\.gz is named \.gz"):
        read_tsv(plain)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        read_tsv(tmp_path / "none.txt")


@pytest.mark.parametrize("name", ["cmn.txt", "cmn.tsv.gz"])
def test_read_tsv(tmp_path, name):
    path = put(tmp_path / name, "\ufeffHi.\t嗨。\tCC-BY\r\nI run. \t 我跑。\r\n")
    assert read_tsv(path) == [("Hi.", "嗨。"), ("I run.", "我跑。")]
    assert read_tsv(path, columns=(1, 0)) == [("嗨。", "Hi."), ("我跑。", "I run.")]


@pytest.mark.parametrize(("content", "columns", "message"), [
    ("a\tb\n\nc\td\n", (0, 1), r"t\.tsv, line 2: is empty"),
    ("a\tb\nc d\n", (0, 1), r"t\.tsv, line 2: has 1 column\(s\), and column 1 .*'c d'"),
    ("a\tb\n", (0, 2), r"t\.tsv, line 1: has 2 column"),
    ("a\tb\nc\t \n", (0, 1), r"t\.tsv, line 2: column 1 .* is empty"),
    ("a\tb\n\td\n", (0, 1), r"t\.tsv, line 2: column 0 .* is empty"),
    (b"a\tb\nc\t\xff\n", (0, 1), r"t\.tsv, line 2: is not UTF-8"),
    ("", (0, 1), r"t\.tsv is empty"),
    ("a\tb\n", (1, 1), r"columns are \(1, 1\)"),
    ("a\tb\n", (0, -1), r"columns are \(0, -1\)"),
    ("a\tb\n", (0,), r"columns are \(0,\)"),
])
def test_read_tsv_errors(tmp_path, content, columns, message):
    with pytest.raises(ValueError, match=message):
        read_tsv(put(tmp_path / "t.tsv", content), columns)


# Word vectors

VECTORS = "cat 1 2 -3e-1\ndog 0.5 0.25 8\n. . . 1 1 1\ncat 9 9 9\nfish 3 2 1\n"


@pytest.mark.parametrize("name", ["v.txt", "v.txt.gz"])
@pytest.mark.parametrize("head", ["", "5 3\n"])
def test_load_word_vectors(tmp_path, name, head):
    vocabulary = Vocabulary(["dog", "horse", "cat", "cow"])
    path = put(tmp_path / name, head + VECTORS)
    table, share, missing = load_word_vectors(path, vocabulary, np.random.default_rng(0), width=3)
    assert table.shape == (8, 3) and table.dtype == np.float32
    assert share == 0.5 and missing == ["horse", "cow"]
    assert table[4].tolist() == [0.5, 0.25, 8]
    assert np.array_equal(table[6], np.array([1, 2, -0.3], np.float32))         # the first cat, not the second
    assert not table[PAD].any() and all(table[i].any() for i in (BOS, EOS, UNK, 5, 7))
    again = load_word_vectors(path, vocabulary, np.random.default_rng(0))
    assert np.array_equal(again.table, table)


def test_missing_words_look_like_the_others(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal([5, -5], [0.1, 2.0], (500, 2))
    path = put(tmp_path / "v.txt", "".join(f"w{i} {a} {b}\n" for i, (a, b) in enumerate(values)))
    vocabulary = Vocabulary([f"w{i}" for i in range(500)] + [f"x{i}" for i in range(500)])
    found = load_word_vectors(path, vocabulary, rng)
    assert found.share == 0.5
    drawn = found.table[-500:]
    assert np.allclose(drawn.mean(axis=0), [5, -5], atol=0.5) and np.allclose(drawn.std(axis=0), [0.1, 2], rtol=0.2)


@pytest.mark.parametrize(("content", "width", "message"), [
    (VECTORS, 4, r"v\.txt, line 1: the vectors have width 3, and the model's is 4"),
    ("5 3\n" + VECTORS, 2, r"v\.txt, line 1: the vectors have width 3"),
    ("cat 1 2 3\ndog 1 2\n", None, r"v\.txt, line 2: has 2 numbers; expected a word and 3"),
    ("cat 1 2 3\ndog 1 2 3 4\n", None, r"v\.txt, line 2: has more than 3 numbers"),
    ("cat 1 2 3\ncow 1 x 3\n", None, r"v\.txt, line 2: is broken .*'x'"),
    ("cat 1 2 3\n\ncow 1 2 3\n", None, r"v\.txt, line 2: has 0 numbers"),
    ("cat 1 2 3\ncow 1 nan 3\n", None, r"v\.txt, line 2: .*not finite"),
    ("2 3\ncat 1 2 3\ncow 1 2\n", None, r"v\.txt, line 3: has 2 numbers"),
    ("9 3\ncat 1 2 3\n", None, r"v\.txt, line 1: promises 9 vectors, and 1 lines follow"),
    ("9 3\n", None, r"v\.txt, line 1: .*no vectors follow"),
    ("9 0\ncat\n", None, r"v\.txt, line 1: has no numbers"),
    ("cat\n", None, r"v\.txt, line 1: has no numbers"),
    (b"cat 1 2 3\n\xff 1 2 3\n", None, r"v\.txt, line 2: is not UTF-8"),
    ("COW 1 2 3\n", None, r"has none of the 1 words, such as \['cat'\]"),
    ("", None, "is empty"),
])
def test_load_word_vectors_errors(tmp_path, content, width, message):
    with pytest.raises(ValueError, match=message):
        load_word_vectors(put(tmp_path / "v.txt", content), Vocabulary(["cat"]), np.random.default_rng(0), width)


# Byte pair encoding

SENTENCES = ["the lowest of the low", "the newest and the widest", "lower and lower and newer", "je suis étudiant"] * 5


def test_bpe(tmp_path):
    pytest.importorskip("tokenizers")
    bpe = train_bpe(SENTENCES, 60)
    assert 30 < len(bpe) <= 60
    for text in (*SENTENCES, "the slowest water"):
        ids = bpe.encode(text)
        assert all(i > UNK for i in ids), text                                  # no word is unknown, even a new one
        assert bpe.decode([BOS, *ids, EOS, PAD, 5]) == text
        assert len(bpe.tokens(text)) == len(ids) < len(text)
    assert bpe.encode("the 猫").count(UNK) == 1
    bpe.save(tmp_path / "bpe.json")
    again = Bpe.load(tmp_path / "bpe.json")
    assert len(again) == len(bpe) and again.encode("the newest") == bpe.encode("the newest")
    assert again.encode("e\u0301tudiant") == bpe.encode("\u00e9tudiant")


def test_bpe_errors(tmp_path):
    pytest.importorskip("tokenizers")
    bpe = train_bpe(SENTENCES, 60)
    with pytest.raises(ValueError, match="id 900 is not in this vocabulary"):
        bpe.decode([900])
    path = put(tmp_path / "bpe.json", '{"words": []}')
    with pytest.raises(ValueError, match=r"bpe\.json is not a file that Bpe\.save wrote"):
        Bpe.load(path)
    with pytest.raises(FileNotFoundError):
        Bpe.load(tmp_path / "none.json")


@pytest.mark.parametrize(("sentences", "size", "error", "message"), [
    (["a"], 4, ValueError, "size is 4"), ([], 60, ValueError, "no sentences"), ("a cat", 60, TypeError, "one str"),
])
def test_train_bpe_errors(sentences, size, error, message):
    with pytest.raises(error, match=message):
        train_bpe(sentences, size)


def test_bpe_without_its_library(monkeypatch, tmp_path):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "tokenizers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'tinymae\[text\]'"):
        train_bpe(SENTENCES, 60)
    with pytest.raises(ImportError, match=r"pip install 'tinymae\[text\]'"):
        Bpe.load(tmp_path / "bpe.json")
