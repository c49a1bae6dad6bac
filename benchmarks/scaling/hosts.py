"""Several hosts on one machine, for measurements of a network: Linux network namespaces, joined by a switch.

    with hosts(2, Network(megabits=100)) as joined:
        subprocess.run(joined.mpiexec(["python", "program.py"]))

Each host is a namespace with one network device, eth0, and a cable (a pair of devices) to a bridge in a namespace of its own. A
token bucket (tc tbf) on eth0 limits what a host sends. Where the kernel has no netem, a delay needs another cable: a pair of
TAP devices, whose frames a thread of this process carries over, each after its time.

It needs root and iproute2. The addresses exist in these namespaces alone, and nothing leaves them.
"""
import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launcher.py")
SWITCH_ADDRESS = "10.77.0.254"
MTU = 9000                                      # bytes of a frame, as in data centres
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000      # linux/if_tun.h


@dataclass(frozen=True)
class Network:
    """What joins the hosts; None is no limit."""

    megabits: float | None = None               # that a host can send in a second
    delay: float = 0.0                          # milliseconds from one host to another

    @property
    def name(self) -> str:
        speed = f"{self.megabits:g} Mbit/s" if self.megabits else "unshaped"
        return f"{speed}, {self.delay:g} ms" if self.delay else speed


@dataclass(frozen=True)
class Joined:
    """Namespaces that are there."""

    switch: str
    names: list[str]

    def mpiexec(self, program: list[str], mpiexec: str = "mpiexec") -> list[str]:
        """The command that runs a program on each host."""
        return [
            "ip", "netns", "exec", self.switch, mpiexec, "-launcher", "ssh", "-launcher-exec", str(LAUNCHER),
            "-localhost", SWITCH_ADDRESS, "-hosts", ",".join(self.names), "-n", str(len(self.names)), "-ppn", "1", *program,
        ]


# MPI over TCP and eth0, although all hosts are one machine with one memory.
ENVIRONMENT = {"MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "eth0"}


def ip(*arguments: object) -> str:
    """What `ip ARGUMENTS` prints."""
    done = subprocess.run(["ip", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = f"ip {' '.join(map(str, arguments))}: {done.stderr.strip()}"
        raise OSError(f"{said} (it needs root, and a kernel with veth and bridge)")
    return done.stdout


@contextlib.contextmanager
def hosts(count: int, network: Network) -> Iterator[Joined]:
    """Make the namespaces, and remove them with all that runs in them, also after an error or Ctrl-C."""
    joined = Joined(f"tinymae-{os.getpid()}-switch", [f"tinymae-{os.getpid()}-{i}" for i in range(count)])
    cables = []
    try:
        for name in (joined.switch, *joined.names):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", joined.switch, "link", "add", "br0", "type", "bridge")
        ip("-n", joined.switch, "address", "add", f"{SWITCH_ADDRESS}/24", "dev", "br0")
        ip("-n", joined.switch, "link", "set", "br0", "up")
        for i, name in enumerate(joined.names):
            if network.delay:
                cables.append((tap("eth0", name), tap(f"port{i}", joined.switch)))
            else:
                ip("-n", joined.switch, "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", joined.switch, "link", "set", f"port{i}", "mtu", MTU, "master", "br0", "up")
            ip("-n", name, "address", "add", f"10.77.0.{i + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "mtu", MTU, "up")
            if network.megabits:
                limit(name, network.megabits)
        with carried(cables, network.delay / 1000):
            yield joined
    finally:
        for name in (*joined.names, joined.switch):
            if name in ip("netns", "list").split():
                for process in ip("netns", "pids", name).split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(process), signal.SIGKILL)
                ip("netns", "delete", name)
        for cable in cables:
            for end in cable:
                os.close(end)


def limit(name: str, megabits: float) -> None:
    """A token bucket on what a host sends. It holds two milliseconds of data, and queues a fifth of a second."""
    burst = max(32_000, int(megabits * 1e6 / 8 * 0.002))
    subprocess.run(
        ["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", f"{megabits:g}mbit",
         "burst", str(burst), "latency", "200ms"],
        check=True,
    )


# ---- a cable with a delay ------------------------------------------------------------------------------------------------

def tap(name: str, namespace: str) -> int:
    """A network device in a namespace, whose frames this process reads and writes: its file descriptor."""
    own = f"tap{os.getpid()}"                   # a name for the moment in the namespace of this process
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", own.encode(), IFF_TAP | IFF_NO_PI))
    ip("link", "set", own, "netns", namespace, "name", name)
    return end


@contextlib.contextmanager
def carried(cables: list[tuple[int, int]], delay: float) -> Iterator[None]:
    """Carry frames between the two ends of each cable; those from the host, the first end, arrive `delay` seconds later."""
    stop = threading.Event()
    thread = threading.Thread(target=carry, args=(cables, delay, stop), daemon=True)
    if cables:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if cables:
            thread.join()


def carry(cables, delay, stop):
    onward = {host: (switch, delay) for host, switch in cables} | {switch: (host, 0.0) for host, switch in cables}
    waiting = deque()                           # (when, to, frame) in the order of their times: one delay for all
    while not stop.is_set():
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.1
        for end in select.select(list(onward), [], [], pause)[0]:
            to, wait = onward[end]
            with contextlib.suppress(BlockingIOError):
                for _ in range(32):
                    frame = os.read(end, MTU + 100)
                    if wait:
                        waiting.append((time.monotonic() + wait, to, frame))
                    else:
                        deliver(to, frame)
        while waiting and waiting[0][0] <= time.monotonic():
            _, to, frame = waiting.popleft()
            deliver(to, frame)


def deliver(end, frame):
    with contextlib.suppress(OSError):          # a device that is full, or not up yet, loses frames; TCP sends them again
        os.write(end, frame)
