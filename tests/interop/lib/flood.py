"""Sends a bounded amount of rubbish to a server; run inside a client's namespace.

    flood.py ADDRESS PORT COUNT SEED

Random bytes of every length, and random bodies behind the first byte of every opcode and key id,
from a handful of source ports.
"""

import random
import socket
import sys
import time


def main() -> None:
    address, port, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    rng = random.Random(seed)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(8)]
    for number in range(count):
        length = rng.choice((0, 1, 2, 9, 13, 14, 42, 53, 54, 66, 100, 355, 400, 1400))
        body = rng.randbytes(max(0, length - 1 + rng.randrange(3)))
        first = bytes([number % 256]) if length else b""
        try:
            sockets[number % len(sockets)].sendto(first + body, (address, port))
        except ConnectionRefusedError:
            sys.exit("the server's port is closed")
        if number % 200 == 199:
            time.sleep(0.01)


if __name__ == "__main__":
    main()
