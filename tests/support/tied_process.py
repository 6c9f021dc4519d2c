"""Run a program that can't outlive its owner: `python tied_process.py UID PROGRAM ARGUMENT...` (UID -1: our own).

The owner holds the other end of our stdin. A byte on it is the number of a signal for the program. Its end, which
the kernel brings about however the owner dies, is SIGQUIT. We end when the program has, with its exit status.

A process between the two, because PR_SET_PDEATHSIG would have to be set between fork and exec of an owner with threads.
"""

import os
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 15  # PostgreSQL takes up to 5 to end its own processes


def main() -> int:
    uid, command = int(sys.argv[1]), sys.argv[2:]
    if uid == -1:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    else:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, user=uid, group=uid, extra_groups=[])
    threading.Thread(target=_obey_owner, args=(program,), daemon=True).start()
    return abs(program.wait())


def _obey_owner(program: subprocess.Popen[bytes]) -> None:
    while number := os.read(0, 1):
        program.send_signal(number[0])
    program.send_signal(signal.SIGQUIT)
    try:
        program.wait(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        program.kill()


if __name__ == "__main__":
    sys.exit(main())
