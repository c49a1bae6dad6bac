"""How the tests share the machine: one BLAS thread in every process, long tests first, and a file's models trained once."""
import os
import signal
from pathlib import Path

import pytest

os.environ["LANGUAGE"] = "en"                       # the tests read English sentences, whoever runs them

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(name, "1")                # before NumPy is imported; the workers and their children inherit it

for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"):
    os.environ.setdefault(name, str(2**25))         # glibc in the same processes: memory of large arrays is kept for the next

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:            # of a command with & in a script; the tests press Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

SPREAD = "test_lessons", "test_contract", "test_exercises"      # without fixtures to share: each test goes to any free worker


@pytest.fixture(scope="session")
def progress(tmp_path_factory):
    """Where the folders of `no_progress` would be."""
    return tmp_path_factory.mktemp("progress")


@pytest.fixture(autouse=True)
def no_progress(monkeypatch, progress, request):
    """What a test solves is not kept as the progress of whoever runs it. No folder is made: most tests solve nothing."""
    monkeypatch.setenv("TINYMAE_DATA", str(progress / str(id(request.node))))


def pytest_collection_modifyitems(items):
    """Runs of lessons first, the late ones train longest; then whole files; at last the small tests."""
    lessons, files, small = [], [], []
    for item in items:
        if item.originalname == "test_it_runs_and_its_exercises_have_answers":
            lessons.insert(0, item)
        else:
            (small if item.path.stem in SPREAD else files).append(item)
    items[:] = lessons + files + small


@pytest.hookimpl(optionalhook=True)                             # of xdist
def pytest_xdist_make_scheduler(config, log):
    """A file is for one worker, so that its fixtures are made once and its tests do not disturb each other."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return nodeid if Path(file).stem in SPREAD else file

    return Files(config, log)
