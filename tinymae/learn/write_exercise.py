"""The file of an exercise, as a learner gets it: in the user's language, without hints, and bare if the learner likes."""
import re
from pathlib import Path

from tinymae.learn.exercises import CAUSES, ZOO, unwritten
from tinymae.learn.prose import code_in_language, from_lessons
from tinymae.messages import in_lines, listed
from tinymae.messages import message as _

FILE_WIDTH = 128             # columns of a file that is written


def write_exercise(name: str, folder: Path | str = ".", *, bare: bool = False) -> Path:
    """Write an exercise, or a file of the zoo without its story, as NAME.py in a folder, and return its path.

    Parameters
    ----------
    name : of the exercise
    folder : where to
    bare : leave out the equations, and the numbers that refer to them

    Raises
    ------
    ValueError
        if there is no exercise of this name; the message lists similar names
    FileExistsError
        if the file exists already: it may contain your work
    """
    path, source = Path(folder) / f"{name}.py", unwritten(name)
    if path.exists():
        raise FileExistsError(_("{path} exists already and is not overwritten: check it, or move it away first", path=path))
    source = code_in_language(_bare(source) if bare else source, from_lessons, FILE_WIDTH)
    if name in ZOO:
        guess = _("your guess, one of: {causes}", causes=listed(CAUSES))
        guess = in_lines(guess, FILE_WIDTH - 66).replace("\n", f"\n{'':64}# ")
        line = f"CAUSE = None{'':52}# {guess}"
        source = re.sub(r"^EXERCISE = .*$", lambda found: f"{found[0]}\n{line}", source, count=1, flags=re.MULTILINE)
    path.write_text(source, encoding="utf-8")
    return path


def _bare(source):
    """The source of an exercise without its equations: the paragraphs of its docstring that have any, and all references."""
    quotes = '"' * 3
    _before, docstring, code = source.split(quotes, 2)
    paragraphs = docstring.split("\n\n")
    kept = [part for part in paragraphs if not re.search(r"^ +\(\d+\)", part, re.MULTILINE) and not part.endswith(":")]
    code = re.sub(r" +# \(\d.*$", "", code, flags=re.MULTILINE)
    code = re.sub(r'NotImplementedError\("equations? .*"\)', 'NotImplementedError("' + _("write it") + '")', code)
    return f"{quotes}{(chr(10) * 2).join(kept).rstrip()}\n{quotes}{code}"
