"""Talks to a management interface; run where its address can be reached.

    ask.py ADDRESS PORT|unix LINE...

Sends each line when the answer to the one before has ended, and prints all that came. `~N` in place
of a line listens for N seconds.
"""

import select
import socket
import sys
import time


def main() -> None:
    address, port, lines = sys.argv[1], sys.argv[2], sys.argv[3:]
    if port == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
    else:
        connection = socket.create_connection((address, int(port)))

    def listen(seconds: float) -> bool:
        """Prints what comes until nothing has for so long; false at the end."""
        while select.select([connection], [], [], seconds)[0]:
            data = connection.recv(65536)
            if not data:
                print("<closed>")
                return False
            sys.stdout.write(data.decode().replace("\r\n", "\n"))
        return True

    listen(0.3)
    for line in lines:
        if line.startswith("~"):
            deadline = time.monotonic() + float(line[1:])
            while (rest := deadline - time.monotonic()) > 0:
                if not listen(min(rest, 0.2)):
                    return
            continue
        print(f"> {line}")
        connection.sendall(line.encode() + b"\n")
        if not listen(0.3):
            return


if __name__ == "__main__":
    main()
