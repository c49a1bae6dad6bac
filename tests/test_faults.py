"""Whatever happens to a training run, nothing of it is lost: `faults.py` kills, fills, closes, deletes, and looks.

    TINYMAE_KILLS=200 python -m pytest -n 0 tests/test_faults.py        200 kills in place of 21
"""
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("TINYMAE_KILLS", "21")) // 3
pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork, which Windows lacks, and macOS makes unsafe"
)


KINDS = "mae", "vit", "translate"


@pytest.fixture(scope="module")
def started():
    """{kind: the program for it}. All run side by side: most of the time a run waits, for a kill or for a file."""
    program = Path(__file__).with_name("faults.py")
    processes = {kind: subprocess.Popen([sys.executable, program, kind, str(KILLS)], stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, start_new_session=True) for kind in KINDS}
    yield processes
    for process in processes.values():
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost(kind, started):
    output, _ = started[kind].communicate(timeout=100 + 10 * KILLS)
    assert started[kind].returncode == 0, output
