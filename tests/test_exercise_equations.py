"""An exercise carries a copy of the numbered equations of the code that it is about: the copy must stay one, to the letter.

Nothing is imported: both sides are read as text, and the code is found by the name of its function, in whatever module it is.
"""
import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Those of which the forward is to be written have its equations alone, in a simpler form: their checks compare the numbers.
FILES = [path for path in sorted((ROOT / "lessons" / "exercises").glob("*.py")) if not path.stem.endswith("_forward")]
EXERCISES = {path.stem: path.read_text(encoding="utf-8") for path in FILES}

# An exercise is about the functions and classes that it defines; these are about one of another name.
SUBJECTS = {
    "beam_step": "beam_search",
    "cross_attention": "multi_head_attention_forward",
    "numerical_gradient": "gradcheck",
    "positional_encoding": "sinusoidal_interleaved",
    "schedule": "noam",
}
# The arguments of a block, as an exercise that uses it in one way calls them.
RENAMED = {
    "cross_attention": {"xq": "x", "xkv": "memory"},
    "multi_head_attention": {"xq": "x", "xkv": "x"},
}
# (exercise, number): why its line is another one.
REWRITTEN = {
    ("multi_head_attention", 6): "the block returns dxq and dxkv; in self-attention both are gradients of x, and add up",
}


def definitions(source):
    """{name: node}: the functions and classes of a module, by their names without underscore."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return {node.name.lstrip("_"): node for node in nodes}


MODULES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tinymae").rglob("*.py"))}
DEFINED = {path: definitions(source) for path, source in MODULES.items()}


def equations(docstring):
    """The numbered lines, each with what stands deeper below it; white space folded."""
    found, depth = [], None
    for line in (docstring or "").splitlines():
        indent = len(line) - len(line.lstrip())
        if re.match(r" +\(\d+\) ", line):
            found.append(line)
            depth = indent
        elif depth is not None and line.strip() and indent > depth:
            found[-1] += line
        else:
            depth = None
    return [" ".join(equation.split()) for equation in found]


def docstrings(name):
    """Where the equations of a function may stand: in its own docstring, in its module's, or in that of a package around it."""
    found = []
    for path, defined in DEFINED.items():
        if name in defined:
            around = [folder / "__init__.py" for folder in path.parents if ROOT in folder.parents]
            found.append(ast.get_docstring(defined[name], clean=False))         # as it stands: indented, but for its first line
            found += [ast.get_docstring(ast.parse(MODULES[module])) for module in (path, *around)]
    return found


def subjects(name, source):
    """The names of the functions that an exercise is about."""
    return [SUBJECTS[name]] if name in SUBJECTS else list(definitions(source))


def differences(name, source, texts):
    """The numbered lines of an exercise's source that stand in none of the docstrings `texts`."""
    known = "\n".join(equation for text in texts for equation in equations(text))
    for old, new in RENAMED.get(name, {}).items():
        known = re.sub(rf"\b(d?){old}\b", rf"\g<1>{new}", known)
    known = known.splitlines()
    return [line for line in equations(ast.get_docstring(ast.parse(source)))
            if line not in known and (name, int(re.match(r"\((\d+)", line)[1])) not in REWRITTEN]


@pytest.mark.parametrize("name", EXERCISES)
def test_the_equations_are_those_of_the_code(name):
    source = EXERCISES[name]
    texts = [text for subject in subjects(name, source) for text in docstrings(subject)]
    assert equations(ast.get_docstring(ast.parse(source))), "no numbered line: is it still an exercise?"
    assert texts, f"no module of tinymae defines {' or '.join(subjects(name, source))}: say in SUBJECTS what it is about"
    wrong = differences(name, source, texts)
    assert not wrong, f"these lines of lessons/exercises/{name}.py stand in no docstring of {subjects(name, source)}: {wrong}"


@pytest.mark.parametrize(("name", "number"), REWRITTEN)
def test_no_exception_is_idle(name, number, monkeypatch):
    monkeypatch.delitem(REWRITTEN, (name, number))
    texts = [text for subject in subjects(name, EXERCISES[name]) for text in docstrings(subject)]
    assert [line[:3] for line in differences(name, EXERCISES[name], texts)] == [f"({number})"]


@pytest.mark.parametrize("name", [name for name in EXERCISES if name not in {name for name, _ in REWRITTEN}])
def test_a_change_on_either_side_is_seen(name):
    """A letter more in any one equation, of the exercise or of the code, is a difference."""
    source = EXERCISES[name]
    texts = [text for subject in subjects(name, source) for text in docstrings(subject)]
    for line in [line for line in source.splitlines() if re.match(r" +\(\d+\) ", line)]:
        assert len(differences(name, source.replace(line, f"{line}'"), texts)) == 1
    for equation in equations(ast.get_docstring(ast.parse(source))):
        number = re.escape(equation.partition(" ")[0])
        changed = [re.sub(rf"(?m)^( +{number} .*)$", r"\1'", text or "") for text in texts]
        assert equation in differences(name, source, changed)


def test_equations():
    """Numbers at the margin are prose; what stands deeper belongs to the line above; a blank line ends it."""
    text = "Title.\n\n    (1)  y  = x\n           + 1\n    (2)  z = y\n\n        deeper\n(3) is prose\n    (4) last"
    assert equations(text) == ["(1) y = x + 1", "(2) z = y", "(4) last"]
    assert equations(None) == []
