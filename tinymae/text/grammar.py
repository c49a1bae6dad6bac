"""The phrasebook: over 30,000 sentence pairs, English and Chinese, generated from a grammar.

A small Transformer learns to translate in minutes if the sentences are regular, and its accuracy can be measured exactly if
each sentence has one translation. So this is a grammar, not a collection: the tables of words in `phrases.py`, and patterns
that combine them.

    PATTERN                      ENGLISH                                CHINESE
    who has what                 i have a cat                           我有一只猫
    who does not                 i do not have a cat                    我没有猫
    who did what when            my father bought a book yesterday      我爸爸昨天买了一本书
    why                          why do you like cats ?                 你为什么喜欢猫

The model has to learn these rules from the pairs alone: every noun has its measure word (一只猫, 一本书, 一把刀); 有 is negated
by 没有, all other verbs by 不, or by 没 for the past; time and place come before the verb; a question keeps the order of its
statement; 很 replaces the English is; 了 marks a completed action and 过 an experience.

Each English sentence has one Chinese translation and the reverse: both directions are functions. So a different answer is a
wrong answer, and exact match is a fair measure. For this the tables leave out what would be ambiguous: older and bigger are
both 大, so older does not occur. English is in lower case with spaces around punctuation; Chinese has no mark at the end, as in
the articles.

The pattern decides which English tense translates a Chinese verb without 了, 过 or 在: 我住在北京 is i live in beijing, never
i lived. If Chinese drops the subject (为什么要工作, 没吃饭), English has that of the articles: we, i.
"""
from tinymae.text.phrases import (
    ACTIVITIES,
    ANIMALS,
    ASKED,
    CITIES,
    DAILY,
    DAYS,
    DISHES,
    DRINKS,
    FEELINGS,
    FIXED,
    FRUIT,
    FUTURE,
    HOURS,
    JOBS,
    LAND_ANIMALS,
    LANGUAGES,
    NEAR_FUTURE,
    NEAR_PAST,
    NUMBERS,
    OBJECTS,
    OF_ANIMALS,
    OF_THINGS,
    OUTDOORS,
    OWNED,
    OWNERS,
    PAST,
    PEOPLE,
    PLACES,
    PRONOUNS,
    SKILLS,
    SMALL_THINGS,
    SPOTS,
    THINGS,
    TRAITS,
    TRANSPORT,
    Noun,
    with_article,
)


def _same(who, pronoun):
    """Whether the person may be the pronoun, or among them: i ... than us and they gave them are not generated."""
    return who in PRONOUNS and who.zh[0] == pronoun[0]


def phrasebook() -> list[tuple[str, str]]:
    """All sentences of the grammar, as pairs (english, chinese), always in the same order.

    No English and no Chinese sentence comes twice. English has spaces between words and before ?, Chinese has none.
    """
    pairs = list(FIXED)
    for pattern in (_having, _liking, _trading, _seeing, _eating, _going, _doing, _routine, _describing, _reasons,
                    _owning, _finding, _being, _giving, _weather):
        pairs.extend(pattern())
    return list(dict.fromkeys(pairs))                   # a pattern may repeat a sentence of FIXED


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
            # it is the street now. The Chinese translation must name it, so the model has to resolve the pronoun.
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
    for n in SMALL_THINGS:
        for owner, zh in OWNERS:
            for where, zh_where in SPOTS:
                yield f"{owner} {n.one} is {where}", f"{zh}的{n.zh}在{zh_where}"


def _finding():
    for where, zh in SPOTS:
        for n in [*ANIMALS[:4], *SMALL_THINGS, *FRUIT]:
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
            what = f"{job}s" if several else with_article(job)
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
    gifts = [(n.a, f"一{n.measure}{n.zh}") for n in SMALL_THINGS + FRUIT]
    gifts += [(f"a {box} of {what}", f"一{measure}{zh}") for what, box, zh, measure in DRINKS + DISHES]
    for what, zh in gifts:
        for receiver, zh_receiver in OBJECTS:
            if receiver != "you":
                yield f"please give {receiver} {what}", f"请给{zh_receiver}{zh}"
    for who in PEOPLE:
        for receiver, zh_receiver in OBJECTS[:4]:
            if _same(who, zh_receiver):
                continue
            for n in SMALL_THINGS:
                yield f"{who.en} gave {receiver} {n.a}", f"{who.zh}给了{zh_receiver}一{n.measure}{n.zh}"


def _weather():
    for city, zh in CITIES[:9]:
        for adjective, zh_adjective in (("cold", "冷"), ("hot", "热"), ("warm", "暖和"), ("cool", "凉快")):
            yield f"it is {adjective} in {city} today", f"{zh}今天很{zh_adjective}"
            yield f"it is not {adjective} in {city} today", f"{zh}今天不{zh_adjective}"
            yield f"it was {adjective} in {city} yesterday", f"{zh}昨天很{zh_adjective}"
            yield f"it will be {adjective} in {city} tomorrow", f"{zh}明天会很{zh_adjective}"
            yield f"is it {adjective} in {city} today ?", f"{zh}今天{zh_adjective}吗"
