"""Text to batches and back."""
import itertools
import json
import sys
import unicodedata
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymae.text.batches import pad_batch, token_batches
from tinymae.text.tokens import detokenize, nfc, tokenize_characters, tokenize_words
from tinymae.text.vocabulary import BOS, EOS, PAD, UNK, Vocabulary

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
])
def test_tokenize_words(text, tokens):
    assert tokenize_words(text) == tokens.split()


@pytest.mark.parametrize(("text", "tokens"), [
    ("मैं पानी पीती हूँ।", "मैं पानी पीती हूँ ।"),                            # Hindi
    ("\u0645\u064e\u0631\u0652\u062d\u061f", "\u0645\u064e\u0631\u0652\u062d \u061f"),                 # Arabic, with vowels
    ("\u0645\u06cc\u200c\u0631\u0648\u0645", "\u0645\u06cc\u200c\u0631\u0648\u0645"),       # Persian, with a non-joiner
    ("\u05e6\u05d4\u05f4\u05dc", "\u05e6\u05d4\u05f4\u05dc"),                           # Hebrew, with gershayim
    ("ինչպե՞ն ինչ՞", "ինչպե՞ն ինչ ՞"),                                          # Armenian
    ("\u0130zmir'de", "i\u0307zmir'de"),                                        # Turkish
    ("\u0130\u0323 q\u0307\u0323uv", "\u1ecb\u0307 q\u0323\u0307uv"),               # two marks, in Unicode's order
    ("col·lecció, a·b", "col·lecció , a · b"),                                  # Catalan
    ("co\u00adop", "co\u00adop"),                                               # a soft hyphen
    ("\u1793\u17b7\u1784\u200b\u1785\u17b6", "\u1793\u17b7\u1784 \u200b \u1785\u17b6"), # Khmer, with a zero-width space
    ("I\u2764\ufe0fNY\U0001f44b\U0001f3fe!", "i \u2764\ufe0f ny \U0001f44b\U0001f3fe !"),     # emoji: in colour, a skin tone
    ("\U0001f468\u200d\U0001f680\U0001f468\u200d\U0001f680", "\U0001f468\u200d\U0001f680 \U0001f468\u200d\U0001f680"),  # two
    ("\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7 \U0001f1e9\U0001f1ea"),        # two flags
    ("3\ufe0f\u20e3 3.5\u20e3x \u0301 a", "3\ufe0f\u20e3 3.5\u20e3 x \u0301 a"),    # keys; a mark that follows a space
])
def test_marks_belong_to_the_character_before_them(text, tokens):
    assert tokenize_words(text) == tokens.split()


def test_tokenize_words_may_keep_capitals():
    assert tokenize_words("Why do we WORK?", lower=False) == ["Why", "do", "we", "WORK", "?"]


@pytest.mark.parametrize(("text", "tokens"), [
    ("我有一只猫", "我 有 一 只 猫"),
    ("我有 2024 年的T恤。", "我 有 2024 年 的 T 恤 。"),
    ("Tom喜欢café吗？", "Tom 喜 欢 café 吗 ？"),
    ("New York 很大", "New York 很 大"),
    ("\U00020000\u3000猫", "\U00020000 猫"),
    ("ที่นี่ Cafe\u0301", "ที่ นี่ Caf\u00e9"),
    ("Q\u0323b\U0001f44b\U0001f3fe\U0001f44b", "Q\u0323b \U0001f44b\U0001f3fe \U0001f44b"),
])
def test_tokenize_characters(text, tokens):
    assert tokenize_characters(text) == tokens.split(" ")


@pytest.mark.parametrize(("text", "characters"), [
    ("why do we work?", False), ("i have a cat (and a dog), he said: yes; 50%!", False), ("", False),
    ("a t-shirt and a mother-in-law.", False), ("a 1990-style (1-2) coat", False),
    ('he said, "go home", and ("why?")', False), ('"a" "b", "(c)"!', False),
    ("वह घर है। और", False), ("\u0645\u0627\u060c \u0644\u0627\u061f", False),
    ("a,\u200f b.\u200e c", False),                                             # marks of direction on punctuation
    ("\u05d1\u05d9\u05ea\u05be\u05e1\u05e4\u05e8", False), ("\u1793\u17b7\u1784\u200b\u1785\u17b6", False),
    ("አ፡በ።", False), ("བོད་སྐད", False), ("ที่นี่", True),
    ("我有一只猫", True), ("我住在New York很久", True), ("我有2024年的T恤。", True), ("a 1 b", True),
])
def test_detokenize_undoes_it(text, characters):
    tokens = tokenize_characters(text) if characters else tokenize_words(text)
    assert detokenize(tokens, characters=characters) == text


@pytest.mark.parametrize(("tokens", "text"), [
    ("- a", "- a"), ("a -", "a -"), ("-", "-"),                                 # a hyphen with a word on one side at most
    ("a - ( b ) - c", "a - (b) - c"), ("a - , b", "a -, b"), ("a - - b", "a - - b"), ("a . - b", "a. - b"),
    ('a - " b "', 'a - "b"'), ("<unk> - free", "<unk>-free"),
    ("5 - 3", "5-3"), ("and / or the dogs ' bones", "and / or the dogs ' bones"),    # what the docstring admits
    ('" a', '"a'), ('a "', 'a "'), ('" "', '""'), ('" a " b " c', '"a" b "c'),  # quotes that do not all come in pairs
])
def test_detokenize_signs(tokens, text):
    assert detokenize(iter(tokens.split())) == text


def test_signs_between_characters_take_no_spaces():
    assert detokenize(["猫", "-", "狗", '"', "猫", '"'], characters=True) == '猫-狗"猫"'


SCRIPTS = (                                                     # as the names of their letters begin
    "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "HEBREW", "ARABIC", "SYRIAC", "THAANA", "NKO", "SAMARITAN",
    "MANDAIC", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA",
    "ETHIOPIC", "MONGOLIAN", "TIFINAGH", "CHEROKEE", "HANGUL", "OL CHIKI", "MEETEI MAYEK", "CHAKMA", "ADLAM", "TAGALOG",
    "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE", "HIRAGANA", "KATAKANA", "BALINESE",
)


def alphabets():
    """Letters and combining marks of each script, by their names; the two joiners are marks of every script."""
    kinds = {script: ([], ["\u0301", "\u200c", "\u200d"]) for script in SCRIPTS}
    begins = tuple(f"{script} " for script in SCRIPTS)
    for letter in map(chr, range(0x20000)):
        kind, name = unicodedata.category(letter)[0], unicodedata.name(letter, "")
        if kind in "LM" and name.startswith(begins):
            script = next(script for script in SCRIPTS if name.startswith(f"{script} "))
            kinds[script]["LM".index(kind)].append(letter)
    return kinds


def test_a_word_of_any_script_is_one_token():
    random = Random(0)
    for script, (letters, marks) in alphabets().items():
        assert len(letters) > 15, script
        words = ["".join(
            random.choice(letters) + "".join(random.choices(marks, k=random.randrange(4))) for _ in range(random.randint(1, 7))
        ) for _ in range(200)]
        assert tokenize_words(" ".join(words), lower=False) == [nfc(word) for word in words], script
        assert tokenize_words(" ".join(words)) == [nfc(word.lower()) for word in words], script
        for word in words:
            assert detokenize(tokenize_characters(word), characters=True) == nfc(word), script


def test_no_character_is_lost_in_any_text():
    random = Random(1)
    kinds = {}
    for letter in map(chr, range(sys.maxunicode + 1)):
        kinds.setdefault(unicodedata.category(letter), []).append(letter)
    kinds["emoji"] = [*map(chr, range(0x1F1E6, 0x1F200)), *map(chr, range(0x1F3F0, 0x1F470)), "\u200d", "\ufe0f"]
    kinds["signs"] = [*map(chr, range(128)), "\u00b7", "\u200b", "\u2010", "\u2019"]
    attached = {*kinds["Mn"], *kinds["Mc"], *kinds["Me"], *kinds["Cf"], *map(chr, range(0x1F3FB, 0x1F400))} - {"\u200b"}
    assert not any(letter.isalnum() or letter.isspace() for letter in attached)
    assert {letter for letter in attached if letter < "\u0300"} == {"\u00ad"}
    for _ in range(3000):
        text = "".join(random.choice(kinds[kind]) for kind in random.choices(list(kinds), k=random.randint(1, 30)))
        expected = nfc(text)
        for characters in (False, True):
            tokens = tokenize_characters(text) if characters else tokenize_words(text, lower=False)
            for made in ("".join(tokens), detokenize(tokens, characters=characters)):
                assert "".join(made.split()).replace("\u2019", "'") == "".join(expected.split()).replace("\u2019", "'")
            assert tokens == [token for token in tokens if token.split() == [token]]        # no white space, none empty
            alone = sum(token[0] in attached for token in tokens)               # marks that follow a space, or nothing
            assert alone == sum(b in attached and a.isspace() for a, b in itertools.pairwise(f" {expected}"))


def test_nfc():
    assert nfc("e\u0301te\u0301") == "\u00e9t\u00e9" and nfc("\u00e9t\u00e9") == "\u00e9t\u00e9"


@pytest.mark.parametrize("function", [tokenize_words, tokenize_characters, nfc])
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
    assert Vocabulary.build([["<unk>", "a"]]).words[4:] == ("a",)


def test_vocabulary_both_ways():
    vocabulary = Vocabulary(["i", "have", "a", "cat"])
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)
    assert vocabulary.encode(["i", "have", "a", "dog"]) == [4, 5, 6, UNK]
    assert vocabulary.unknown(["a", "dog", "i", "saw", "dog"]) == ["dog", "saw"]
    assert vocabulary.decode([BOS, 4, 5, PAD, UNK, 7, EOS, 4]) == ["i", "have", "<unk>", "cat"]
    assert vocabulary.decode(np.array([4, 7, EOS, PAD])) == ["i", "cat"]
    assert len(vocabulary) == 8


@pytest.mark.parametrize("i", [-1, 5])
def test_decode_refuses_foreign_ids(i):
    with pytest.raises(ValueError, match=f"id {i} is not in this vocabulary of 5 words"):
        Vocabulary(["a"]).decode([4, i])


@pytest.mark.parametrize(("words", "error", "message"), [
    (["a", "b", "a"], ValueError, "'a' comes 2 times"),
    (["a", "<eos>"], ValueError, "'<eos>' comes 2 times: the special tokens are added here"),
    (["a", ""], ValueError, "empty"),
    (["a", 3], TypeError, "word 3 is int"),
])
def test_vocabulary_errors(words, error, message):
    with pytest.raises(error, match=message):
        Vocabulary(words)


def test_build_errors():
    with pytest.raises(ValueError, match="min_count is 0; expected at least 1"):
        Vocabulary.build([["a"]], min_count=0)


def test_the_content_of_a_vocabulary():
    vocabulary = Vocabulary(["我", "étudiant", '"', "\\", "didn't", "\U00020000"])
    assert Vocabulary.of(json.loads(json.dumps(vocabulary.content()))).words == vocabulary.words


@pytest.mark.parametrize(("content", "message"), [
    (["a"], "no vocabulary"),
    ({"words": 5}, "no vocabulary"),
    ({"words": ["a", "b", "c", "d"]}, "no vocabulary"),
    ({"words": ["<pad>", "<bos>", "<eos>", "<unk>", "a", "a"]}, "not a valid.*'a' comes 2 times"),
    ({"words": ["<pad>", "<bos>", "<eos>", "<unk>", 7]}, "not a valid.*7 is int"),
    ({"words": ["<pad>", "<bos>", "<eos>", "<unk>", []]}, "not a valid"),
])
def test_what_is_no_vocabulary(content, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.of(content)


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
    ([3, 4, 2], [3, 9, 2], "pair 1 is 9 tokens long, but a batch may hold 8"),
])
def test_token_batches_errors(source, target, message):
    with pytest.raises(ValueError, match=message):
        token_batches(source, target, 8, np.random.default_rng(0))


PARTS = ["why", "don't", "3.5", "गाँव", "שָׁלוֹם", "నీరు", "می\u200cروم", "é", "🇫🇷", "👍🏽", ",", "?", "(", ")"]


@settings(derandomize=True, deadline=None, database=None, max_examples=100)
@given(st.lists(st.sampled_from(PARTS), max_size=8))
def test_cutting_again_changes_nothing(tokens):
    """Tokens, a sentence of them, and the tokens of that sentence."""
    assert tokenize_words(detokenize(tokens)) == tokens
