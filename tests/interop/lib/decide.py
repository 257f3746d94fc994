"""Decides on clients through a management interface, as `management-client-auth` wants it.

    decide.py ADDRESS PORT|unix SECONDS PASSWORD=ANSWER...

Each client's password chooses the answer, `*` any other; `{cid}` and `{kid}` in it are the client's,
`|` separates lines. Prints all that came, until SECONDS have passed or the connection ends.
"""

import select
import socket
import sys
import time


def main() -> None:
    address, port, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    answers = dict(rule.split("=", 1) for rule in sys.argv[4:])
    if port == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
    else:
        connection = socket.create_connection((address, int(port)))
    deadline = time.monotonic() + seconds
    rest, question, password = "", None, ""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([connection], [], [], left)[0]:
            break
        data = connection.recv(65536)
        if not data:
            break
        *lines, rest = (rest + data.decode().replace("\r\n", "\n")).split("\n")
        for line in lines:
            print(line, flush=True)
            kind, _, values = line.partition(",")
            if kind in (">CLIENT:CONNECT", ">CLIENT:REAUTH", ">CLIENT:CR_RESPONSE"):
                question, password = values.split(","), ""
                if len(question) > 2:
                    password = question[2]
            elif line.startswith(">CLIENT:ENV,password="):
                password = line.split("=", 1)[1]
            elif line == ">CLIENT:ENV,END" and question:
                answer = answers.get(password, answers.get("*", ""))
                answer = answer.replace("{cid}", question[0]).replace("{kid}", question[1])
                print("> " + answer, flush=True)
                connection.sendall("".join(line + "\n" for line in answer.split("|") if answer).encode())
                question = None


if __name__ == "__main__":
    main()
