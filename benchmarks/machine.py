"""What a benchmark runs on: cores to pin to, what a process used, and all that for the record."""

import functools
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("uvicorn", "uvloop", "httptools", "msgspec", "numpy", "numba")

_PROC = Path("/proc")
_TICK_SECONDS = 1.0 / os.sysconf("SC_CLK_TCK")
_MIB = 1024.0


@functools.cache
def cores() -> tuple[int, int]:
    """Return a core for the server and another for the load; the same where there is only one.

    Looked up once: whoever is pinned already sees but the one core, and would put the server beside the load.
    """
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep this process, and those that it starts meanwhile for good, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of all threads of a process, in steps of a clock tick."""
    # The name may hold spaces and brackets; what follows its last bracket is fields 3 and on.
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_SECONDS


def memory_mib(pid: int) -> tuple[float, float]:
    """Return the memory that a process holds (RSS) and the most that it held, in MiB."""
    status = (_PROC / str(pid) / "status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    now, peak = (float(lines[name].split()[0]) / _MIB for name in ("VmRSS", "VmHWM"))
    return round(now, 1), round(peak, 1)


def describe(folder: Path) -> dict[str, object]:
    """Return what the figures depend on; `folder` is where the server's data lies."""
    server_core, load_core = cores()
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "server_core": server_core,
        "load_core": load_core,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "kernel": platform.release(),
        "filesystem": _filesystem(folder),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _cpu() -> str:
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(folder: Path) -> str:
    """Return the type of the file system under `folder`: on tmpfs nothing is durable."""
    place, found, depth = folder.resolve(), "unknown", -1
    for line in (_PROC / "mounts").read_text().splitlines():
        mount, kind = line.split()[1:3]
        if place.is_relative_to(mount) and len(mount) > depth:
            found, depth = kind, len(mount)
    return found
