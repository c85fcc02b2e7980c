"""What the figures were measured on."""

import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("libc6", "libgomp1", "libomp5-14", "libtbb12", "libpthreadpool0", "libopenblas0-pthread")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _first_line(*command: str) -> str | None:
    text = _output(*command)
    return text.splitlines()[0] if text else None


def load() -> float:
    """Processes that want a CPU, averaged over a minute."""
    return os.getloadavg()[0]


def machine() -> dict:
    cpuinfo = _read("/proc/cpuinfo") or ""
    fields = dict(
        (part.strip() for part in line.split(":", 1)) for line in cpuinfo.split("\n\n")[0].splitlines() if ":" in line
    )
    return {
        "cpu": fields.get("model name", platform.processor() or platform.machine()),
        "cpus": os.cpu_count(),
        "cpus_allowed": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in fields.get("flags", "").split(),
        "smt": _read("/sys/devices/system/cpu/smt/active") == "1",
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "cgroup_cpu_max": _read("/sys/fs/cgroup/cpu.max"),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME"),
    }


def versions() -> dict:
    commit = _output("git", "rev-parse", "HEAD")
    changed = _output("git", "status", "--porcelain", "--untracked-files=no")
    packages = {name: _output("dpkg-query", "-W", "-f=${Version}", name) for name in PACKAGES}
    return {
        "commit": commit and commit + (" with changes" if changed else ""),
        "gcc": _first_line("gcc", "--version"),
        "rustc": _first_line("rustc", "--version"),
        "packages": packages,
    }


def without_root(text: str) -> str:
    """Paths in this repository, wherever it lies."""
    return text.replace(f"{ROOT}{os.sep}", "")
