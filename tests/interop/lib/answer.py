"""Runs a command on a terminal of its own and answers what it asks there.

    answer.py QUESTION ANSWER ... -- COMMAND...

What the terminal shows goes to standard output. SIGTERM is passed on; the exit status is the command's.
"""

import os
import pty
import signal
import sys


def main() -> int:
    split = sys.argv.index("--")
    answers, command = sys.argv[1:split], sys.argv[split + 1:]
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(command[0], command)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    shown = ""
    while True:
        try:
            data = os.read(terminal, 4096).decode(errors="replace")
        except OSError:
            break
        if not data:
            break
        sys.stdout.write(data)
        sys.stdout.flush()
        shown += data
        if answers and shown.endswith(answers[0]):
            os.write(terminal, answers[1].encode() + b"\n")
            answers, shown = answers[2:], ""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
