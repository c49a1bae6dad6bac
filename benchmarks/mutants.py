"""Does the suite see it? A sample of small faults, planted one at a time: how many does a test notice?

    python benchmarks/mutants.py [--seed 0] [--count 300] [--slots 2] [--json FILE] [--again]

A mutant is the package with one change in ops, blocks, models, masks or the optimiser: another comparison or operator, `or`
for `and`, a condition turned round, a constant that is larger by 1, an argument left out, two arguments exchanged, a statement
removed. Docstrings, types and the texts of errors are left alone. The sample is drawn from all such mutants.

Each is written into a copy of the repository and meets the tests of its room, which stop at the first failure. Those that live
meet the wider tests. A run that takes far too long counts as a failure. The file of results is written after each mutant: the
same command goes on where it stopped, and --again gives those that lived another chance, after tests were added.

Not among the wider tests: test_two_threads, which no change without state can fail, and all that is far from these modules.
"""
import argparse
import ast
import copy
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = {                               # module or folder: its tests, the likely killers first; the first that fits holds
    "ops": "ops golden dropout models shapes transformer vit mae",
    "blocks.py": "blocks golden dropout models shapes transformer vit mae",
    "masks.py": "masks transformer dropout decode",
    "models/transformer.py": "transformer dropout models decode blocks shapes",
    "models/decoding.py": "decode models",
    "models/mae.py": "mae golden models invariants blocks shapes",
    "models": "vit dropout models golden mae blocks shapes",
    "train/optim.py": "optim golden models vit",
}
WIDER = ["bug_zoo", "exercise_equations", "gradcheck", "pretrained", "contract"]        # after the tests of all other rooms
SWAPPED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot,
    ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub,
    ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}
COMMUTATIVE = {"maximum", "multiply", "vdot", "vecdot"}


def changed(node: ast.AST, **fields: object) -> ast.AST:
    """A copy of the node with other fields."""
    node = copy.copy(node)
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def mutations(node: ast.AST) -> list[ast.AST]:
    """What may stand in place of the node itself; its children are for themselves."""
    match node:
        case ast.Compare(ops=ops):
            return [changed(node, ops=[*ops[:i], SWAPPED[type(op)](), *ops[i + 1 :]]) for i, op in enumerate(ops)]
        case ast.BinOp(op=ast.MatMult()):
            return [changed(node, left=node.right, right=node.left)]
        case ast.BoolOp() | ast.BinOp():
            return [changed(node, op=SWAPPED[type(node.op)]())]
        case ast.UnaryOp():
            return [node.operand]
        case ast.Constant(value=bool(value)):
            return [ast.Constant(not value)]
        case ast.Constant(value=int(value) | float(value)):
            return [ast.Constant(value + 1)]
        case ast.IfExp(test=test):
            return [changed(node, test=ast.UnaryOp(ast.Not(), test))]
        case ast.Call(args=args, keywords=keywords):
            found = [changed(node, keywords=[*keywords[:i], *keywords[i + 1 :]]) for i in range(len(keywords))]
            function, starred = getattr(node.func, "attr", ""), any(isinstance(arg, ast.Starred) for arg in args[:2])
            if len(args) > 1 and not starred and function not in COMMUTATIVE and ast.dump(args[0]) != ast.dump(args[1]):
                found.append(changed(node, args=[args[1], args[0], *args[2:]]))
            return found
        case ast.AugAssign(op=op):
            return [ast.Pass(), changed(node, op=SWAPPED[type(op)]())]
        case ast.Raise() | ast.Continue() | ast.Expr(value=ast.Call()):
            return [ast.Pass()]
        case ast.Assign(targets=[target], value=value):
            kept = {name.id for name in ast.walk(value) if isinstance(name, ast.Name)}
            again = isinstance(target, ast.Name) and target.id in kept          # x = f(x): without it, x stays
            return [ast.Pass()] if again or isinstance(target, (ast.Subscript, ast.Attribute)) else []
        case ast.If(test=test) | ast.While(test=test) if not isinstance(test, ast.UnaryOp):     # without its `not`: see there
            return [changed(node, test=ast.UnaryOp(ast.Not(), test))]
    return []


def children(node: ast.AST) -> list[ast.AST]:
    """The parts of a node that are mutated, without types, texts, and what is raised. Of -1, the last, only the sign is."""
    skipped = {"annotation", "returns", "op", "ops"}
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)
    if negative or isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return []
    parts = [part for name, part in ast.iter_fields(node) if name not in skipped]
    return [child for part in parts for child in (part if isinstance(part, list) else [part]) if isinstance(child, ast.AST)]


def mutants(path: Path) -> list[tuple[str, str, str]]:
    """(name, what is changed, the changed source) of every mutant of a module."""
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found, nodes = [], [ast.parse(source)]
    while nodes:
        node = nodes.pop(0)
        nodes += children(node)
        for i, other in enumerate(mutations(node)):
            part, new = (node.test, other.test) if isinstance(node, (ast.If, ast.While)) else (node, other)
            first, last = starts[part.lineno - 1] + part.col_offset, starts[part.end_lineno - 1] + part.end_col_offset
            text = ast.unparse(new) if isinstance(new, ast.stmt) else f"({ast.unparse(new)})"
            name = f"{path.relative_to(ROOT).as_posix()}:{part.lineno}:{first}-{last}:{type(node).__name__}:{i}"
            mutant = source[:first] + text.encode() + source[last:]
            found.append((name, f"{ast.unparse(part)}  ->  {ast.unparse(new)}", mutant.decode()))
    return found


def run(folder: Path, tests: list[str], limit: float) -> tuple[str, float]:
    """(the first test that fails, or "" if none does; seconds) of these tests in a copy of the repository."""
    files = [f"tests/test_{name}.py" for name in tests]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--durations", "0", *files,
               "--deselect", "tests/test_contract.py::test_two_threads"]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, timeout=limit,
                              capture_output=True, text=True, encoding="utf-8", errors="replace")
    except subprocess.TimeoutExpired:
        return "time limit", limit
    if done.returncode not in (0, 1, 2):                        # 1: a test failed; 2: a test file could not be imported
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    failed = [line.partition(" ")[2].partition(" - ")[0] for line in done.stdout.splitlines()
              if line.startswith(("FAILED ", "ERROR "))]
    return ([*failed, "a failure"][0] if done.returncode else ""), time.perf_counter() - started


def judge(folder: Path, name: str, source: str) -> dict:
    """Plant one mutant in a copy of the repository, run its tests, and take it out again."""
    path = folder / name.partition(":")[0]
    room = next(tests for prefix, tests in ROOMS.items() if name.startswith(f"tinymae/{prefix}")).split()
    rest = [test for test in dict.fromkeys(" ".join([*ROOMS.values(), *WIDER]).split()) if test not in room]
    original = path.read_bytes()
    try:
        for cached in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):         # it may be of the same size and second
            cached.unlink()
        path.write_text(source, encoding="utf-8", newline="")
        killer, seconds = run(folder, room, 60)
        stage = "room"
        if not killer:
            killer, more = run(folder, rest, 600)
            stage, seconds = "wider" if killer else "lives", seconds + more
    finally:
        path.write_bytes(original)
    return {"verdict": stage, "by": killer, "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--slots", type=int, default=2, help="mutants that are tried at a time, each in a copy of its own")
    parser.add_argument("--json", type=Path, default=Path(tempfile.gettempdir()) / "tinymae-mutants.json")
    parser.add_argument("--again", action="store_true", help="try those that lived once more")
    options = parser.parse_args()
    files = [path for room in ROOMS for path in sorted((ROOT / "tinymae").glob(f"{room}/*.py" if "." not in room else room))]
    everything = [mutant for path in dict.fromkeys(files) for mutant in mutants(path)]
    sample = random.Random(options.seed).sample(everything, options.count)
    results = json.loads(options.json.read_text("utf-8")) if options.json.exists() else {}
    left = [m for m in sample if m[0] not in results or (options.again and results[m[0]]["verdict"] == "lives")]
    print(f"{len(everything)} mutants, {len(sample)} in the sample, {len(left)} to try; results in {options.json}", flush=True)
    started, slots = time.perf_counter(), queue.SimpleQueue()

    def attempt(mutant):
        folder = slots.get()
        try:
            return mutant, judge(folder, mutant[0], mutant[2])
        finally:
            slots.put(folder)

    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(options.slots) as pool:
        for i in range(options.slots):
            folder = Path(temporary).resolve() / str(i)
            shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", "__pycache__", "*.egg-info"))
            slots.put(folder)
            if i == 0 and (failed := run(folder, sorted(set(" ".join(ROOMS.values()).split())), 600)[0]):
                raise SystemExit(f"{failed} fails without any mutant")
        try:
            for done in as_completed([pool.submit(attempt, mutant) for mutant in left]):
                (name, what, _), result = done.result()
                results[name] = {"change": what, **result}
                options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
                print(f"{result['verdict']:6}{result['seconds']:6.1f} s  {name}  {what[:90]!r}  {result['by']}", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
    verdicts = [results[name]["verdict"] for name, *_ in sample]
    print(*(f"{verdicts.count(verdict)} {verdict}," for verdict in ("room", "wider", "lives")),
          f"{100 * (1 - verdicts.count('lives') / len(verdicts)):.1f} % killed, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
