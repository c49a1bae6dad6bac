"""Whatever happens to a training run, nothing of it is lost: `faults.py` kills, fills, closes, deletes, and looks.

    TINYMAE_KILLS=200 python -m pytest -n 0 tests/test_faults.py        200 kills in place of 21
"""
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("TINYMAE_KILLS", "21")) // 3
pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork, which Windows lacks, and macOS makes unsafe"
)


@pytest.mark.parametrize("kind", ["mae", "vit", "translate"])
def test_nothing_is_lost(kind):
    program = Path(__file__).with_name("faults.py")
    found = subprocess.run(
        [sys.executable, program, kind, str(KILLS)], capture_output=True, text=True, check=False, timeout=100 + 10 * KILLS
    )
    assert found.returncode == 0, found.stdout + found.stderr
