"""The words of the phrasebook in English and Chinese: tables of nouns, people, activities and places.

`grammar.py` combines them into sentences. Chinese needs more than a translation of each word: a noun comes with its measure
word, a place with its preposition, and an activity is a verb with its object.
"""
from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A noun that can be counted: singular, plural, Chinese, and its Chinese measure word."""

    one: str
    many: str
    zh: str
    measure: str

    @property
    def a(self) -> str:
        """The singular with its article: a cat, an egg."""
        return with_article(self.one)


@dataclass(frozen=True)
class Person:
    """A subject; `verb` is the form of its English verbs: that of i, of you (also we, they, the children) or of he."""

    en: str
    zh: str
    verb: str

    @property
    def be(self) -> str:
        """am, are or is."""
        return {"i": "am", "you": "are", "he": "is"}[self.verb]

    @property
    def was(self) -> str:
        """was or were."""
        return "were" if self.verb == "you" else "was"

    @property
    def do(self) -> str:
        """do or does."""
        return "does" if self.verb == "he" else "do"

    @property
    def have(self) -> str:
        """have or has."""
        return "has" if self.verb == "he" else "have"

    def does(self, verb: str) -> str:
        """The verb in its form: for he and she like -> likes, go -> goes, study -> studies; only the first word changes."""
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


@dataclass(frozen=True)
class Activity:
    """An activity: English in three forms; Chinese as verb and object, because a duration stands between them."""

    base: str
    ing: str
    past: str
    verb: str
    object: str

    @property
    def zh(self) -> str:
        """The verb with its object."""
        return self.verb + self.object


def with_article(word: str) -> str:
    """a cat, an egg."""
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
ASKED = [person for person in PEOPLE if person.en not in ("i", "we")]         # questions are about others
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
SMALL_THINGS = _nouns("""
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
LARGE_THINGS = _nouns("""
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
THINGS = SMALL_THINGS + LARGE_THINGS
OWNED = ANIMALS + THINGS
NUMBERS = [
    ("two", "两"), ("three", "三"), ("four", "四"), ("five", "五"), ("six", "六"), ("seven", "七"), ("eight", "八"),
    ("nine", "九"), ("ten", "十"),
]

# English, container, Chinese, measure word.
DRINKS = [
    ("water", "cup", "水", "杯"), ("tea", "cup", "茶", "杯"), ("coffee", "cup", "咖啡", "杯"),
    ("milk", "cup", "牛奶", "杯"), ("juice", "cup", "果汁", "杯"), ("mineral water", "bottle", "矿泉水", "瓶"),
]
DISHES = [
    ("rice", "bowl", "米饭", "碗"), ("noodles", "bowl", "面条", "碗"), ("bread", "piece", "面包", "片"),
    ("meat", "piece", "肉", "块"),
]

# English place with its preposition, Chinese place, and the word that Chinese adds for being inside it.
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
NEAR_PAST = PAST[:4]                                    # last year is too far for a visit to the park
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
         ("eat lunch", "吃午饭", (5, 6)), ("go to bed", "睡觉", (3, 4, 5))]        # with suitable HOURS
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

# The articles' own sentences and similar ones; `corpus.split` keeps them in the training set.
FIXED = [
    ("i have a cat", "我有一只猫"),                     # article C, section 1
    ("why do we work ?", "为什么要工作"),               # article A, worked example
    # Article A, part 1: the same three characters mean something different in each order.
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
