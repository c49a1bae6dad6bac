"""Reading a lesson and walking through it, on a small one made here; the real lessons run in test_lessons.py."""
import base64
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tinymae.__main__ import main
from tinymae.learn import stepper, terminal
from tinymae.learn.lessons import find_lesson, lessons, read_lesson, run
from tinymae.learn.prose import from_lessons, in_language
from tinymae.learn.stepper import step
from tinymae.learn.terminal import formula, in_lines, narrow, readable
from tinymae.messages import columns

SMALL = '''"""
Counting · 计数
===============

How many are there?
"""

# %%
# The first
# ---------
# Prose with ``code`` and :math:`x^2`.
#
# More of it.

import numpy as np

x = np.ones((2, 3))
state = [1]
print("first ran")

# %%
# The second
# ----------

def double():
    return 2 * x

state.append(2)
print("second ran", state, double().sum())

# %%
assert state == [1, 2]
p = {"w": x}
'''


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "04_counting.py"
    path.write_text(SMALL, encoding="utf-8")
    return read_lesson(path)


@pytest.fixture
def answers(monkeypatch):
    """Say what is typed; then the input ends."""
    def typed(*lines):
        left = list(lines)

        def read(prompt=""):
            if not left:
                raise EOFError
            return left.pop(0)

        monkeypatch.setattr("builtins.input", read)

    return typed


def test_read(small):
    assert (small.number, small.title, small.chinese) == (4, "Counting", "计数")
    question, first, second, third = small.cells
    assert question.prose == "How many are there?" and not question.code
    assert first.heading == "The first" and first.prose.startswith("Prose with") and first.prose.endswith("More of it.")
    assert first.code.startswith("import numpy") and first.code.endswith('print("first ran")')
    assert SMALL.splitlines()[first.line - 1] == "import numpy as np"
    assert second.heading == "The second" and second.prose == ""
    assert third.heading == "" and third.code.startswith("assert")


def test_a_title_without_chinese_is_refused(tmp_path):
    path = tmp_path / "01_x.py"
    path.write_text('"""Only English"""\n', encoding="utf-8")
    with pytest.raises(ValueError, match="expected a docstring with the title"):
        read_lesson(path)


def test_walk_to_the_end(small, answers, capsys):
    answers("", "", "", "")
    assert step(small)
    output = capsys.readouterr().out
    assert "Lesson 4 [2/4] =======.............  The first" in output and "Prose with code and x²." in output
    assert "    x = np.ones((2, 3))" in output and "first ran" in output
    assert "  x (2, 3) float64" in output and "  p: 1 arrays, 6 numbers" in output
    assert "second ran [1, 2] 12.0" in output


def test_going_to_a_cell(small, answers, capsys):
    """Forward runs what is between, without its output; back brings the variables back; a search and a list find cells."""
    answers("4", "2", "/SECOND", "l", "nowhere", "/nowhere", "9", "q")
    assert step(small) == 2
    output = capsys.readouterr().out
    assert "\nfirst ran" not in output
    assert ">  3  The second" in output and "   2  The first" in output
    assert "'nowhere' is none of these" in output and "'nowhere' is not in this lesson" in output and "'9' is none" in output
    answers("", "q")
    assert step(small, 2) == 3                                  # goes on where it was left: the cells before have run
    assert "second ran [1, 2] 12.0" in capsys.readouterr().out


def test_a_broken_cell_stops_the_way_to_another(tmp_path, answers, capsys):
    path = tmp_path / "05_broken.py"
    path.write_text(SMALL.replace("x = np.ones((2, 3))", "x = 1 / 0"), encoding="utf-8")
    answers("4", "q")
    assert step(read_lesson(path)) == 1
    assert "cell 2 raises an error" in capsys.readouterr().out


def test_back_brings_the_variables_back(small, answers, capsys):
    answers("", "", "", "b", "", "")
    assert step(small)
    assert capsys.readouterr().out.count("second ran [1, 2] 12.0") == 2


@pytest.mark.parametrize("value", ["threading.Lock()", "ctypes.pointer(ctypes.c_int(3))"])
def test_what_cannot_be_copied_stays_itself(tmp_path, answers, value):
    path = tmp_path / "07_lock.py"
    path.write_text(f'"""\nL · 锁\n===\n"""\n# %%\nimport ctypes, threading\nx = {value}\n# %%\nprint(x)\n', encoding="utf-8")
    answers("", "", "")
    assert step(read_lesson(path))


def test_a_temporary_folder_is_there_after_going_back(tmp_path, answers, capsys):
    path = tmp_path / "08_folder.py"
    path.write_text(
        '"""\nF · 夹\n===\n"""\n# %%\nimport os, tempfile\nfolder = tempfile.TemporaryDirectory()\n'
        '# %%\ny = 1\n# %%\nprint("there", os.path.isdir(folder.name))\nfolder.cleanup()\n', encoding="utf-8",
    )
    answers("", "", "", "b", "", "")
    assert step(read_lesson(path))
    assert "there True" in capsys.readouterr().out


@pytest.mark.parametrize("end", [("", "q"), ("",)])
def test_leaving(small, answers, end):
    answers(*end)
    assert step(small) == 1


def test_an_error_stays_at_its_cell(tmp_path, answers, capsys):
    path = tmp_path / "05_broken.py"
    path.write_text(SMALL.replace("assert state == [1, 2]", "assert state == [1]"), encoding="utf-8")
    answers("", "", "", "", "what", "q")
    line = SMALL.splitlines().index("assert state == [1, 2]") + 1
    assert step(read_lesson(path)) == 3
    output = capsys.readouterr().out
    assert "AssertionError" in output and f"line {line}, in <module>" in output
    assert output.count("[4/4]") == 3                           # shown, again after the error, and after the unknown answer
    assert "'what' is none of these" in output


def test_the_prompt_knows_the_variables_and_may_change_them(small, answers, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "IPython.terminal.embed", None)            # as if it were not installed
    answers("", "", "i", "x = 2 * x", "print(x.shape, len(state))", "exit()", "", "")
    assert step(small)
    output = capsys.readouterr().out
    assert "(2, 3) 1" in output
    assert "second ran [1, 2] 24.0" in output


def test_the_prompt_of_ipython(small, answers, monkeypatch, capsys):
    """A stand-in: what IPython leaves behind in the names stays out of the lesson."""
    class Shell:
        def __init__(self, user_ns, **options):
            self.names, self.user_ns_hidden = user_ns, {"get_ipython"}

        def __call__(self):
            self.names.update(x=3 * self.names["x"], get_ipython=sys, _oh={})

    monkeypatch.setitem(sys.modules, "IPython.terminal.embed", types.SimpleNamespace(InteractiveShellEmbed=Shell))
    copied = []
    monkeypatch.setattr(stepper, "_copied", lambda names: copied.append(set(names)) or dict(names))
    answers("", "", "i", "", "")
    assert step(small)
    assert "second ran [1, 2] 36.0" in capsys.readouterr().out
    assert not {"get_ipython", "_oh"} & copied[-1]


def test_pictures_are_named_and_open_where_there_is_a_screen(tmp_path, answers, monkeypatch, capsys):
    path = tmp_path / "06_picture.py"
    picture = tmp_path / "p.png"
    picture.write_bytes(b"png")
    path.write_text(f'"""\nP · 图\n===\n"""\n# %%\nprint({str(picture)!r})\n', encoding="utf-8")
    opened = []
    monkeypatch.setattr(stepper.webbrowser, "open", opened.append)
    for screen in (False, True):
        monkeypatch.setattr(stepper, "has_screen", lambda screen=screen: screen)
        answers("", "")
        assert step(read_lesson(path))
        assert f"saved: {picture.resolve()}" in capsys.readouterr().out
        assert opened == ([picture.resolve().as_uri()] if screen else [])


def test_run_is_a_plain_script(small, capsys):
    run(small)
    assert capsys.readouterr().out.splitlines() == ["first ran", "second ran [1, 2] 12.0"]


def test_readable():
    assert readable("see :ref:`the map <articles>` and `here <http://x.org>`__") == "see the map and here (http://x.org)"
    assert readable("Add:\n\n.. math::\n\n   y = x w\n\nThat is all.") == "Add:\n\n    y = x w\n\nThat is all."
    long = "one two three four five six seven\neight nine ten"
    assert readable(long, 20) == "one two three four\nfive six seven eight\nnine ten"
    assert readable("看 一只猫 and more", 10) == "看 一只猫\nand more"
    assert narrow("x = 1        # (T, D)\ny = 2   # a", 14) == "x = 1  # (T, D)\ny = 2   # a"
    assert readable("- one two three four five\n- six", 14) == "- one two\n  three four\n  five\n- six"
    assert readable("(1)  one two three\n(2)  four five", 14) == "(1) one two\n  three\n(2) four five"


def test_lines_of_chinese():
    assert in_lines("位置编码是一张表，每个位置一行。", 16) == "位置编码是一张\n表，每个位置一\n行。"
    assert in_lines("先看掩码（见第 10 课）。", 10) == "先看掩码\n（见第 10\n课）。"
    assert in_lines("用 softmax_forward，再看 x", 12) == "用\nsoftmax_forward，\n再看 x"
    assert in_lines("第一项的说明很长", 10, "  ") == "第一项的说\n  明很长"
    assert in_lines("one two", 3) == "one\ntwo"
    assert in_lines("做 transpose(0, 2, 1) 就对了", 20) == "做\ntranspose(0, 2, 1)\n就对了"        # a bracket stays together
    assert in_lines("看看公式，检查式 (2)。", 18) == "看看公式，检查\n式 (2)。"
    assert in_lines("整行（轴 -1）里相同", 8) == "整行\n（轴 -1）\n里相同"


def test_chinese_lessons_fit_a_terminal(monkeypatch):
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    prose = [in_language(cell.prose, from_lessons) for lesson in lessons() for cell in lesson.cells]
    paragraphs = [part for text in prose for part in readable(text, 80).split("\n\n") if part[:1] not in tuple(" |=+")]
    assert len(paragraphs) > 500
    for line in "\n".join(paragraphs).splitlines():
        assert columns(line) <= 80, line
        assert line[:1] not in tuple("，。；：！？、）”》") and line[-1:] not in tuple("（“《"), line


@pytest.mark.parametrize(("tex", "text"), [
    (r"x^2 / \sqrt{d_k}", "x² / √(d_k)"), (r"\frac{a + b}{2}", "(a + b) / 2"), (r"\frac{1}{B}", "1 / B"), (r"dy^T", "dyᵀ"),
    (r"\hat{x} = (x - \mu) \, rstd", "x̂ = (x - μ)   rstd"), (r"\sum_{i \le n} w_i", "∑_[i ≤n] w_i"),
])
def test_formulas_become_unicode(tex, text):
    assert formula(tex) == text


def test_no_tex_is_left_in_the_terminal():
    for lesson in lessons():
        for cell in lesson.cells:
            shown = readable(cell.prose, 80)
            assert not re.search(r"\\[a-z]{2,}|:math:|\.\. math", shown), f"{lesson.path.name}, {cell.heading}: {shown}"


def test_pictures_in_terminals_that_show_them(tmp_path, monkeypatch):
    picture = tmp_path / "p.png"
    picture.write_bytes(bytes(range(256)) * 20)
    monkeypatch.delenv("KITTY_WINDOW_ID", raising=False)
    monkeypatch.setattr(terminal.sys, "stdout", types.SimpleNamespace(isatty=lambda: True))
    starts = {"iTerm.app": ("\033]1337;File=inline=1;size=5120:", 1), "ghostty": ("\033_Ga=T,f=100,m=1;", 2)}
    for program, (start, parts) in starts.items():
        monkeypatch.setenv("TERM_PROGRAM", program)
        shown = terminal.inline_picture(picture)
        assert shown.startswith(start) and shown.count("\033") == (1 if parts == 1 else 2 * parts)
        data = re.sub(r"\033_G[^;]*;|\033\\\\|\033]1337;[^:]*:|\a", "", shown)
        assert base64.b64decode(data) == picture.read_bytes()
    monkeypatch.setenv("TERM_PROGRAM", "xterm")
    assert terminal.inline_picture(picture) == ""


def test_the_lessons_are_in_order():
    numbers = [lesson.number for lesson in lessons()]
    assert numbers == sorted(set(numbers)) and numbers[0] == 1
    with pytest.raises(ValueError, match="there is no lesson 99"):
        find_lesson(99)


def test_commands(capsys, monkeypatch):
    assert main(["lessons"]) == 0
    output = capsys.readouterr().out
    assert " 5  Positional encoding" in output and "位置编码" in output
    monkeypatch.setattr("builtins.input", lambda prompt="": "q")
    assert main(["lesson", "3", "--step"]) == 0
    assert "Lesson 3 [1/" in capsys.readouterr().out
    assert main(["lesson", "99"]) == 1
    assert "there is no lesson 99" in capsys.readouterr().err


def test_step_in_a_pipe(tmp_path):
    """Without a terminal, too: the answers come from standard input."""
    result = subprocess.run(
        [sys.executable, "-m", "tinymae", "lesson", "1", "--step"], input="\nq\n", capture_output=True, text=True,
        encoding="utf-8", cwd=tmp_path, env={**__import__("os").environ, "PYTHONPATH": str(Path(__file__).parents[1]),
                                             "PYTHONIOENCODING": "utf-8"}, check=True,
    )
    assert "Lesson 1 [2/" in result.stdout
