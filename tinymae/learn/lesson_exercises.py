"""The exercises at the end of a lesson, each as a file of its own, so that the lesson need not run again.

    lesson 3, exercise 2  --exercise_source-->  the imports, functions and arrays that it needs, its text, answer_2 = None

What an exercise needs is found in the lesson's code: whatever binds or changes a name that the exercise uses, then what that
needs, and so on. If in doubt, a statement is kept.
"""
import ast
import builtins
import json
import re
import textwrap
from pathlib import Path

from tinymae.files import whole_file
from tinymae.learn.lessons import Lesson
from tinymae.learn.prose import code_in_language, from_lessons, in_language
from tinymae.messages import listed
from tinymae.messages import message as _


def exercise_source(lesson: Lesson, number: int) -> str:
    """An exercise of a lesson as a Python script.

    Raises
    ------
    ValueError
        if the lesson has no exercise of this number
    """
    start = next(i for i, cell in enumerate(lesson.cells) if cell.heading == "Exercises")
    stop = next((i for i in range(start + 1, len(lesson.cells)) if lesson.cells[i].heading), len(lesson.cells))
    before = [node for cell in lesson.cells[:start] for node in ast.parse(cell.code).body]
    theirs = [node for cell in lesson.cells[start:stop] for node in ast.parse(cell.code).body]
    numbers = {int(found[1]) for node in theirs if (found := re.fullmatch(r"answer_(\d+) = None", ast.unparse(node)))}
    if number not in numbers:
        raise ValueError(_("lesson {lesson} has no exercise {number}: it has {numbers}",
                           lesson=lesson.number, number=number, numbers=listed(sorted(numbers))))
    name, others = f"answer_{number}", {f"answer_{each}" for each in numbers - {number}}
    own = [node for node in theirs if name in _loaded(node) | _bound(node)]
    before += [node for node in theirs if node not in own and not others & (_loaded(node) | _bound(node))]
    kept = _needed(before, own)
    comments = "\n".join(re.sub(r"^# ?", "", line) for cell in lesson.cells[start:stop] for line in cell.code.splitlines()
                         if line.startswith("#"))               # some lessons have the tasks beside their answers
    text = re.split(r"^(?=\d+\. )", f"{lesson.cells[start].prose}\n\n{comments}", flags=re.MULTILINE)
    task = next((part for part in text if part.startswith(f"{number}. ")), "").partition("\n\n")[0]
    code = code_in_language("\n".join(_spaced(node) for node in [*kept, *own]), from_lessons)
    title = _("Lesson {lesson}, {title}: exercise {number}.",
              lesson=lesson.number, title=from_lessons(lesson.title), number=number)
    ask = _("Write {name} below, then: python {file}", name=name, file=file_name(lesson, number))
    task = f"{title}\n\n{in_language(textwrap.dedent(task).strip(), from_lessons)}\n\n{ask}"
    unanswered, right = (json.dumps(text, ensure_ascii=False) for text in (_("not answered yet"), _("right")))
    return f'r"""{task}\n"""\n{code}\nprint({unanswered} if {name} is None else {right})\n'


def file_name(lesson: Lesson, number: int) -> str:
    """lesson_03_exercise_2.py"""
    return f"lesson_{lesson.number:02}_exercise_{number}.py"


def write_lesson_exercise(lesson: Lesson, number: int, folder: Path | str = ".") -> Path:
    """Write an exercise of a lesson into a folder, as `file_name` calls it, and return its path.

    Raises
    ------
    ValueError
        as `exercise_source`
    FileExistsError
        if the file exists already: it may contain your work
    """
    path, source = Path(folder) / file_name(lesson, number), exercise_source(lesson, number)
    if path.exists():
        raise FileExistsError(_("{path} exists already and is not overwritten: run it, or move it away first", path=path))
    with whole_file(path) as file:
        file.write(source.encode())
    return path


def _needed(nodes, wanted):
    """Those of some statements that bind or change what the wanted ones use, in their order."""
    modules = set().union(*(_bound(node) for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))), dir(builtins))
    own, names = set(), set()
    for node in wanted:
        own |= _bound(node)
        names |= _loaded(node) - own
    kept = []
    while True:
        more = [node for node in nodes if node not in kept and names & (_bound(node) | _changed(node) - modules)]
        if not more:
            return [node for node in nodes if node in kept]
        kept += more
        names |= set().union(*map(_loaded, more)) - set(dir(builtins))


def _loaded(node):
    """The names that a statement reads, but those of a function's own."""
    if isinstance(node, (ast.FunctionDef, ast.Lambda)):
        arguments = node.args
        own = {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
        own |= {each.arg for each in (arguments.vararg, arguments.kwarg) if each}
        body = node.body if isinstance(node.body, list) else [node.body]
        inside = set().union(*map(_loaded, body)) - own - set().union(*map(_bound, body))
        outside = [*arguments.defaults, *filter(None, arguments.kw_defaults), *getattr(node, "decorator_list", [])]
        return inside.union(*map(_loaded, outside))
    if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        own = {each.id for part in node.generators for each in ast.walk(part.target) if isinstance(each, ast.Name)}
        return set().union(*map(_loaded, ast.iter_child_nodes(node))) - own
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    return set().union(*map(_loaded, ast.iter_child_nodes(node)))


def _bound(node):
    """The names that a statement binds at the top level of a script."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    found = set()
    for each in _walk(node):
        if isinstance(each, ast.Name) and isinstance(each.ctx, (ast.Store, ast.Del)):
            found.add(each.id)
        elif isinstance(each, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in each.names}
        elif isinstance(each, (ast.FunctionDef, ast.ClassDef)):
            found.add(each.name)
    return found


def _changed(node):
    """The names whose values a statement may change: x[0] = 1, x.y = 1, x += 1, x.append(1)."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return set()
    found = set()
    for each in _walk(node):
        if isinstance(each, (ast.Subscript, ast.Attribute)) and isinstance(each.ctx, (ast.Store, ast.Del)):
            found.add(_root(each))
        elif isinstance(each, ast.Expr) and isinstance(each.value, ast.Call) and isinstance(each.value.func, ast.Attribute):
            found.add(_root(each.value.func))
    return found - {None}


def _walk(node):
    """All parts of a statement but the bodies of functions, whose names are their own."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            if isinstance(child, ast.FunctionDef):
                yield child
            continue
        yield from _walk(child)


def _root(node):
    """The name at the beginning of x.y[0].z; None if there is none."""
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _spaced(node):
    """A statement as Python, with the empty lines that belong around a function."""
    code = ast.unparse(node)
    return f"\n\n{code}\n\n" if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else code
