#!/usr/bin/env python3
"""What mpiexec calls in place of ssh, if the hosts are network namespaces of this machine: see hosts.py.

    mpiexec -launcher ssh -launcher-exec benchmarks/scaling/launcher.py -hosts NAMESPACE,NAMESPACE ...
"""
import os
import sys


def command(arguments: list[str]) -> list[str]:
    """The command for what ssh would be given: options without a value, a host, and the words of a command for its shell."""
    words = list(arguments)
    while words and words[0].startswith("-"):
        words.pop(0)
    if len(words) < 2:
        raise ValueError(f"expected a host and a command, as for ssh, got {arguments}")
    return ["ip", "netns", "exec", words[0], "sh", "-c", " ".join(words[1:])]


if __name__ == "__main__":
    words = command(sys.argv[1:])
    os.execvp(words[0], words)
