"""Runs commands at the lowest priority, which end with the process that started them and pause while a file exists.

python processes.py <process id of the parent> <command> ...   # starts such a command; used by `run`
"""

import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import time

POLL_SECONDS = 2.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run(line, *, cwd, pause: pathlib.Path | None = None) -> int:
    """Runs a command to its end and returns its exit code.

    pause: while this file exists, the command is not started, or suspended (SIGSTOP) and resumed (SIGCONT) when the
    file is removed. With `pause` the command runs at the lowest priority.
    """
    if pause is None:
        return subprocess.run(line, cwd=cwd, check=False).returncode
    wait(pause)
    starter = [sys.executable, str(pathlib.Path(__file__).resolve()), str(os.getpid())]
    process = subprocess.Popen([*starter, *line], cwd=cwd)
    try:
        return _watch(process, pause)
    finally:
        if process.poll() is None:  # interrupted: the command saves, and resumes when it is rerun
            process.terminate()
            _signal(process, "SIGCONT")
            process.wait()


def wait(pause: pathlib.Path) -> None:
    """Waits until the file is removed."""
    if pause.exists():
        print(f"paused: remove {pause} to resume", flush=True)
    while pause.exists():
        time.sleep(POLL_SECONDS)


def _watch(process, pause):
    stopped = False
    while True:
        try:
            return process.wait(timeout=POLL_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        if pause.exists() != stopped:
            stopped = not stopped
            print(f"paused: remove {pause} to resume" if stopped else "resumed", flush=True)
            _signal(process, "SIGSTOP" if stopped else "SIGCONT")


def _signal(process, name):
    if hasattr(signal, name):  # Windows has neither, so a pause takes effect between commands there
        process.send_signal(getattr(signal, name))


def lower_priority() -> None:
    """Gives this process the lowest priority: SCHED_IDLE if the system has it, else nice 19."""
    if hasattr(os, "nice"):
        os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def end_with(parent: int) -> None:
    """Makes Linux kill this process when its parent ends in any way, so that no two processes write one workdir."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the call
            sys.exit(1)


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    lower_priority()
    os.execvp(sys.argv[2], sys.argv[2:])
