"""`check` in a process of its own: the learner's file may loop, exit or crash, and there is a Report all the same.

    check_file(path)  --starts-->  a second Python: judge_file(path)  --report.json in a temporary folder-->  Report

What the file prints goes to the terminal, as always; the report does not pass through there, so a print cannot fake it. Only a
report that says so makes a solution right: not the exit status of that process, nor its silence.

This catches accidents, not attacks: the file can still do whatever you may do on this machine, such as delete your files. Check
those of strangers in a container, or under a user name that owns nothing.
"""
import faulthandler
import json
import linecache
import os
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tinymae.learn.report import Report, existing_file
from tinymae.messages import message as _

START = 60.0                 # seconds that Python, NumPy and tinymae may take to start on the slowest machine
STAGES = 10                  # running a file, and the tables of its check: no exercise has more


def check_file(path: Path | str, seconds: float = 10.0, *, tell: bool = False, quiet: bool = False) -> Report:
    """Execute a learner's file in a process of its own, check its functions, and explain what is wrong.

    Parameters
    ----------
    path : a Python file with a line such as EXERCISE = "layernorm"; it is executed
    seconds : how long the file may run, and then each table of its check; importing tinymae does not count. The slowest table
        of a right solution takes one second on two slow cores
    tell : tell the story of a bug of the zoo without a guess
    quiet : what the file prints goes to standard error

    Returns
    -------
    Report : ok only if every check passed

    Raises
    ------
    FileNotFoundError
        if there is no such file
    RuntimeError
        if the check itself fails, and not the file
    """
    path = existing_file(path)
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(path), folder, seconds, tell]
        code = (f"import sys; sys.path[:] = {[str(entry) for entry in sys.path]}; "
                f"from tinymae.learn.process import _serve; _serve(*{arguments})")
        # A session of its own: Ctrl-C reaches this process alone, which then ends that one and all that it has started.
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=2 if quiet else None,
            start_new_session=True, creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        try:
            child.wait(START + STAGES * seconds)                # it ends itself in time, unless the file has prevented that
        except subprocess.TimeoutExpired:
            return Report(False, _("{path}: {problem}", path=path, problem=_too_long(seconds)))
        finally:
            if child.poll() is None:
                _kill(child)
        return _report(path, Path(folder), child.returncode, seconds)


def _serve(path, folder, seconds, tell):
    """The second process: judge the file, write report.json, and leave at once, whatever the file has started."""
    # The first process imports neither NumPy nor the checks, and starts at once.
    from tinymae.learn.solution import judge_file

    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True)             # so that nothing printed is lost where time runs out
    dump = open(Path(folder, "dump"), "w")
    faulthandler.enable(dump)                                   # a crash writes there which line it was in
    try:
        report = judge_file(path, partial(faulthandler.dump_traceback_later, seconds, exit=True, file=dump), tell=tell)
    except KeyboardInterrupt:
        report = Report(False, _("{path}: it was interrupted (SIGINT) before all checks were done", path=path))
    except BaseException:
        report = None
        Path(folder, "failure").write_text(traceback.format_exc(), encoding="utf-8")
    faulthandler.cancel_dump_traceback_later()
    if report is not None:
        Path(folder, "report.part").write_text(json.dumps(asdict(report)), encoding="utf-8")
        os.replace(Path(folder, "report.part"), Path(folder, "report.json"))
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):     # the file may have replaced or closed it
            stream.flush()
    os._exit(0)


def _report(path, folder, status, seconds):
    """What the second process has left behind, as a Report."""
    if (folder / "report.json").is_file():
        return Report(**json.loads((folder / "report.json").read_text(encoding="utf-8")))
    if (folder / "failure").is_file():
        failure = (folder / "failure").read_text(encoding="utf-8")
        raise RuntimeError(_("the check itself failed, not your file:\n{failure}", failure=failure))
    dump = (folder / "dump").read_text(encoding="utf-8") if (folder / "dump").is_file() else None
    if dump is None:
        raise RuntimeError(_("the process that checks {path} ended with status {status} before it began: its message is above",
                             path=path, status=status))
    if dump.startswith("Timeout"):
        text = _too_long(seconds)
    elif status < 0:
        text = _("Python was ended by signal {number} ({name}): it crashed, or was out of memory",
                 number=-status, name=signal.strsignal(-status))
    elif dump:
        text = _("Python crashed with status {status}", status=status)
    else:
        text = _("it ended Python with status {status} before all checks were done, by os._exit() or in a similar way: take "
                 "that line out", status=status)
    line = _line(path, dump)
    return Report(False, f"{line}\n{text}" if line else _("{path}: {problem}", path=path, problem=text))


def _too_long(seconds):
    return _("still running after {seconds:g} s: does the loop end?", seconds=seconds)


def _line(path, dump):
    """The line of the file that the main thread was in, from what faulthandler wrote; empty if it was not in the file."""
    name = re.escape(str(path).encode("ascii", "backslashreplace").decode("ascii"))
    for thread in reversed(dump.split("\n\n")):                 # the main thread is the last one
        found = re.search(rf'File "{name}", line (\d+) in (.+)', thread)
        if found:
            where = _("line {line}, in {function}:", line=found[1], function=found[2])
            return f"{where}\n    {linecache.getline(str(path), int(found[1])).strip()}"
    return ""


def _kill(child):
    if os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):     # it has ended in the meantime
            os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()
    child.wait()
