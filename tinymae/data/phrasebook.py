"""Sentences to learn from, made here: English <-> Chinese, a little French, and dates.

A small Transformer learns to translate in minutes when the sentences are regular, and what it learns can be measured
exactly when each has one translation. So this is a grammar, not a collection: tables of words, and patterns that put
them together.

    PATTERN                      ENGLISH                                CHINESE
    who has what                 i have a cat                           我有一只猫
    who does not                 i do not have a cat                    我没有猫
    who did what when            my father bought a book yesterday      我爸爸昨天买了一本书
    why                          why do you like cats ?                 你为什么喜欢猫

What a model has to find out, with nobody telling it: every noun has its measure word (一只猫, 一本书, 一把刀); 有 is
negated by 没有, other verbs by 不, or by 没 for what did not happen; time and place stand before the verb; a question
keeps the order of its statement; 很 where English says is; 了 for what is done and 过 for what one has lived through.

Each English sentence has one Chinese one and each Chinese sentence one English one: both directions are functions. So
another answer is a wrong answer, and exact match is a fair measure. For this the tables leave out what would be
ambiguous: older and bigger are both 大, so nobody is older here. English is in small letters, its signs stand apart;
Chinese has no sign at the end, as in the articles.

Which English tense stands for a Chinese verb without 了, 过 or 在 is settled by the pattern: 我住在北京 is i live in
beijing, never i lived. Where Chinese drops the subject (为什么要工作, 没吃饭) English takes the one of the articles:
we, i.
"""
import datetime
from collections import Counter
from typing import NamedTuple

import numpy as np


class Noun(NamedTuple):
    """A thing that can be counted."""

    one: str
    many: str
    zh: str
    measure: str

    @property
    def a(self):
        return _a(self.one)


class Person(NamedTuple):
    """Who does it; `verb` is how English verbs go with it: i, you (also we, they, the children) or he."""

    en: str
    zh: str
    verb: str

    @property
    def be(self):
        return {"i": "am", "you": "are", "he": "is"}[self.verb]

    @property
    def was(self):
        return "were" if self.verb == "you" else "was"

    @property
    def do(self):
        return "does" if self.verb == "he" else "do"

    @property
    def have(self):
        return "has" if self.verb == "he" else "have"

    def does(self, verb):
        """like -> likes, go -> goes, study -> studies, for he and she; only the first word changes."""
        if self.verb != "he":
            return verb
        first, *rest = verb.split(" ")
        if first.endswith(("o", "ch", "sh", "s")):
            first += "es"
        elif first.endswith("y") and first[-2] not in "aeiou":
            first = f"{first[:-1]}ies"
        else:
            first += "s"
        return " ".join([first, *rest])


class Activity(NamedTuple):
    """What one does: English in three forms; Chinese as verb and object: the time it takes stands between them."""

    base: str
    ing: str
    past: str
    verb: str
    object: str

    @property
    def zh(self):
        return self.verb + self.object


def _same(who, pronoun):
    """Whether a pronoun may be the person itself, or be among them: i than us, they gave him are no sentences here."""
    return who in PRONOUNS and who.zh[0] == pronoun[0]


def _a(word):
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _nouns(table):
    """Lines of `one [many] zh measure`; many is one + s when it is not given."""
    nouns = []
    for line in table.strip().splitlines():
        *english, zh, measure = [field.strip() for field in line.split(",")]
        nouns.append(Noun(english[0], english[1] if len(english) == 2 else f"{english[0]}s", zh, measure))
    return nouns


PRONOUNS = [
    Person("i", "我", "i"), Person("you", "你", "you"), Person("he", "他", "he"), Person("she", "她", "he"),
    Person("we", "我们", "you"), Person("they", "他们", "you"),
]
RELATIVES = [
    Person("my father", "我爸爸", "he"), Person("my mother", "我妈妈", "he"),
    Person("my older brother", "我哥哥", "he"), Person("my younger sister", "我妹妹", "he"),
    Person("the teacher", "老师", "he"), Person("the doctor", "医生", "he"), Person("the children", "孩子们", "you"),
]
PEOPLE = PRONOUNS + RELATIVES
ASKED = [person for person in PEOPLE if person.en not in ("i", "we")]         # one asks others, not oneself
OBJECTS = [("me", "我"), ("you", "你"), ("him", "他"), ("her", "她"), ("us", "我们"), ("them", "他们")]
OWNERS = [("my", "我"), ("your", "你"), ("his", "他"), ("her", "她"), ("our", "我们"), ("their", "他们")]

ANIMALS = _nouns("""
    cat, 猫, 只
    dog, 狗, 只
    bird, 鸟, 只
    rabbit, 兔子, 只
    sheep, sheep, 羊, 只
    fish, fish, 鱼, 条
    horse, 马, 匹
    cow, 牛, 头
""")
LAND_ANIMALS = [animal for animal in ANIMALS if animal.one != "fish"]
SMALL = _nouns("""
    book, 书, 本
    dictionary, dictionaries, 词典, 本
    magazine, 杂志, 本
    pen, 笔, 支
    pencil, 铅笔, 支
    map, 地图, 张
    photo, 照片, 张
    umbrella, 雨伞, 把
    key, 钥匙, 把
    knife, knives, 刀, 把
    hat, 帽子, 顶
    scarf, scarves, 围巾, 条
    shirt, 衬衫, 件
    sweater, 毛衣, 件
    watch, watches, 手表, 块
    phone, 手机, 部
    camera, 相机, 台
    cup, 杯子, 个
""")
LARGE = _nouns("""
    table, 桌子, 张
    bed, 床, 张
    chair, 椅子, 把
    computer, 电脑, 台
    television, 电视, 台
    car, 汽车, 辆
    bicycle, 自行车, 辆
    house, 房子, 栋
""")
FRUIT = _nouns("""
    apple, 苹果, 个
    orange, 橙子, 个
    pear, 梨, 个
    banana, 香蕉, 根
    egg, 鸡蛋, 个
    cake, 蛋糕, 个
""")
THINGS = SMALL + LARGE
OWNED = ANIMALS + THINGS
NUMBERS = [
    ("two", "两"), ("three", "三"), ("four", "四"), ("five", "五"), ("six", "六"), ("seven", "七"), ("eight", "八"),
    ("nine", "九"), ("ten", "十"),
]

# English, container, Chinese, measure word; what one drinks and what one eats.
DRINKS = [
    ("water", "cup", "水", "杯"), ("tea", "cup", "茶", "杯"), ("coffee", "cup", "咖啡", "杯"),
    ("milk", "cup", "牛奶", "杯"), ("juice", "cup", "果汁", "杯"), ("mineral water", "bottle", "矿泉水", "瓶"),
]
DISHES = [
    ("rice", "bowl", "米饭", "碗"), ("noodles", "bowl", "面条", "碗"), ("bread", "piece", "面包", "片"),
    ("meat", "piece", "肉", "块"),
]

# English place, its preposition for being there, Chinese place, and what Chinese adds to be in it.
PLACES = [
    ("school", "at", "学校", ""), ("the library", "in", "图书馆", ""), ("the hospital", "in", "医院", ""),
    ("the supermarket", "in", "超市", ""), ("the restaurant", "in", "饭馆", ""), ("the station", "at", "车站", ""),
    ("the airport", "at", "机场", ""), ("the park", "in", "公园", "里"), ("the museum", "in", "博物馆", ""),
    ("the cinema", "at", "电影院", ""), ("the office", "in", "办公室", ""), ("the zoo", "at", "动物园", ""),
]
OUTDOORS = [
    ("in the park", "公园里"), ("in the garden", "花园里"), ("at the zoo", "动物园里"), ("on the street", "街上"),
]
SPOTS = [
    ("on the table", "桌子上"), ("on the chair", "椅子上"), ("on the bed", "床上"), ("under the table", "桌子下面"),
    ("under the bed", "床下面"), ("in the bag", "包里"), ("in the car", "汽车里"), ("behind the door", "门后面"),
]
CITIES = [
    ("beijing", "北京"), ("shanghai", "上海"), ("nanjing", "南京"), ("hong kong", "香港"), ("tokyo", "东京"),
    ("london", "伦敦"), ("paris", "巴黎"), ("berlin", "柏林"), ("new york", "纽约"), ("china", "中国"),
    ("japan", "日本"), ("france", "法国"), ("germany", "德国"), ("england", "英国"),
]
TRANSPORT = [
    ("by bus", "坐公共汽车"), ("by train", "坐火车"), ("by subway", "坐地铁"), ("by taxi", "坐出租车"),
    ("by bicycle", "骑自行车"),
]

PAST = [
    ("yesterday", "昨天"), ("last night", "昨晚"), ("this morning", "今天早上"), ("last week", "上周"),
    ("last year", "去年"),
]
FUTURE = [("tomorrow", "明天"), ("tonight", "今晚"), ("next week", "下周"), ("next year", "明年")]
NEAR_PAST = PAST[:4]                                    # one does not go to the park last year
NEAR_FUTURE = FUTURE[:3]
DAYS = [
    ("monday", "星期一"), ("tuesday", "星期二"), ("wednesday", "星期三"), ("thursday", "星期四"), ("friday", "星期五"),
    ("saturday", "星期六"), ("sunday", "星期天"),
]
HOURS = [
    ("six", "六"), ("seven", "七"), ("eight", "八"), ("nine", "九"), ("ten", "十"), ("eleven", "十一"),
    ("twelve", "十二"),
]

ACTIVITIES = [
    Activity("read", "reading", "read", "看", "书"),
    Activity("sleep", "sleeping", "slept", "睡", "觉"),
    Activity("cook", "cooking", "cooked", "做", "饭"),
    Activity("work", "working", "worked", "工作", ""),
    Activity("study", "studying", "studied", "学习", ""),
    Activity("watch television", "watching television", "watched television", "看", "电视"),
    Activity("listen to music", "listening to music", "listened to music", "听", "音乐"),
    Activity("swim", "swimming", "swam", "游", "泳"),
    Activity("run", "running", "ran", "跑", "步"),
    Activity("dance", "dancing", "danced", "跳", "舞"),
    Activity("sing", "singing", "sang", "唱", "歌"),
    Activity("play football", "playing football", "played football", "踢", "足球"),
    Activity("drive", "driving", "drove", "开", "车"),
]
SKILLS = [(activity.base, activity.zh) for activity in ACTIVITIES if activity.base in (
    "cook", "swim", "dance", "sing", "play football", "drive")] + [
    ("ride a bicycle", "骑自行车"), ("ride a horse", "骑马"), ("draw", "画画"), ("speak chinese", "说中文"),
    ("speak english", "说英语"), ("speak french", "说法语"), ("speak japanese", "说日语"),
]
DAILY = [("get up", "起床", (0, 1, 2)), ("eat breakfast", "吃早饭", (0, 1, 2, 3)), ("start work", "上班", (1, 2, 3)),
         ("eat lunch", "吃午饭", (5, 6)), ("go to bed", "睡觉", (3, 4, 5))]        # with the hours that fit

FEELINGS = [
    ("tired", "累"), ("busy", "忙"), ("hungry", "饿"), ("thirsty", "渴"), ("happy", "高兴"), ("nervous", "紧张"),
    ("sad", "难过"),
]
TRAITS = [
    ("tall", "taller", "高"), ("young", "younger", "年轻"), ("clever", "cleverer", "聪明"),
    ("strong", "stronger", "强壮"), ("busy", "busier", "忙"), ("happy", "happier", "高兴"),
]
OF_ANIMALS = [
    ("big", "bigger", "大"), ("small", "smaller", "小"), ("fat", "fatter", "胖"), ("thin", "thinner", "瘦"),
    ("cute", "cuter", "可爱"), ("clever", "cleverer", "聪明"),
]
OF_THINGS = [
    ("big", "bigger", "大"), ("small", "smaller", "小"), ("expensive", "more expensive", "贵"),
    ("cheap", "cheaper", "便宜"), ("new", "newer", "新"), ("beautiful", "more beautiful", "漂亮"),
]
JOBS = [
    ("student", "学生"), ("teacher", "老师"), ("doctor", "医生"), ("nurse", "护士"), ("engineer", "工程师"),
    ("driver", "司机"), ("singer", "歌手"), ("writer", "作家"), ("farmer", "农民"), ("lawyer", "律师"),
    ("actor", "演员"), ("reporter", "记者"),
]
LANGUAGES = [("chinese", "中文"), ("english", "英语"), ("french", "法语"), ("japanese", "日语"), ("german", "德语")]

# The articles' own sentences and their nearest kin; `split` never holds these out.
FIXED = [
    ("i have a cat", "我有一只猫"),                     # article C, section 1
    ("why do we work ?", "为什么要工作"),               # article A, worked example
    # Article A, part 1: the same three characters, and their order is the meaning.
    ("have you eaten ?", "吃饭没"),
    ("i have not eaten", "没吃饭"),
    ("there is nothing to eat", "没饭吃"),
    ("have you drunk water ?", "喝水没"),
    ("i have not drunk water", "没喝水"),
    ("there is no water to drink", "没水喝"),
    ("have you taken the medicine ?", "吃药没"),
    ("i have not taken the medicine", "没吃药"),
    ("there is no medicine to take", "没药吃"),
    # Article D: what does it refer to? Here to the animal, then to the street.
    ("the animal didn't cross the street because it was too tired", "那只动物没有过马路，因为它太累了"),
    ("the animal didn't cross the street because it was too wide", "那只动物没有过马路，因为马路太宽了"),
    ("i am a student", "我是学生"),
    ("hello", "你好"),
    ("thank you", "谢谢"),
    ("goodbye", "再见"),
]
FRENCH_FIXED = [("je suis étudiant", "i am a student")]              # article D, training


WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]
MONATE = [
    "Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November",
    "Dezember",
]
FIRST_DAY, LAST_DAY = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
MOST_DATES = 500_000                    # of 1.3 million ways to write them; the last ones would take long to find
LEAST_SEEN = 5                          # a word seen once is hardly learned: `split` leaves it in more sentences


def phrasebook():
    """All sentences of the grammar.

    Returns
    -------
    pairs : list of (english, chinese), str both, over 30,000 and always in the same order; no English and no Chinese
        sentence comes twice. English has spaces between words and before ?, Chinese has none.
    """
    pairs = list(FIXED)
    for pattern in (_having, _liking, _trading, _seeing, _eating, _going, _doing, _routine, _describing, _reasons,
                    _owning, _finding, _being, _giving, _weather):
        pairs.extend(pattern())
    return list(dict.fromkeys(pairs))                   # what is in FIXED comes from its pattern again


def _having():
    for who in PEOPLE:
        for n in OWNED:
            yield f"{who.en} {who.have} {n.a}", f"{who.zh}有一{n.measure}{n.zh}"
            yield f"{who.en} {who.do} not have {n.a}", f"{who.zh}没有{n.zh}"
    for who in ASKED:
        for n in OWNED:
            yield f"{who.do} {who.en} have {n.a} ?", f"{who.zh}有{n.zh}吗"
            yield f"how many {n.many} {who.do} {who.en} have ?", f"{who.zh}有几{n.measure}{n.zh}"
    for who in PRONOUNS:
        for n in OWNED:
            for number, zh in NUMBERS:
                yield f"{who.en} {who.have} {number} {n.many}", f"{who.zh}有{zh}{n.measure}{n.zh}"


def _liking():
    liked = [(n.many, n.zh) for n in ANIMALS + FRUIT] + [(drink, zh) for drink, _, zh, _ in DRINKS + DISHES]
    liked += [(activity.ing, activity.zh) for activity in ACTIVITIES] + CITIES
    for what, zh in liked:
        for who in PEOPLE:
            yield f"{who.en} {who.does('like')} {what}", f"{who.zh}喜欢{zh}"
            yield f"{who.en} {who.do} not like {what}", f"{who.zh}不喜欢{zh}"
            yield f"{who.en} {who.does('like')} {what} very much", f"{who.zh}非常喜欢{zh}"
        for who in ASKED:
            yield f"{who.do} {who.en} like {what} ?", f"{who.zh}喜欢{zh}吗"
            yield f"why {who.do} {who.en} like {what} ?", f"{who.zh}为什么喜欢{zh}"
    for who in ASKED:
        yield f"what {who.do} {who.en} like ?", f"{who.zh}喜欢什么"


def _trading():
    for n in THINGS:
        for who in PEOPLE:
            yield f"{who.en} {who.does('want')} to buy {n.a}", f"{who.zh}想买一{n.measure}{n.zh}"
            yield f"{who.en} {who.do} not want to buy {n.a}", f"{who.zh}不想买{n.zh}"
            for when, zh in PAST:
                yield f"{who.en} bought {n.a} {when}", f"{who.zh}{zh}买了一{n.measure}{n.zh}"
            for when, zh in FUTURE:
                yield f"{who.en} will buy {n.a} {when}", f"{who.zh}{zh}要买一{n.measure}{n.zh}"
            yield f"{who.en} did not buy {n.a} yesterday", f"{who.zh}昨天没买{n.zh}"
        for who in ASKED:
            yield f"{who.do} {who.en} want to buy {n.a} ?", f"{who.zh}想买{n.zh}吗"
            yield f"why {who.do} {who.en} want to buy {n.a} ?", f"{who.zh}为什么想买{n.zh}"
            yield f"where did {who.en} buy this {n.one} ?", f"{who.zh}在哪里买的这{n.measure}{n.zh}"
        yield f"how much is this {n.one} ?", f"这{n.measure}{n.zh}多少钱"
        yield f"how much is that {n.one} ?", f"那{n.measure}{n.zh}多少钱"
    for who in ASKED:
        yield f"what {who.do} {who.en} want to buy ?", f"{who.zh}想买什么"
        yield f"what did {who.en} buy yesterday ?", f"{who.zh}昨天买了什么"


def _seeing():
    for who in PEOPLE:
        for n in LAND_ANIMALS:
            for where, zh in OUTDOORS:
                yield f"{who.en} saw {n.a} {where}", f"{who.zh}在{zh}看见了一{n.measure}{n.zh}"
                for number, zh_number in NUMBERS[:3]:
                    yield f"{who.en} saw {number} {n.many} {where}", f"{who.zh}在{zh}看见了{zh_number}{n.measure}{n.zh}"
        for n in OWNED:
            yield f"{who.en} {who.be} looking for {n.a}", f"{who.zh}在找一{n.measure}{n.zh}"


def _eating():
    counted = [(n.one, n.a, n.many, n.zh, n.measure) for n in FRUIT]
    kinds = [("eat", "eating", "ate", "吃", DISHES), ("drink", "drinking", "drank", "喝", DRINKS)]
    for who in PEOPLE:
        for base, ing, past, verb, table in kinds:
            for what, box, zh, measure in table:
                yield f"{who.en} {who.be} {ing} {what}", f"{who.zh}在{verb}{zh}"
                yield f"{who.en} {who.does(base)} {what} every day", f"{who.zh}每天都{verb}{zh}"
                yield f"{who.en} {who.does('want')} to {base} {what}", f"{who.zh}想{verb}{zh}"
                yield f"{who.en} {who.do} not want to {base} {what}", f"{who.zh}不想{verb}{zh}"
                yield f"{who.en} {who.does('want')} to {base} a {box} of {what}", f"{who.zh}想{verb}一{measure}{zh}"
                for when, zh_when in NEAR_PAST[:3]:
                    yield f"{who.en} {past} a {box} of {what} {when}", f"{who.zh}{zh_when}{verb}了一{measure}{zh}"
                    yield f"{who.en} did not {base} {what} {when}", f"{who.zh}{zh_when}没{verb}{zh}"
                    for number, zh_number in NUMBERS[:2]:
                        yield (f"{who.en} {past} {number} {box}s of {what} {when}",
                               f"{who.zh}{zh_when}{verb}了{zh_number}{measure}{zh}")
        for _, a, many, zh, measure in counted:
            yield f"{who.en} {who.be} eating {a}", f"{who.zh}在吃{zh}"
            yield f"{who.en} {who.does('want')} to eat {a}", f"{who.zh}想吃一{measure}{zh}"
            for when, zh_when in NEAR_PAST[:3]:
                yield f"{who.en} ate {a} {when}", f"{who.zh}{zh_when}吃了一{measure}{zh}"
                for number, zh_number in NUMBERS[:3]:
                    yield f"{who.en} ate {number} {many} {when}", f"{who.zh}{zh_when}吃了{zh_number}{measure}{zh}"
    for who in ASKED:
        for base, _, _, verb, table in kinds:
            for what, _, zh, _ in table:
                yield f"{who.do} {who.en} want to {base} {what} ?", f"{who.zh}想{verb}{zh}吗"
            yield f"what {who.do} {who.en} want to {base} ?", f"{who.zh}想{verb}什么"
            yield f"what did {who.en} {base} yesterday ?", f"{who.zh}昨天{verb}了什么"


def _going():
    for who in PEOPLE:
        for place, at, zh, inside in PLACES:
            yield f"{who.en} {who.be} {at} {place}", f"{who.zh}在{zh}{inside}"
            yield f"{who.en} {who.be} not {at} {place}", f"{who.zh}不在{zh}{inside}"
            yield f"{who.en} {who.does('want')} to go to {place}", f"{who.zh}想去{zh}"
            yield f"{who.en} {who.do} not want to go to {place}", f"{who.zh}不想去{zh}"
            yield f"{who.en} {who.does('go')} to {place} every day", f"{who.zh}每天都去{zh}"
            for when, zh_when in NEAR_PAST:
                yield f"{who.en} went to {place} {when}", f"{who.zh}{zh_when}去了{zh}"
                yield f"{who.en} did not go to {place} {when}", f"{who.zh}{zh_when}没去{zh}"
            for when, zh_when in NEAR_FUTURE:
                yield f"{who.en} will go to {place} {when}", f"{who.zh}{zh_when}要去{zh}"
            for by, zh_by in TRANSPORT:
                yield f"{who.en} {who.does('go')} to {place} {by}", f"{who.zh}{zh_by}去{zh}"
        for city, zh in CITIES:
            yield f"{who.en} {who.have} been to {city}", f"{who.zh}去过{zh}"
            yield f"{who.en} {who.have} not been to {city}", f"{who.zh}没去过{zh}"
            yield f"{who.en} {who.does('live')} in {city}", f"{who.zh}住在{zh}"
    for who in ASKED:
        for place, at, zh, inside in PLACES:
            yield f"{who.be} {who.en} {at} {place} ?", f"{who.zh}在{zh}{inside}吗"
            yield f"{who.do} {who.en} want to go to {place} ?", f"{who.zh}想去{zh}吗"
            yield f"why {who.do} {who.en} want to go to {place} ?", f"{who.zh}为什么想去{zh}"
        for city, zh in CITIES:
            yield f"{who.have} {who.en} been to {city} ?", f"{who.zh}去过{zh}吗"
        yield f"where {who.do} {who.en} want to go ?", f"{who.zh}想去哪里"
        yield f"where {who.do} {who.en} live ?", f"{who.zh}住在哪里"
        yield f"where {who.be} {who.en} ?", f"{who.zh}在哪里"
        yield f"where did {who.en} go yesterday ?", f"{who.zh}昨天去了哪里"
    for place, _, zh, _ in PLACES:
        yield f"where is {place} ?", f"{zh}在哪里"
        yield f"let us go to {place}", f"我们去{zh}吧"


def _grown_up(people, what):
    """Children neither work nor drive."""
    return [who for who in people if who.en != "the children" or what not in ("work", "drive", "start work")]


def _doing():
    for act in ACTIVITIES:
        yield f"why do we {act.base} ?", f"为什么要{act.zh}"
        for who in _grown_up(PEOPLE, act.base):
            yield f"{who.en} {who.be} {act.ing}", f"{who.zh}在{act.zh}"
            yield f"{who.en} {who.be} not {act.ing}", f"{who.zh}没在{act.zh}"
            yield f"{who.en} {who.does('want')} to {act.base}", f"{who.zh}想{act.zh}"
            yield f"{who.en} {who.do} not want to {act.base}", f"{who.zh}不想{act.zh}"
            yield f"{who.en} {who.does(act.base)} every day", f"{who.zh}每天都{act.zh}"
            for when, zh in NEAR_PAST[:3]:
                yield f"{who.en} did not {act.base} {when}", f"{who.zh}{zh}没{act.zh}"
            for number, zh in NUMBERS[:4]:
                yield (f"{who.en} {act.past} for {number} hours yesterday",
                       f"{who.zh}昨天{act.verb}了{zh}个小时{act.object}")
        for who in _grown_up(ASKED, act.base):
            yield f"{who.be} {who.en} {act.ing} ?", f"{who.zh}在{act.zh}吗"
            yield f"why {who.be} {who.en} {act.ing} ?", f"{who.zh}为什么在{act.zh}"
            yield f"{who.do} {who.en} want to {act.base} ?", f"{who.zh}想{act.zh}吗"
    for skill, zh in SKILLS:
        for who in _grown_up(PEOPLE, skill):
            yield f"{who.en} can {skill}", f"{who.zh}会{zh}"
            yield f"{who.en} cannot {skill}", f"{who.zh}不会{zh}"
        for who in _grown_up(ASKED, skill):
            yield f"can {who.en} {skill} ?", f"{who.zh}会{zh}吗"
    for language, zh in LANGUAGES:
        for who in PEOPLE:
            yield f"{who.en} {who.be} learning {language}", f"{who.zh}在学{zh}"
            yield f"{who.en} {who.does('want')} to learn {language}", f"{who.zh}想学{zh}"
        for who in ASKED:
            yield f"why {who.be} {who.en} learning {language} ?", f"{who.zh}为什么在学{zh}"


def _routine():
    for what, zh, hours in DAILY:
        for who in _grown_up(PEOPLE, what):
            for hour in hours:
                number, zh_number = HOURS[hour]
                yield f"{who.en} {who.does(what)} at {number} o'clock every day", f"{who.zh}每天{zh_number}点{zh}"
                yield f"{who.en} will {what} at {number} o'clock tomorrow", f"{who.zh}明天{zh_number}点{zh}"
                yield f"{who.en} {who.does(what)} at half past {number} every day", f"{who.zh}每天{zh_number}点半{zh}"
        for who in _grown_up(ASKED, what):
            yield f"what time {who.do} {who.en} {what} every day ?", f"{who.zh}每天几点{zh}"
    for number, zh in HOURS:
        yield f"it is {number} o'clock now", f"现在{zh}点"
        yield f"it is half past {number} now", f"现在{zh}点半"
    for day, zh in DAYS:
        yield f"today is {day}", f"今天是{zh}"
        yield f"yesterday was {day}", f"昨天是{zh}"
        yield f"tomorrow is {day}", f"明天是{zh}"
        yield f"is today {day} ?", f"今天是{zh}吗"
        for place, _, zh_place, _ in PLACES:
            for who in PEOPLE:
                yield f"{who.en} will go to {place} on {day}", f"{who.zh}{zh}要去{zh_place}"
    yield "what time is it now ?", "现在几点"
    yield "what day is it today ?", "今天星期几"


def _describing():
    for nouns, adjectives in ((ANIMALS, OF_ANIMALS), (THINGS, OF_THINGS)):
        for n in nouns:
            for adjective, more, zh in adjectives:
                this = f"这{n.measure}{n.zh}"
                that = f"那{n.measure}{n.zh}"
                for word, zh_word in (("this", this), ("that", that)):
                    yield f"{word} {n.one} is {adjective}", f"{zh_word}很{zh}"
                    yield f"{word} {n.one} is not {adjective}", f"{zh_word}不{zh}"
                    yield f"{word} {n.one} is very {adjective}", f"{zh_word}非常{zh}"
                    yield f"{word} {n.one} is too {adjective}", f"{zh_word}太{zh}了"
                    yield f"is {word} {n.one} {adjective} ?", f"{zh_word}{zh}吗"
                yield f"this {n.one} is {more} than that {n.one}", f"{this}比{that}{zh}"
                yield f"that {n.one} is {more} than this {n.one}", f"{that}比{this}{zh}"
                for owner, zh_owner in OWNERS:
                    yield f"{owner} {n.one} is {adjective}", f"{zh_owner}的{n.zh}很{zh}"
    for adjective, zh in FEELINGS:
        for who in PEOPLE:
            yield f"{who.en} {who.be} very {adjective} today", f"{who.zh}今天非常{zh}"
            yield f"{who.en} {who.was} {adjective} yesterday", f"{who.zh}昨天很{zh}"
            yield f"{who.en} {who.be} {adjective}", f"{who.zh}很{zh}"
            yield f"{who.en} {who.be} not {adjective}", f"{who.zh}不{zh}"
        for who in ASKED:
            yield f"{who.be} {who.en} {adjective} ?", f"{who.zh}{zh}吗"
            yield f"why {who.be} {who.en} so {adjective} ?", f"{who.zh}为什么这么{zh}"
    for adjective, more, zh in TRAITS:
        for who in PEOPLE:
            yield f"{who.en} {who.be} {adjective}", f"{who.zh}很{zh}"
            for than, other in OBJECTS:
                if not _same(who, other):
                    yield f"{who.en} {who.be} {more} than {than}", f"{who.zh}比{other}{zh}"


def _reasons():
    for who in PRONOUNS:
        for adjective, zh in FEELINGS:
            if adjective not in ("tired", "busy", "nervous", "sad"):
                continue
            for place, _, zh_place, _ in PLACES:
                yield (f"{who.en} did not go to {place} yesterday because {who.en} {who.was} too {adjective}",
                       f"因为{who.zh}太{zh}了，所以{who.zh}昨天没去{zh_place}")
            for act in ACTIVITIES:
                yield (f"{who.en} {who.do} not want to {act.base} because {who.en} {who.be} too {adjective}",
                       f"因为{who.zh}太{zh}了，所以{who.zh}不想{act.zh}")
    animals = [*LAND_ANIMALS, Noun("animal", "animals", "动物", "只")]
    ways = [("street", "马路"), ("river", "河"), ("bridge", "桥")]
    wide, narrow = [("wide", "宽"), ("dangerous", "危险")], [("narrow", "窄"), ("long", "长")]
    ways_too = {"street": wide, "river": wide, "bridge": narrow}
    for n in animals:
        for way, zh_way in ways:
            start = f"the {n.one} didn't cross the {way} because it was too"
            zh_start = f"那{n.measure}{n.zh}没有过{zh_way}，因为"
            for adjective, zh in (("tired", "累"), ("hungry", "饿"), ("old", "老"), ("small", "小")):
                yield f"{start} {adjective}", f"{zh_start}它太{zh}了"
            # The English it is now the street. Chinese cannot leave that open, so whoever translates has to know.
            for adjective, zh in ways_too[way]:
                yield f"{start} {adjective}", f"{zh_start}{zh_way}太{zh}了"


def _owning():
    for n in OWNED:
        for owner, zh in OWNERS:
            yield f"this is {owner} {n.one}", f"这是{zh}的{n.zh}"
            yield f"that is not {owner} {n.one}", f"那不是{zh}的{n.zh}"
            yield f"is this {owner} {n.one} ?", f"这是{zh}的{n.zh}吗"
            yield f"where is {owner} {n.one} ?", f"{zh}的{n.zh}在哪里"
        yield f"whose {n.one} is this ?", f"这是谁的{n.zh}"
        yield f"whose {n.one} is that ?", f"那是谁的{n.zh}"
    for n in SMALL:
        for owner, zh in OWNERS:
            for where, zh_where in SPOTS:
                yield f"{owner} {n.one} is {where}", f"{zh}的{n.zh}在{zh_where}"


def _finding():
    for where, zh in SPOTS:
        for n in [*ANIMALS[:4], *SMALL, *FRUIT]:
            yield f"there is {n.a} {where}", f"{zh}有一{n.measure}{n.zh}"
            yield f"there is no {n.one} {where}", f"{zh}没有{n.zh}"
            yield f"is there {n.a} {where} ?", f"{zh}有{n.zh}吗"
            for number, zh_number in NUMBERS[:3]:
                yield f"there are {number} {n.many} {where}", f"{zh}有{zh_number}{n.measure}{n.zh}"
        yield f"what is {where} ?", f"{zh}有什么"


def _being():
    for who in PEOPLE:
        several = who.verb == "you" and who.en != "you"
        for job, zh in JOBS:
            what = f"{job}s" if several else _a(job)
            if who.en == "the children":
                yield f"the children want to be {what}", f"孩子们想当{zh}"
            elif who.en not in ("the teacher", "the doctor"):
                yield f"{who.en} {who.be} {what}", f"{who.zh}是{zh}"
                yield f"{who.en} {who.be} not {what}", f"{who.zh}不是{zh}"
                if who in ASKED:
                    yield f"{who.be} {who.en} {what} ?", f"{who.zh}是{zh}吗"
                yield f"{who.en} {who.does('want')} to be {what}", f"{who.zh}想当{zh}"
        for city, zh in CITIES:
            yield f"{who.en} {who.does('come')} from {city}", f"{who.zh}来自{zh}"
    for who in ASKED:
        yield f"where {who.do} {who.en} come from ?", f"{who.zh}来自哪里"
    for who in PRONOUNS[1:]:
        yield f"who {who.be} {who.en} ?", f"{who.zh}是谁"


def _giving():
    gifts = [(n.a, f"一{n.measure}{n.zh}") for n in SMALL + FRUIT]
    gifts += [(f"a {box} of {what}", f"一{measure}{zh}") for what, box, zh, measure in DRINKS + DISHES]
    for what, zh in gifts:
        for receiver, zh_receiver in OBJECTS:
            if receiver != "you":
                yield f"please give {receiver} {what}", f"请给{zh_receiver}{zh}"
    for who in PEOPLE:
        for receiver, zh_receiver in OBJECTS[:4]:
            if _same(who, zh_receiver):
                continue
            for n in SMALL:
                yield f"{who.en} gave {receiver} {n.a}", f"{who.zh}给了{zh_receiver}一{n.measure}{n.zh}"


def _weather():
    for city, zh in CITIES[:9]:
        for adjective, zh_adjective in (("cold", "冷"), ("hot", "热"), ("warm", "暖和"), ("cool", "凉快")):
            yield f"it is {adjective} in {city} today", f"{zh}今天很{zh_adjective}"
            yield f"it is not {adjective} in {city} today", f"{zh}今天不{zh_adjective}"
            yield f"it was {adjective} in {city} yesterday", f"{zh}昨天很{zh_adjective}"
            yield f"it will be {adjective} in {city} tomorrow", f"{zh}明天会很{zh_adjective}"
            yield f"is it {adjective} in {city} today ?", f"{zh}今天{zh_adjective}吗"


def split(pairs, held_out=1000, seed=0, *, words=(str.split, list), fixed=FIXED, least=LEAST_SEEN):
    """Keep sentences apart, to ask a trained model what it never saw.

    A held-out sentence is a new combination of known words: each of its English words and Chinese characters is in at
    least five training sentences. The articles' own sentences (`FIXED`) are always trained on.

    For the 45 pairs of `french` both sides are words, and fewer sentences can be asked for:

        split(french(), 4, words=(str.split, str.split), fixed=FRENCH_FIXED, least=2)

    Parameters
    ----------
    pairs : list of (str, str); the defaults are for those of `phrasebook`, (english, chinese) in this direction
    held_out : int, how many to keep apart
    seed : int, which ones
    words : (function, function), how each side is cut into words; the same word on both sides counts as two
    fixed : list of pairs, never held out
    least : int, how many training sentences each word of a held-out one must be in

    Returns
    -------
    train, held : lists of pairs; train in the order of pairs, held in random order, so that its first hundred are a
        fair sample too

    Raises
    ------
    ValueError
        when a pair comes twice, held_out is below 1, or not so many pairs can be spared
    """
    if len(set(pairs)) != len(pairs):
        raise ValueError(f"{len(pairs) - len(set(pairs))} pairs come twice: one could be trained on and tested on")
    if held_out < 1:
        raise ValueError(f"held_out is {held_out}; expected at least 1")
    known = [{(side, word) for side in (0, 1) for word in words[side](pair[side])} for pair in pairs]
    left = Counter(word for sentence in known for word in sentence)
    fixed, held = set(fixed), []
    for i in np.random.default_rng(seed).permutation(len(pairs)).tolist():
        if len(held) == held_out:
            break
        if pairs[i] not in fixed and all(left[word] > least for word in known[i]):
            held.append(i)
            left.subtract(known[i])
    if len(held) < held_out:
        raise ValueError(f"held_out is {held_out}, and of {len(pairs)} pairs only {len(held)} can be spared: the "
                         f"words of a held-out sentence must be in {least} others")
    apart = set(held)
    return [pair for i, pair in enumerate(pairs) if i not in apart], [pairs[i] for i in held]


def french():
    """A tiny French -> English set around `je suis étudiant` -> `i am a student` (article D, training).

    Returns
    -------
    pairs : list of (french, english), str both; both directions are functions here too
    """
    pairs = [
        ("merci", "thanks"), ("bonjour", "hello"), ("au revoir", "goodbye"), ("bonne nuit", "good night"),
        ("oui", "yes"), ("non", "no"),
        ("pourquoi ?", "why ?"), ("où est la gare ?", "where is the station ?"), ("il pleut", "it is raining"),
    ]
    whats = [("étudiant", "a student"), ("avocat", "a lawyer"), ("fatigué", "tired"), ("content", "happy")]
    for who, english, ending in (
        ("je suis", "i am", ""), ("il est", "he is", ""), ("elle est", "she is", "e"),
        ("je ne suis pas", "i am not", ""),
    ):
        pairs += [(f"{who} {what}{ending}", f"{english} {english_what}") for what, english_what in whats]
    owned = [
        ("un chat", "a cat"), ("un chien", "a dog"), ("une maison", "a house"), ("une voiture", "a car"),
        ("un livre", "a book"),
    ]
    for who, english in (("j'ai", "i have"), ("tu as", "you have"), ("il a", "he has"), ("elle a", "she has")):
        pairs += [(f"{who} {what}", f"{english} {english_what}") for what, english_what in owned]
    return pairs


def dates(count, rng):
    """Dates as people write them, and as ISO 8601 does: `Thursday, May 3rd 1979` -> `1979-05-03`.

    They are for a model that reads and writes characters: list(written) are its tokens.

    Days from 1900 to 2099, each written in one of these ways; names of days are right, and no year has two digits:

        3 May 1979              May 3, 1979             Thursday, May 3rd 1979      1979年5月3日
        03 May 1979             May 3rd, 1979           Thursday, 3 May 1979        1979年5月3日 星期四
        3rd May 1979            May 3 1979              Thu 3 May 1979              03.05.1979
        the 3rd of May, 1979    MAY 3, 1979             thursday 3 may 1979         3.5.1979
        1979/05/03              1979-05-03              3-May-1979                  3. Mai 1979

    Numbers alone are read by their sign: with points the day comes first (German), with slashes and hyphens the year.
    5/3/79 does not occur: nobody can know which day it is. May hides it, but 03 May, May 3 without a comma, Thu 3 May
    and 3-May have months of three letters: 03 Sep 1979. The others are in full.

    Parameters
    ----------
    count : int, at most 500,000
    rng : numpy.random.Generator; the same state gives the same dates

    Returns
    -------
    pairs : list of (written, iso), str both; no written date comes twice, a day may, in two ways

    Raises
    ------
    ValueError
        when count is below 1 or above 500,000
    """
    if not 1 <= count <= MOST_DATES:
        raise ValueError(f"count is {count}; expected 1 to {MOST_DATES}")
    pairs = {}
    while len(pairs) < count:
        day = datetime.date.fromordinal(int(rng.integers(FIRST_DAY.toordinal(), LAST_DAY.toordinal() + 1)))
        ways = written(day)
        pairs[ways[int(rng.integers(len(ways)))]] = day.isoformat()
    return list(pairs.items())


def written(date):
    """All ways in which `dates` writes one day.

    Parameters
    ----------
    date : datetime.date, of a year with four digits

    Returns
    -------
    ways : list of str, always in the same order of formats
    """
    y, m, d = date.year, date.month, date.day
    day, month = WEEKDAYS[date.weekday()], MONTHS[m - 1]
    ending = "th" if d in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(d % 10, "th")
    return [
        f"{d} {month} {y}", f"{d:02} {month[:3]} {y}", f"{d}{ending} {month} {y}", f"the {d}{ending} of {month}, {y}",
        f"{month} {d}, {y}", f"{month} {d}{ending}, {y}", f"{month[:3]} {d} {y}", f"{month.upper()} {d}, {y}",
        f"{day}, {month} {d}{ending} {y}", f"{day}, {d} {month} {y}", f"{day[:3]} {d} {month[:3]} {y}",
        f"{day.lower()} {d} {month.lower()} {y}",
        f"{y}年{m}月{d}日", f"{y}年{m}月{d}日 {DAYS[date.weekday()][1]}",
        f"{d:02}.{m:02}.{y}", f"{d}.{m}.{y}", f"{d}. {MONATE[m - 1]} {y}", f"{d}-{month[:3]}-{y}",
        f"{y}/{m:02}/{d:02}", f"{y}-{m:02}-{d:02}",
    ]
