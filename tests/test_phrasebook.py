"""The phrasebook is two functions, its held-out sentences are fair, and its dates are right."""
import datetime
import re

import numpy as np
import pytest

from tinymae.text.corpus import split
from tinymae.text.grammar import phrasebook
from tinymae.text.phrases import FIXED
from tinymae.text.toys import FRENCH_FIXED, MONATE, MONTHS, WEEKDAYS, dates, french, written


@pytest.fixture(scope="module")
def pairs():
    return phrasebook()


def words_of(pair):
    return {*pair[0].split(), *pair[1]}


# The grammar


def test_both_directions_are_functions(pairs):
    assert len(pairs) >= 20_000
    assert len({english for english, _ in pairs}) == len(pairs)
    assert len({chinese for _, chinese in pairs}) == len(pairs)


def test_it_is_always_the_same(pairs):
    assert phrasebook() == pairs


def test_what_sentences_are_made_of(pairs):
    for english, chinese in pairs:
        assert re.fullmatch(r"[a-z']+( [a-z']+)*( \?)?", english), english
        assert re.fullmatch(r"[\u4e00-\u9fff]+(，[\u4e00-\u9fff]+)?", chinese), chinese


def test_questions_are_questions(pairs):
    """A Chinese sentence has a question word or 吗 or ends in 没, and no other has, just where English has its sign."""
    asks = re.compile("吗$|什么|哪里|几|多少|谁|没$")
    for english, chinese in pairs:
        assert english.endswith(" ?") == bool(asks.search(chinese)), (english, chinese)


@pytest.mark.parametrize("pair", [
    ("i have a cat", "我有一只猫"),
    ("i do not have a cat", "我没有猫"),
    ("she has three umbrellas", "她有三把雨伞"),
    ("how many horses do they have ?", "他们有几匹马"),
    ("why do we work ?", "为什么要工作"),
    ("have you eaten ?", "吃饭没"),
    ("i have not eaten", "没吃饭"),
    ("there is nothing to eat", "没饭吃"),
    ("i am a student", "我是学生"),
    ("they are students", "他们是学生"),
    ("the animal didn't cross the street because it was too tired", "那只动物没有过马路，因为它太累了"),
    ("the animal didn't cross the street because it was too wide", "那只动物没有过马路，因为马路太宽了"),
    ("he drank two cups of tea yesterday", "他昨天喝了两杯茶"),
    ("i read for two hours yesterday", "我昨天看了两个小时书"),
    ("my father does not like cats", "我爸爸不喜欢猫"),
    ("my mother has been to beijing", "我妈妈去过北京"),
    ("this book is more expensive than that book", "这本书比那本书贵"),
    ("there is a cat on the table", "桌子上有一只猫"),
    ("there is no cat on the table", "桌子上没有猫"),
    ("he goes to school by bicycle", "他骑自行车去学校"),
    ("she studies every day", "她每天都学习"),
    ("he watches television every day", "他每天都看电视"),
    ("my father is taller than me", "我爸爸比我高"),
])
def test_sentences(pairs, pair):
    assert pair in set(pairs)


def test_english_agrees(pairs):
    """An before vowels; he likes, they like; he is, they are."""
    one = r"(he|she|my father|my mother|my older brother|my younger sister|the teacher|the doctor)"
    several = "(i|you|we|they|the children)"
    wrong = re.compile(rf"\ba [aeiou]|\ban [^aeiou]|^{one} (are|am|have|do|were|like|want|go|study|watch)\b"
                       rf"|^{several} (is|has|does|likes|wants|goes|studies|watches)\b"
                       rf"|^i are|^(you|we|they) was|^i were|^(do|are|were) {one}\b|^(does|is|was|has) {several}\b")
    for english, _ in pairs:
        assert not wrong.search(english), english
    assert wrong.search("my father have a cat") and wrong.search("i have a apple") and wrong.search("does they swim ?")


def test_chinese_is_as_written(pairs):
    """两, not 二, before measure words; 有 is negated by 没 only; no 一 after a negation or before 吗."""
    unit = "[只条匹头本支张把顶件块部台个辆栋根杯瓶碗片]"
    wrong = re.compile(f"(?<!十)二{unit}|不有|没有?[买吃喝]?一{unit}|不想.一{unit}|一{unit}.*吗$"
                       "|^[^，]*没[^，]*了$|[一两]猫")
    for _, chinese in pairs:
        assert not wrong.search(chinese), chinese
    assert wrong.search("我没有一只猫") and wrong.search("我有二只猫") and wrong.search("我昨天没去学校了")


def test_each_noun_keeps_its_measure_word(pairs):
    noun = re.compile(r"有一(.)([^吗在]+)$")
    measures = {}
    for _, chinese in pairs:
        if found := noun.search(chinese):
            measures.setdefault(found[2], set()).add(found[1])
    assert len(measures) > 35 and measures["猫"] == {"只"} and measures["书"] == {"本"}
    assert all(len(measure) == 1 for measure in measures.values()), measures


# Held out


def test_split(pairs):
    train, held = split(pairs, held_out=700, seed=3)
    assert len(held) == 700 and len(set(held)) == 700
    assert sorted(train + held) == sorted(pairs)
    assert not {english for english, _ in train} & {english for english, _ in held}
    assert not {chinese for _, chinese in train} & {chinese for _, chinese in held}
    assert set(FIXED) <= set(train)
    counts = {}
    for pair in train:
        for word in words_of(pair):
            counts[word] = counts.get(word, 0) + 1
    assert min(counts[word] for pair in held for word in words_of(pair)) >= 5


def test_split_is_by_its_seed(pairs):
    some = [pair for i, pair in enumerate(pairs) if i % 5 == 0 or pair in FIXED]
    first, again, other = (split(some, 50, seed=seed) for seed in (1, 1, 2))
    assert first == again and set(first[1]) != set(other[1])


def test_split_leaves_five_sentences_of_each_word():
    few = [(f"word {i} a", "一") for i in range(1)] + [(f"word {name}", "一") for name in "bcdefgh"]
    with pytest.raises(ValueError, match="only 0 can be spared"):
        split(few, 1)                                   # each second word is in one sentence only
    many = [(f"a {'b ' * n}c", "一") for n in range(1, 9)]
    train, held = split(many, 3)                        # 8 sentences of the same words: three can go
    assert (len(train), len(held)) == (5, 3)
    with pytest.raises(ValueError, match="held_out is 4, and of 8 pairs only 3"):
        split(many, 4)


def test_split_leaves_at_least():
    pairs = [(f"a {'b ' * n}c", "一") for n in range(1, 9)]
    train, held = split(pairs, 6, fixed=pairs[2:4], least=2)
    assert set(pairs[2:4]) <= set(train) and (len(train), len(held)) == (2, 6)
    with pytest.raises(ValueError, match=r"held_out is 7, .* only 6 can be spared: .* must be in 2 training sentences"):
        split(pairs, 7, least=2)


def test_split_counts_each_side_alone():
    """x stands in three sentences on the right and in one on the left: that one cannot be held out."""
    pairs = [("x", "u v"), ("u v", "x"), ("v u", "x"), ("u u v", "x")]
    with pytest.raises(ValueError, match="only 2 can be spared"):
        split(pairs, 3, words=(str.split, str.split), least=1)


@pytest.mark.parametrize("held_out", [0, -1])
def test_split_needs_a_number(held_out):
    with pytest.raises(ValueError, match=f"held_out is {held_out}"):
        split([("a", "一")], held_out)


def test_split_refuses_repeated_pairs():
    with pytest.raises(ValueError, match="1 pairs come twice"):
        split([("a", "一"), ("b", "二"), ("a", "一")], 1)


# French


def test_french():
    pairs = french()
    assert ("je suis étudiant", "i am a student") in pairs
    assert ("elle est étudiante", "she is a student") in pairs
    assert 30 <= len(pairs) <= 60
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


@pytest.mark.parametrize("seed", range(5))
def test_french_held_out(seed):
    pairs = french()
    train, held = split(pairs, 4, seed, words=(str.split, str.split), fixed=FRENCH_FIXED, least=2)
    assert len(held) == 4 and sorted(train + held) == sorted(pairs)
    assert FRENCH_FIXED == [("je suis étudiant", "i am a student")] and FRENCH_FIXED[0] in train
    for pair in held:
        for side in (0, 1):
            for word in pair[side].split():
                assert sum(word in trained[side].split() for trained in train) >= 2, (pair, word)


# Dates


def read_back(text):
    """The ISO form, by another road: find the year, the month's name or number, and the day."""
    if found := re.match(r"(\d{4})年(\d+)月(\d+)日|(\d{4})/(\d\d)/(\d\d)|(\d{4})-(\d\d)-(\d\d)", text):
        y, m, d = (int(x) for x in found.groups() if x)
    elif found := re.fullmatch(r"(\d+)\.(\d+)\.(\d{4})", text):
        d, m, y = map(int, found.groups())
    else:
        y, d = int(re.search(r"\d{4}", text)[0]), int(re.search(r"(?<!\d)\d{1,2}(?!\d)", text)[0])
        names = re.findall(r"[^\W\d]+", text)
        starts = [name[:3].lower() for name in names]
        m = next(i for table in (MONTHS, MONATE) for i, month in enumerate(table, 1) if month[:3].lower() in starts)
    date = datetime.date(y, m, d)
    for i, name in enumerate(WEEKDAYS):
        if re.search(rf"\b({name}|{name[:3]})\b", text, re.IGNORECASE):
            assert i == date.weekday(), text
    for i, name in enumerate("一二三四五六天"):
        if f"星期{name}" in text:
            assert i == date.weekday(), text
    return date.isoformat()


def test_dates_are_right():
    pairs = dates(5000, np.random.default_rng(0))
    assert len({text for text, _ in pairs}) == len(pairs) == 5000
    for text, iso in pairs:
        assert read_back(text) == iso, (text, iso)
    assert min(iso for _, iso in pairs) < "1903" and max(iso for _, iso in pairs) > "2096"


def test_a_date_in_all_its_ways():
    assert written(datetime.date(1979, 5, 3)) == [
        "3 May 1979", "03 May 1979", "3rd May 1979", "the 3rd of May, 1979", "May 3, 1979", "May 3rd, 1979",
        "May 3 1979", "MAY 3, 1979", "Thursday, May 3rd 1979", "Thursday, 3 May 1979", "Thu 3 May 1979",
        "thursday 3 may 1979",
        "1979年5月3日", "1979年5月3日 星期四", "03.05.1979", "3.5.1979", "3. Mai 1979", "3-May-1979", "1979/05/03",
        "1979-05-03",
    ]


def test_short_months_and_ends_of_days():
    assert {"03 Sep 1979", "3 September 1979"} <= set(written(datetime.date(1979, 9, 3)))
    ends = [written(datetime.date(2000, 1, day))[2].split()[0].lstrip("0123456789") for day in range(1, 32)]
    assert ends == ["st", "nd", "rd"] + ["th"] * 17 + ["st", "nd", "rd"] + ["th"] * 7 + ["st"]


def test_no_way_of_writing_means_two_days():
    """Every day of four years, in every way: no text stands for two of them."""
    seen = {}
    first = datetime.date(1999, 1, 1).toordinal()
    for ordinal in range(first, first + 4 * 365 + 1):
        day = datetime.date.fromordinal(ordinal)
        for text in written(day):
            assert seen.setdefault(text, day) == day, text


def test_dates_are_by_their_rng():
    assert dates(20, np.random.default_rng(1)) == dates(20, np.random.default_rng(1))
    assert dates(20, np.random.default_rng(1)) != dates(20, np.random.default_rng(2))


@pytest.mark.parametrize("count", [0, -3, 500_001])
def test_dates_need_a_number(count):
    with pytest.raises(ValueError, match=f"count is {count}"):
        dates(count, np.random.default_rng(0))
