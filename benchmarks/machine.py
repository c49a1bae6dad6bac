"""The machine: its name, its memory, how busy others keep it, and how to make it pretend to have AVX2 alone."""
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

BUSY = 0.1              # cores that others may use, on average, before the report says so


def description() -> dict[str, str]:
    """What to name beside figures: processor, system and versions."""
    blas = next((it for it in threadpool_info() if it["user_api"] == "blas"), {})
    kernel = blas.get("architecture") or "unknown"
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores, L2 {_l2()}",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "BLAS": f"{blas.get('internal_api', 'unknown')} {blas.get('version') or ''}, kernel {kernel}",
        "PyTorch": _version("torch"),
        "JAX": _version("jax"),
    }


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor():
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return _sysctl("machdep.cpu.brand_string") or platform.processor() or "unknown processor"


def _l2():
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/level"):
        if file.read_text().strip() == "2":
            return file.with_name("size").read_text().strip() + " a core"
    size = _sysctl("hw.l2cachesize")
    return f"{int(size) // 1024}K" if size else "unknown"


def _sysctl(name):
    if sys.platform != "darwin":
        return ""
    return subprocess.run(["sysctl", "-n", name], stdout=subprocess.PIPE, text=True).stdout.strip()


def avx2() -> dict[str, str]:
    """Environment variables that keep NumPy, OpenBLAS, PyTorch and JAX from using more than AVX2."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise SystemExit(f"--emulate-avx2: expected an x86 processor, got {platform.machine()}: AVX2 is an extension of x86")
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    beyond = [name for name in found if name == "X86_V4" or name.startswith("AVX512")]
    return {
        "OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": " ".join(beyond), "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    }


def memory(forget: bool = False) -> tuple[float, float] | None:
    """MiB of RAM this process holds, (now, at most so far), or None if unknown. forget: the mark starts again from now.

    Linux tells both in /proc. macOS tells the mark only, so that both numbers are the mark.
    """
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        status = dict(line.split(":", 1) for line in lines)
        if forget:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        # Not getrusage's mark, which a child takes over from the process that started it.
        return tuple(int(status[key].removesuffix("kB")) / 2**10 for key in ("VmRSS", "VmHWM"))
    if sys.platform == "darwin":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20       # bytes here
        return peak, peak
    return None


class Others:
    """How many cores other processes use: `Others()` starts to count, `cores()` is the mean since then."""

    def __init__(self):
        self.start, self.total, self.own = time.perf_counter(), self._busy(), time.process_time()

    def cores(self) -> float:
        """Cores; where the system does not count them, by the load average of the last minute, of which ours are taken off."""
        if self.total is None:
            ours = (time.process_time() - self.own) / (time.perf_counter() - self.start)
            return max(0.0, os.getloadavg()[0] - ours) if hasattr(os, "getloadavg") else 0.0
        own = time.process_time() - self.own
        unsure = os.cpu_count() / os.sysconf("SC_CLK_TCK")      # each core counts in ticks
        return max(0.0, (self._busy() - self.total - own - unsure) / (time.perf_counter() - self.start))

    def _busy(self):
        """Seconds that all cores have worked, or that other virtual machines have taken from them."""
        if sys.platform != "linux":
            return None
        user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
        return (user + nice + system + sum(rest[:3])) / os.sysconf("SC_CLK_TCK")
