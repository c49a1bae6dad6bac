"""NOTATION.md, enforced: every op, block and model keeps the contract, and the imports run one way.

The rules about text (docstrings, imports, names) are functions from a source to a list of complaints, the rules about
behaviour are functions that raise an AssertionError. After each group of rules, planted offenders show that they bite.
"""
import ast
import inspect
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tinymae
from tinymae import arguments
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.gradcheck.cases import Check, checks

PACKAGE = Path(tinymae.__file__).parent
SOURCES = {
    ".".join(("tinymae", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path.read_text("utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}
PAIRED = [name for name in SOURCES if name.startswith(("tinymae.ops.", "tinymae.models.")) or name == "tinymae.blocks"]


def all_cases(seed=0):
    """{name: Check}: those of checks(), and each that has a mask or dropout once more without: it may take another path."""
    found = {}
    for case in checks(seed):
        found[case.name] = case
        off = {name: None for name, value in case.options.items()
               if name == "rng" or (isinstance(value, np.ndarray) and value.dtype == bool)}
        if off and case.name != "dropout":                      # which then hands its input through
            found[f"{case.name}; switched off"] = replace(case, options=case.options | off)
    return found


@cache
def nodes(source):
    """All nodes of a source, the module first: parsed once for all rules, which change nothing in them."""
    return list(ast.walk(ast.parse(source)))


CASES = all_cases()
OTHERS = all_cases(seed=1)              # the same calls with other data
WITH_CASES = {case.function.__module__ for case in CASES.values()}


# ---- the text: pairs and docstrings ----------------------------------------------------------------------------------

def public_functions(source):
    """The functions of a module that anybody may call, from top to bottom."""
    return [node for node in nodes(source)[0].body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


def unpaired(source):
    """Complaints: a forward whose backward is not the next public function below it, or a backward without a forward."""
    names = [function.name for function in public_functions(source)]
    complaints = []
    for i, name in enumerate(names):
        if name.endswith("_forward"):
            backward = name.removesuffix("_forward") + "_backward"
            if names[i + 1 : i + 2] != [backward]:
                complaints.append(f"{backward} does not stand directly below {name}")
        elif name.endswith("_backward") and name.removesuffix("_backward") + "_forward" not in names:
            complaints.append(f"{name} has no forward")
    return complaints


def undocumented(source):
    """Complaints: a public name without a docstring, a forward without a shape, a backward without a gradient."""
    found = ast.parse(source)
    complaints = [] if ast.get_docstring(found) else ["the module has no docstring"]
    public = [node for node in found.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"]
    for owner in [node for node in public if isinstance(node, ast.ClassDef)]:
        public += [node for node in owner.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
    for node in public:
        text = ast.get_docstring(node) or ""
        if not text:
            complaints.append(f"{node.name} has no docstring")
        elif node.name.endswith("_forward") and not re.search(r"shape|\((\.\.\.|[A-Z])[^()]*,[^()]*\)", text):
            complaints.append(f"{node.name} names no shape, such as (B, T, D)")
        elif node.name.endswith("_backward") and not re.search(r"[Gg]radients?\b.*\bd[a-z]", text):
            complaints.append(f"{node.name} names no gradient")
    return complaints


@pytest.mark.parametrize("module", PAIRED)
def test_backward_stands_below_its_forward(module):
    assert unpaired(SOURCES[module]) == []


@pytest.mark.parametrize("module", PAIRED)
def test_docstrings(module):
    assert undocumented(SOURCES[module]) == []


def function_of(name):
    """The function of the package with this name."""
    (module,) = [module for module in PAIRED if any(f.name == name for f in public_functions(SOURCES[module]))]
    return getattr(sys.modules[module], name)


FORWARDS = [f.name for module in PAIRED for f in public_functions(SOURCES[module]) if f.name.endswith("_forward")]


@pytest.mark.parametrize("name", FORWARDS)
def test_every_forward_has_a_gradient_check(name):
    assert function_of(name) in [case.function for case in CASES.values()], f"{name}: add a case to tinymae/gradcheck/cases.py"


@pytest.mark.parametrize("name", FORWARDS)
def test_backward_names_every_gradient(name):
    """d + the name of every argument that checks.py differentiates, in the docstring: dx, dgamma, dbeta."""
    wanted = set()
    for case in CASES.values():
        given = list(inspect.signature(case.forward).parameters)[: len(case.args)]
        if case.function.__name__ == name:                      # a wrapper may have arguments of its own
            wanted |= {f"d{argument}" for argument in given if argument in inspect.signature(case.function).parameters}
    assert wanted
    backward = function_of(name.removesuffix("_forward") + "_backward")
    missing = wanted - set(re.findall(r"\w+", inspect.getdoc(backward)))
    assert not missing, f"the docstring of {backward.__name__} does not name {sorted(missing)}"


@pytest.mark.parametrize(("rule", "source", "complaint"), [
    (unpaired, "def f_forward(): pass", "f_backward does not stand directly below f_forward"),
    (unpaired, "def f_backward(): pass", "f_backward has no forward"),
    (unpaired, "def f_forward(): pass\ndef g(): pass\ndef f_backward(): pass", "f_backward does not stand directly below"),
    (unpaired, "def f_backward(): pass\ndef f_forward(): pass", "f_backward does not stand directly below f_forward"),
    (undocumented, "x = 1", "the module has no docstring"),
    (undocumented, "'M.'\ndef f(): pass", "f has no docstring"),
    (undocumented, "'M.'\nclass A:\n '''A.'''\n def f(self): pass", "f has no docstring"),
    (undocumented, "'M.'\ndef f_forward(x): 'x, an array (fresh).'", "f_forward names no shape"),
    (undocumented, "'M.'\ndef f_backward(dy, cache): 'The gradient.'", "f_backward names no gradient"),
])
def test_text_rules_bite(rule, source, complaint):
    assert any(complaint in found for found in rule(source))


# ---- the text: imports and state -------------------------------------------------------------------------------------

# The plan: each room (a folder or a file of the package), and the rooms that it may import. A new room gets a line of its own.
ROOMS = {
    "arguments": "messages",
    "files": "messages",
    "messages": "",
    "packed": "messages",
    "tree": "",
    "init": "",
    "masks": "arguments",
    "trace": "tree",
    "ops": "arguments",
    "blocks": "ops arguments",
    "models": "blocks ops init masks tree arguments messages",
    "train": "tree files trace packed arguments messages",
    "gradcheck": "models blocks ops init tree messages",
    "images": "ops packed files messages",
    "text": "files packed messages",
    "weights": "models ops tree images text files messages",
    "plot": "ops files messages",
    "tasks": "weights models ops train tree images text plot files arguments messages",
    "estimator": "tasks weights models ops train tree images",
    "learn": "gradcheck models blocks ops init masks train tree files messages",
    "play": "tasks weights models blocks ops init masks gradcheck learn train images text trace tree messages",
    "cli": "play tasks weights models images text plot learn gradcheck train files messages",
    "__main__": "cli __init__ files messages train",
    "__init__": "",
}

# What a reader opens first needs NumPy and the standard library alone; NUMPY_ALONE is also what a browser can run.
NUMPY_ALONE = ("tinymae.ops.", "tinymae.models.", "tinymae.gradcheck.", "tinymae.blocks", "tinymae.init", "tinymae.masks",
               "tinymae.arguments", "tinymae.tree", "tinymae.trace", "tinymae.files", "tinymae.messages", "tinymae.train.optim",
               "tinymae.weights.shipped", "tinymae.images.pixels", "tinymae.images.hide", "tinymae.images.harmonic",
               "tinymae.tasks.photograph", "tinymae.play.api", "tinymae.play.attention_tab", "tinymae.play.mae_tab",
               "tinymae.play.positions_tab", "tinymae.play.step_tab")


def imports(source, modules):
    """{name: set of names imported from it} for every import of a source, lazy ones too; (name, None) for a whole module.

    `from tinymae.ops import linear` imports the module tinymae.ops.linear; `modules` says which names are modules.
    """
    found = []
    for node in nodes(source):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError("a relative import: write the module's full name")
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append((inner, None) if inner in modules else (node.module, alias.name))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
            raise AssertionError(f"{ast.unparse(node)} hides an import from this test")
    return found


def room(module):
    """The room of a module: tinymae.ops.linear is in "ops", tinymae.trace is "trace"."""
    name = module.split(".")[1] if "." in module else "__init__"
    if name not in ROOMS:
        raise AssertionError(f"{module} is in no room of ROOMS: say what it may import")
    return name


def wrong_arrows(module, source, modules=SOURCES):
    """Complaints: an import against the plan, of a private name, or of a package that this module may not know."""
    complaints = []
    for name, item in imports(source, modules):
        top = name.partition(".")[0]
        if top == "tinymae":
            if room(name) != room(module) and room(name) not in ROOMS[room(module)].split():
                complaints.append(f"{module} imports {name}: {room(module)} may not know {room(name)}")
            if item and item.startswith("_") and not item.startswith("__"):
                complaints.append(f"{module} imports {name}.{item}, which is private")
        elif top in ("torch", "torchvision"):
            complaints.append(f"{module} imports {top}")
        elif top in ("matplotlib", "seaborn", "mpl_toolkits") and room(module) != "plot":
            complaints.append(f"{module} imports {top}: figures are drawn in tinymae.plot")
        elif top not in ("numpy", *sys.stdlib_module_names) and f"{module}.".startswith(NUMPY_ALONE):
            complaints.append(f"{module} imports {top}: the core needs NumPy alone")
    return complaints


MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
CHANGES = {"append", "extend", "insert", "update", "setdefault", "pop", "popitem", "clear", "add", "remove", "discard"}


def assigned(scope):
    """[(names, value)] of the assignments in the body of a module or class."""
    found = []
    for node in scope.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.append(([n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)], node.value))
    return found


def global_state(source):
    """Complaints: what a module or class keeps between two calls, and constants that do not stay what they are."""
    root = nodes(source)[0]
    complaints = []
    for scope in [root, *(node for node in nodes(source) if isinstance(node, ast.ClassDef))]:
        for names, value in assigned(scope):
            constant = all(re.fullmatch(r"_?[A-Z][A-Z0-9_]*|__\w+__", name) for name in names)
            made = isinstance(value, MUTABLE) or (isinstance(value, ast.Call) and ast.unparse(value.func) != "field")
            if made and not constant:
                complaints.append(f"{', '.join(names)} is state of a module or class: pass it in, or make it a CONSTANT")
    constants = {name for names, _ in assigned(root) for name in names}
    for node in nodes(source):
        changed = None
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            changed = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
            changed = node.func.value
        if isinstance(changed, ast.Name) and changed.id in constants and changed.id.isupper():
            complaints.append(f"{ast.unparse(node)} changes a constant")
        if isinstance(node, ast.Global):
            complaints.append(f"global {', '.join(node.names)}")
        for decorator in getattr(node, "decorator_list", []):
            if re.search(r"\b(lru_cache|cache)\b", ast.unparse(decorator)):
                complaints.append(f"{node.name} remembers its results")
    return complaints


def global_random(source):
    """Complaints: random numbers that nobody passed in."""
    complaints = [f"import of {name}" for name, item in imports(source, SOURCES)
                  if name == "random" or (name == "numpy.random" and item not in ("default_rng", "Generator"))]
    for node in nodes(source):
        text = ast.unparse(node) if isinstance(node, (ast.Attribute, ast.Call)) else ""
        if re.fullmatch(r"(np|numpy)\.random\.(?!default_rng)[a-z]\w*", text):
            complaints.append(f"{text} is the global generator: take an rng")
        if re.fullmatch(r"(\w+\.)*default_rng\((None)?\)", text):
            complaints.append(f"{text} draws other numbers every time: take a seed or an rng")
    return complaints


@pytest.mark.parametrize("module", SOURCES)
def test_imports_run_one_way(module):
    assert wrong_arrows(module, SOURCES[module]) == []


def test_no_import_runs_in_a_circle():
    arrows = {module: {name for name, _ in imports(source, SOURCES) if name in SOURCES} for module, source in SOURCES.items()}
    order = list(TopologicalSorter(arrows).static_order())      # raises CycleError, naming the circle
    assert set(order) == set(SOURCES)


# Two exceptions belong to the process. The number of BLAS threads is its own, so what `Workers` found there before the first of
# them was opened, and the lock for it, cannot belong to any of them. And a catalog of translations is read from the disk once.
STATE_OF_THE_PROCESS = {
    "tinymae.train.parallel": ["_lock is state of a module or class", "_found is state of a module or class"],
    "tinymae.messages": ["_catalog remembers its results"],
}


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_is_global(module):
    complaints = global_state(SOURCES[module]) + global_random(SOURCES[module])
    assert [complaint.partition(":")[0] for complaint in complaints] == STATE_OF_THE_PROCESS.get(module, []), complaints


@pytest.mark.parametrize(("module", "source", "complaint"), [
    ("tinymae.ops.linear", "from tinymae import blocks", "ops may not know blocks"),
    ("tinymae.tree", "def f():\n import tinymae.ops.linear", "tree may not know ops"),
    ("tinymae.blocks", "from tinymae.models.mae import mae_forward", "blocks may not know models"),
    ("tinymae.models.mae", "from tinymae.train import loop", "models may not know train"),
    ("tinymae.train.loop", "from tinymae.models import mae", "train may not know models"),
    ("tinymae.train.loop", "from tinymae.train.checkpoint import _pack", "tinymae.train.checkpoint._pack, which is private"),
    ("tinymae.tasks.restore", "from tinymae.__main__ import main", "tasks may not know __main__"),
    ("tinymae.tasks.restore", "from tinymae import __version__", "tasks may not know __init__"),
    ("tinymae.plot.style", "def f():\n import torch.nn", "imports torch"),
    ("tinymae.tasks.restore", "def f():\n from matplotlib import pyplot", "imports matplotlib"),
    ("tinymae.trace", "import seaborn as sns", "imports seaborn"),
    ("tinymae.ops.linear", "from PIL import Image", "imports PIL"),
    ("tinymae.ops.activation", "from scipy.special import ndtr", "imports scipy: the core needs NumPy alone"),
    ("tinymae.trace", "import tqdm", "imports tqdm"),
])
def test_import_rules_bite(module, source, complaint):
    (found,) = wrong_arrows(module, source)
    assert complaint in found


@pytest.mark.parametrize(("source", "complaint"), [
    ("import importlib\nimportlib.import_module('torch')", "hides an import"),
    ("from . import tree", "relative import"),
])
def test_hidden_imports_are_refused(source, complaint):
    with pytest.raises(AssertionError, match=complaint):
        wrong_arrows("tinymae.tasks.restore", source)


def test_a_new_module_needs_a_place():
    with pytest.raises(AssertionError, match=r"tinymae\.cellar\.wine is in no room of ROOMS"):
        wrong_arrows("tinymae.cellar.wine", "import tinymae.tree")


@pytest.mark.parametrize("source", [
    "memory = []",
    "_seen: dict = {}",
    "table = np.zeros(3)",
    "import collections\ncounts = collections.Counter()",
    "class Layer:\n params = {}",
    "def f():\n global steps\n steps = 1",
    "_TABLE = {}\ndef f(x):\n _TABLE[x] = 1",
    "TABLE = []\ndef f(x):\n TABLE.append(x)",
    "import numpy as np\nnp.random.seed(0)",
    "import numpy as np\ndef f(n): return np.random.normal(size=n)",
    "import numpy as np\ndef f(): return np.random.default_rng()",
    "from numpy.random import default_rng\ndef f(): return default_rng()",
    "from numpy.random import rand",
    "import random",
    "import functools\n@functools.lru_cache(None)\ndef f(n): return n",
])
def test_state_rules_bite(source):
    assert len(global_state(source) + global_random(source)) == 1


# ---- the behaviour: how a case is run --------------------------------------------------------------------------------

class Draws:
    """A generator that draws the same numbers in every precision (NumPy's own draws others in float32)."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def random(self, shape, dtype):
        return self.rng.random(shape).astype(dtype)


def rebuild(function, value):
    """The nest of dicts, lists and tuples again, with function(array) for every array in it; all else stays."""
    if isinstance(value, dict):
        return {key: rebuild(function, branch) for key, branch in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(rebuild(function, branch) for branch in value)
    return function(value) if isinstance(value, (np.ndarray, np.floating)) else value


def cast(value, dtype):
    """value with every float64 array in it as dtype."""
    return rebuild(lambda leaf: leaf.astype(dtype) if leaf.dtype == np.float64 else leaf, value)


def frozen(value):
    """value with every array in it as a read-only copy (strided where the original is)."""
    def freeze(leaf):
        copy = np.array(leaf, order="K")
        copy.flags.writeable = False
        return copy

    return rebuild(freeze, value)


def arrays(value, path=""):
    """[(path, array)] of everything in a nest of dicts, lists and tuples, numbers included."""
    if isinstance(value, dict):
        return [found for key, branch in value.items() for found in arrays(branch, f"{path}.{key}")]
    if isinstance(value, (list, tuple)):
        return [found for i, branch in enumerate(value) for found in arrays(branch, f"{path}.{i}")]
    return [(path, value)] if isinstance(value, (np.ndarray, np.floating)) else []


def forward(case):
    """(y, cache) of a case, with a fresh generator where it wants one."""
    options = dict(case.options)
    if options.get("rng") is not None:
        options["rng"] = Draws(options["rng"])
    return case.forward(*case.args, **options)


def upstream(y, seed=5):
    """A random dy like y; a float for a loss."""
    dy = np.random.default_rng(seed).normal(size=np.shape(y)).astype(np.asarray(y).dtype)
    return dy if np.ndim(y) else float(dy)


def both(case):
    """y and gradients of one forward and its backward, nothing in between."""
    y, cache = forward(case)
    return y, case.backward(upstream(y), cache)


def same(a, b):
    """Bit by bit."""
    pairs = zip(arrays(a), arrays(b), strict=True)
    return all(p == q and np.array_equal(x, y) and x.dtype == y.dtype for (p, x), (q, y) in pairs)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


# ---- the behaviour: rules ---------------------------------------------------------------------------------------------

def check_precision(case):
    """float32 gives float32, and the numbers of float64 but for rounding: 1e-5 of each tensor's norm, and that of dy.

    The gradient of a key's bias is zero (it moves all scores of a query alike): what rounding leaves is compared with dy.
    """
    y, cache = forward(case)
    dy = upstream(y)
    double = arrays({"y": y, "grads": case.backward(dy, cache)})
    y, cache = forward(replace(case, args=cast(case.args, np.float32), options=cast(case.options, np.float32)))
    assert np.shape(dy) == np.shape(y)
    single = arrays({"y": y, "grads": case.backward(cast(dy, np.float32), cache)})
    for (path, a), (other, b) in zip(double, single, strict=True):
        assert path == other
        assert b.dtype == np.float32, f"{path} is {b.dtype} for float32 arguments"
        size = np.linalg.norm(a)
        if size < 1e-12 * np.linalg.norm(dy):
            size = np.linalg.norm(dy)
        error = np.linalg.norm(a - b) / size if size else np.linalg.norm(b)
        assert error < 1e-5, f"{path} in float32 is off by {error:.1e} of its norm"


def check_ownership(case):
    """Nothing that was handed in is written to, and every result is fresh: it shares memory with nothing."""
    case = replace(case, args=frozen(case.args), options=frozen(case.options))
    y, cache = forward(case)
    given = arrays({"args": case.args, "options": case.options})
    for path, leaf in given:
        assert not np.shares_memory(y, leaf), f"y shares memory with {path}"
    dy = frozen(upstream(y))
    for _, leaf in arrays(cache):
        if isinstance(leaf, np.ndarray):
            leaf.flags.writeable = False
    gradients = arrays({"gradients": case.backward(dy, cache)})
    taken = [*given, ("dy", dy), *arrays(cache, "cache")]
    for i, (path, gradient) in enumerate(gradients):
        assert gradient.flags.writeable, f"{path} is read-only: whom does it belong to?"
        for other, leaf in taken + gradients[:i]:
            assert not np.shares_memory(gradient, leaf), f"{path} shares memory with {other}"


def check_reentrant(case, other):
    """The function used on `case`, then on `other`, then the backwards in either order: as each of them alone."""
    alone, other_alone = both(case), both(other)
    assert not same(alone, other_alone), "the other data are not other data"
    first, second = forward(case), forward(other)
    assert same(alone, (first[0], case.backward(upstream(first[0]), first[1]))), "a second forward disturbs the first"
    assert same(other_alone, (second[0], other.backward(upstream(second[0]), second[1]))), "a backward disturbs another"


def check_threads(case, other, trials=4):
    """From two threads at once, with other data in each: as alone, bit by bit.

    Small arrays are ready before the threads ever swap, so we make them swap: at every line of ours that runs. In what has
    cases of its own, such as the ops of a model, only at every call: its lines are swapped there. So it is in the checks of
    `tinymae.arguments`, which return nothing and, as any module, keep nothing.
    """
    module = case.function.__module__
    at_calls = {arguments.__file__, *(sys.modules[name].__file__ for name in WITH_CASES - {module})}

    def swap(frame, event, arg):
        if not frame.f_code.co_filename.startswith((str(PACKAGE), __file__)):
            return None
        time.sleep(0)
        return swap if frame.f_code.co_filename not in at_calls else None

    alone = both(case), both(other)
    threading.settrace(swap)                                    # of threads that start from now on
    try:
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(both, [case, other] * trials))
    finally:
        threading.settrace(None)
    for i, result in enumerate(results):
        assert same(alone[i % 2], result), f"trial {i // 2}: another thread disturbs this one"


def check_cache(case):
    """An op remembers a tuple of at most six, or None where it is switched off; a block a dict."""
    cache = forward(case)[1]
    if case.function.__module__.startswith("tinymae.ops."):
        assert cache is None or isinstance(cache, tuple), f"the cache is a {type(cache).__name__}"
        assert len(cache or ()) <= 6, f"the cache has {len(cache)} entries, a reader can hold six"
    else:
        assert isinstance(cache, dict), f"the cache is a {type(cache).__name__}"


def test_gradient(case):
    rows = gradcheck(case.forward, case.backward, *case.args, samples=case.samples, **case.options)
    assert rows
    assert all(row.ok for row in rows), "\n" + format_rows(case.name, rows)


def test_precision(case):
    check_precision(case)


def test_ownership(case):
    check_ownership(case)


def test_used_twice(case):
    check_reentrant(case, OTHERS[case.name])


def test_two_threads(case):
    check_threads(case, OTHERS[case.name])


def test_cache(case):
    check_cache(case)


# ---- the rules bite ---------------------------------------------------------------------------------------------------

def square_forward(x):
    return x * x, (x,)


def square_backward(dy, cache):
    (x,) = cache
    return 2 * x * dy


def planted(forward=square_forward, backward=square_backward, module="tinymae.ops.square"):
    """x^2 as a case, and the same with other data."""
    rng = np.random.default_rng(0)
    function = SimpleNamespace(__module__=module)
    return [Check("square", function, forward, backward, (rng.normal(size=(40, 50)),), {}) for _ in range(2)]


def float64_forward(x):
    return x * x * np.float64(1), (x,)


def sloppy_forward(x):
    return x * x * x.dtype.type(1 + (1e-4 if x.dtype == np.float32 else 0)), (x,)


def float64_backward(dy, cache):
    return square_backward(dy, cache) * np.sqrt(np.float64(1))


def writing_forward(x):
    y = x * x
    x += 1
    return y, (x,)


def view_forward(x):
    return x[:], (x,)


def writing_backward(dy, cache):
    dy *= 2 * cache[0]
    return dy


def cache_writing_backward(dy, cache):
    cache[0][...] = 2 * dy * cache[0]
    return cache[0].copy()


def handing_on_backward(dy, cache):
    return dy[::-1]


def one_array_twice_backward(dy, cache):
    dx = square_backward(dy, cache)
    return dx, dx[:1]


class Layer:
    """What the contract forbids: a layer that keeps its input for the backward."""

    def forward(self, x):
        self.x = x
        return x * x, (x,)

    def backward(self, dy, cache):
        return 2 * self.x * dy


@pytest.mark.parametrize(("rule", "functions", "complaint"), [
    (check_precision, {"forward": float64_forward}, r"\.y is float64"),
    (check_precision, {"backward": float64_backward}, r"\.grads is float64"),
    (check_precision, {"forward": sloppy_forward}, r"\.y in float32 is off by 1\.0e-04"),
    (check_ownership, {"forward": writing_forward}, "read-only"),
    (check_ownership, {"forward": view_forward}, r"y shares memory with \.args\.0"),
    (check_ownership, {"backward": writing_backward}, "read-only"),
    (check_ownership, {"backward": cache_writing_backward}, "read-only"),
    (check_ownership, {"backward": handing_on_backward}, "(read-only: whom|shares memory with dy)"),
    (check_ownership, {"backward": one_array_twice_backward}, r"gradients\.1 shares memory with \.gradients\.0"),
    (check_cache, {"forward": lambda x: (x * x, [x])}, "the cache is a list"),
    (check_cache, {"forward": lambda x: (x * x, (x,) * 7)}, "the cache has 7 entries"),
    (check_cache, {"module": "tinymae.blocks"}, "the cache is a tuple"),
])
def test_rules_bite(rule, functions, complaint):
    rule(planted()[0])
    with pytest.raises((AssertionError, ValueError), match=complaint):
        rule(planted(**functions)[0])


def test_state_is_seen():
    check_reentrant(*planted())
    layer = Layer()
    with pytest.raises(AssertionError, match="a second forward disturbs the first"):
        check_reentrant(*planted(layer.forward, layer.backward))


def test_threads_are_seen():
    check_threads(*planted())
    layer = Layer()
    with pytest.raises(AssertionError, match="another thread disturbs this one"):
        check_threads(*planted(layer.forward, layer.backward), trials=50)


# ---- the text: types and names ---------------------------------------------------------------------------------------

def public_methods(source):
    """(name, node) of public functions, and of public methods of public classes with their __init__."""
    for node in nodes(source)[0].body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node, node.args.args
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    yield f"{node.name}.{method.name}", method, method.args.args[1:]


def badly_signed(source):
    """Complaints: a parameter or result without a type; more than six parameters, of which more than six are positional."""
    complaints = []
    for name, node, positional in public_methods(source):
        every = [*positional, *node.args.kwonlyargs]
        complaints += [f"{name}: {argument.arg} has no type" for argument in every if argument.annotation is None]
        if node.returns is None:
            complaints.append(f"{name} returns something without a type")
        if len(positional) > 6:
            complaints.append(f"{name} takes {len(positional)} positional arguments: make the options keyword-only")
    return complaints


@pytest.mark.parametrize("module", SOURCES)
def test_signatures(module):
    assert badly_signed(SOURCES[module]) == []


@pytest.mark.parametrize(("source", "complaint"), [
    ("def f(x) -> int: pass", "f: x has no type"),
    ("def f(x: int): pass", "f returns something without a type"),
    ("class A:\n def f(self, *, x) -> int: pass", r"A.f: x has no type"),
    ("def f(a: int, b: int, c: int, d: int, e: int, f: int, g: int) -> int: pass", "f takes 7 positional arguments"),
])
def test_signature_rules_bite(source, complaint):
    (found,) = badly_signed(source)
    assert complaint in found


ANYWHERE = {                            # names that several rooms may define: each says whose it is where it is used
    "B", "TQ", "TK", "D", "H", "F", "V", "DK", "DV",                    # sizes of test inputs
    "add_train", "add_evaluate",                                        # cli: one for each family of commands
    "FUNCTIONS",                                                        # play: of each tab
    "save",                                                             # plot.save a figure, checkpoint.save a model
}


def test_a_public_name_is_defined_once():
    places = {}
    for module, source in SOURCES.items():
        for node in nodes(source)[0].body:
            names = [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
            if isinstance(node, ast.Assign):
                names = [n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)]
            for name in names:
                if not name.startswith("_"):
                    places.setdefault(name, []).append(module)
    twice = {name: modules for name, modules in places.items() if len(modules) > 1 and name not in ANYWHERE}
    assert not twice
