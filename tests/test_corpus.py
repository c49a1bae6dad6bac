"""Sentence pairs by name and from files, and what is held out."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymae.text.corpus import Corpus, load_corpus, read_pairs, split_connected


def write(path, count=100):
    path.write_text("".join(f"Hello {i} .\t你好{i}。\tsomebody\n" for i in range(count)), encoding="utf-8")
    return str(path)


def test_phrasebook():
    corpus = load_corpus(["phrasebook"])
    assert (corpus.source, corpus.target) == ("characters", "words") and len(corpus.held_out) == 2000
    assert ("我有一只猫", "i have a cat") in corpus.train
    assert not set(corpus.train) & set(corpus.held_out)
    other = corpus.reversed()
    assert (other.source, other.target) == ("words", "characters") and ("i have a cat", "我有一只猫") in other.train
    assert other.reversed() == corpus


def test_dates():
    corpus = load_corpus(["dates"])
    assert (corpus.source, corpus.target) == ("letters", "letters") and len(corpus.held_out) > 1000
    assert not {iso for _, iso in corpus.train} & {iso for _, iso in corpus.held_out}


def test_french():
    corpus = load_corpus(["french"])
    assert (len(corpus.train), len(corpus.held_out)) == (41, 4) and not set(corpus.train) & set(corpus.held_out)
    assert ("je suis étudiant", "i am a student") in corpus.train
    known = {word for pair in corpus.train for side in pair for word in side.split()}
    assert {word for pair in corpus.held_out for side in pair for word in side.split()} <= known


def test_a_file_is_split_by_its_seed(tmp_path):
    path = write(tmp_path / "pairs.tsv")
    corpus = load_corpus([path])
    assert (corpus.source, corpus.target, len(corpus.train), len(corpus.held_out)) == ("words", "characters", 98, 2)
    assert load_corpus([path]) == corpus != load_corpus([path], seed=1)
    assert sorted(corpus.train + corpus.held_out) == sorted(read_pairs([path]))


@pytest.mark.parametrize(("text", "kind"), [
    ("ที่นี่", "characters"), ("ひらがな", "characters"), ("မြန်မာ", "characters"), ("ខ្មែរ", "characters"), ("ລາວ", "characters"),
    ("मैं यहाँ हूँ", "words"), ("나는 여기", "words"), ("été", "words"),
])
def test_scripts_without_spaces_are_cut_into_characters(tmp_path, text, kind):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{text if i < 60 else 'here'} {i}\there {i}\n" for i in range(100)), encoding="utf-8")
    corpus = load_corpus([str(path)])
    assert (corpus.source, corpus.target) == (kind, "words")


def test_pairs_to_be_judged_by_may_be_given(tmp_path):
    path, valid = write(tmp_path / "pairs.tsv"), write(tmp_path / "valid.tsv", 7)
    corpus = load_corpus([path], valid=[valid])
    assert isinstance(corpus, Corpus) and corpus.train == read_pairs([path]) and corpus.held_out == read_pairs([valid])


SENTENCES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=40)


@settings(derandomize=True, deadline=None, database=None, max_examples=100)
@given(SENTENCES, st.integers(1, 10), st.integers(0, 3))
def test_no_sentence_is_on_both_sides(numbers, held_out, seed):
    """Of neither language, whatever its case and spaces; and no pair is lost or doubled."""
    pairs = [(f"a {source}" if i % 2 else f"A  {source}", f"b{target}") for i, (source, target) in enumerate(numbers)]
    try:
        train, held, note = split_connected(pairs, held_out, seed)
    except ValueError as error:
        assert "that all share sentences" in str(error)
        linked = {("source", numbers[0][0])}                    # all that can be reached from the first pair
        while len(linked) < len(linked := linked | {
            end for s, t in numbers if {("source", s), ("target", t)} & linked for end in (("source", s), ("target", t))
        }):
            pass
        assert {("source", s) for s, _ in numbers} <= linked
        return
    assert sorted(train + held) == sorted(pairs) and train and held
    for side in (0, 1):
        sets = [{pair[side].lower().replace(" ", "") for pair in part} for part in (train, held)]
        assert not sets[0] & sets[1]
    assert (train, held, note) == split_connected(pairs, held_out, seed)
    assert len(held) <= held_out or " 1 groups" not in note


def test_validation_pairs_that_were_trained_on_are_counted(tmp_path):
    (tmp_path / "train.tsv").write_text("a\tb\nc\td\n", "utf-8")
    (tmp_path / "valid.tsv").write_text("A\tx\ne\tf\n", "utf-8")
    corpus = load_corpus([str(tmp_path / "train.tsv")], valid=[str(tmp_path / "valid.tsv")])
    assert corpus.note == "1 of the 2 validation pairs have a sentence that is also in the training set"


def test_a_few_sources_with_many_translations(tmp_path):
    """Ten groups of ten: the smallest is the validation set, larger than a fiftieth."""
    (tmp_path / "shared.tsv").write_text("".join(f"source {i % 10}\ttarget {i}\n" for i in range(100)), "utf-8")
    corpus = load_corpus([str(tmp_path / "shared.tsv")])
    assert len(corpus.held_out) == 10 and len({source for source, _ in corpus.held_out}) == 1
    assert "10 groups of up to 10 pairs" in corpus.note


def test_errors(tmp_path):
    path = write(tmp_path / "pairs.tsv", 1)
    with pytest.raises(ValueError, match=r"pairs.tsv: expected pairs for training and others for validation, got 1 "):
        load_corpus([path])
    with pytest.raises(ValueError, match="a source and a target file, got 3"):
        load_corpus(["a", "b", "c"])
    with pytest.raises(ValueError, match="stands alone"):
        load_corpus(["dates"], valid=[path])
    for data in (["phrasebook", path], [path, "dates"]):
        with pytest.raises(ValueError, match="stands alone"):
            load_corpus(data)


@pytest.mark.parametrize(("data", "error", "message"), [
    (["phrasebok"], FileNotFoundError, "no file 'phrasebok'; expected phrasebook, dates, french, a tab-separated"),
    ("ab", TypeError, "data is 'ab'; expected a list"), ([], ValueError, "got 0"),
])
def test_data_that_is_unknown(data, error, message):
    for function in (load_corpus, read_pairs):
        with pytest.raises(error, match=message):
            function(data)
