"""A TCP connection that is never at rest: `steady.py echo ADDRESS PORT` answers, `steady.py talk ADDRESS PORT`
asks one question after the other over a single connection and prints how many were answered."""

import socket
import sys
import time


def echo(address: str, port: int) -> None:
    listener = socket.create_server((address, port), family=socket.AF_INET6)
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)


def talk(address: str, port: int) -> None:
    connection = socket.create_connection((address, port), timeout=30)
    print(f"from {connection.getsockname()[0]}", flush=True)
    answers = connection.makefile("rb")
    number = 0
    while True:
        number += 1
        question = f"{number}\n".encode()
        connection.sendall(question)
        if answers.readline() != question:
            sys.exit("another answer than expected")
        print(f"{number} answers", flush=True)
        time.sleep(0.05)


if __name__ == "__main__":
    {"echo": echo, "talk": talk}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
