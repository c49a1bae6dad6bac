"""Two toy corpora: dates in many notations -> ISO 8601, and 45 French sentences -> English.

Both are generated here. The dates are for a model of characters, which learns them in a minute; the French sentences are so few
that a model learns them in seconds.
"""
import datetime

import numpy as np

from tinymae.text.phrases import DAYS

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
MOST_DATES = 500_000                    # of 1.3 million written dates; random draws rarely find the last ones


def french() -> list[tuple[str, str]]:
    """A tiny set of (french, english) pairs around `je suis étudiant` -> `i am a student` (article D, training).

    Each sentence has one translation, in both directions.
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


def dates(count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Dates as people write them, with their form in ISO 8601: `Thursday, May 3rd 1979` -> `1979-05-03`.

    They are for a model of characters: list(written) are its tokens.

    Days from 1900 to 2099, each in one of these notations; the weekday is always correct, and every year has four digits:

        3 May 1979              May 3, 1979             Thursday, May 3rd 1979      1979年5月3日
        03 May 1979             May 3rd, 1979           Thursday, 3 May 1979        1979年5月3日 星期四
        3rd May 1979            May 3 1979              Thu 3 May 1979              03.05.1979
        the 3rd of May, 1979    MAY 3, 1979             thursday 3 may 1979         3.5.1979
        1979/05/03              1979-05-03              3-May-1979                  3. Mai 1979

    The separator decides how to read numbers alone: with points the day comes first (German), with slashes and hyphens the
    year. 5/3/79 does not occur, because it is ambiguous. The notations of 03 May, May 3 without a comma, Thu 3 May and 3-May
    have months of three letters: 03 Sep 1979. In all others the month is in full.

    Parameters
    ----------
    count : at most 500,000
    rng : the same state gives the same dates

    Returns
    -------
    pairs : list of (written, iso); no written date comes twice, but a day may, in two notations

    Raises
    ------
    ValueError
        if count is below 1 or above 500,000
    """
    if not 1 <= count <= MOST_DATES:
        raise ValueError(f"count is {count}; expected 1 to {MOST_DATES}")
    pairs = {}
    while len(pairs) < count:
        day = datetime.date.fromordinal(int(rng.integers(FIRST_DAY.toordinal(), LAST_DAY.toordinal() + 1)))
        ways = written(day)
        pairs[ways[int(rng.integers(len(ways)))]] = day.isoformat()
    return list(pairs.items())


def written(date: datetime.date) -> list[str]:
    """One day in all the notations of `dates`, always in the same order; its year has four digits."""
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
