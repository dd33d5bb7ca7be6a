#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The smallest vhost-user front-end, and odd sockets, for tests/cli/sockets.sh.

vhost-client.py hello PATH              connect, ask for the features, print them
vhost-client.py hold PATH FILE          connect, ask, create FILE, stay until hung up on
vhost-client.py serve PATH TIMES        listen, accept and ask that many times, one after the other
vhost-client.py listening PATH CMD...   run CMD with a listening socket, its number instead of {fd}
vhost-client.py connected CMD...        run CMD with a connected socket, ask, hang up, exit as CMD does
vhost-client.py datagram CMD...         run CMD with a socket of the wrong kind
"""
import os
import socket
import struct
import subprocess
import sys

GET_FEATURES = 1
TIMEOUT = 10  # seconds


def ask(sock):
    """GET_FEATURES: an empty request of version 1; the answer is marked as a reply and holds a u64."""
    sock.settimeout(TIMEOUT)
    sock.sendall(struct.pack("<III", GET_FEATURES, 1, 0))
    answer = b""
    while len(answer) < 20:
        part = sock.recv(20 - len(answer))
        if not part:
            sys.exit("hung up on us")
        answer += part
    request, flags, size, features = struct.unpack("<IIIQ", answer)
    if (request, flags, size) != (GET_FEATURES, 5, 8):
        sys.exit(f"wrong answer: {request} {flags:#x} {size}")
    print(f"{features:#x}", flush=True)


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT)
    sock.connect(path)
    return sock


def run(sock, command):
    os.set_inheritable(sock.fileno(), True)
    os.execvp(command[0], [word.replace("{fd}", str(sock.fileno())) for word in command])


def main(mode, *args):
    if mode == "hello":
        ask(connect(args[0]))
    elif mode == "hold":
        sock = connect(args[0])
        ask(sock)
        open(args[1], "w").close()
        try:
            sys.exit(1 if sock.recv(1) else 0)
        except ConnectionResetError:
            sys.exit(0)
    elif mode == "serve":
        server = socket.socket(socket.AF_UNIX)
        server.bind(args[0])
        server.listen()
        server.settimeout(TIMEOUT)
        for _ in range(int(args[1])):
            sock, _ = server.accept()
            ask(sock)
            sock.close()
    elif mode == "listening":
        server = socket.socket(socket.AF_UNIX)
        server.bind(args[0])
        server.listen()
        run(server, args[1:])
    elif mode == "connected":
        ours, theirs = socket.socketpair()
        number = theirs.fileno()
        command = [word.replace("{fd}", str(number)) for word in args]
        child = subprocess.Popen(command, pass_fds=[number])
        theirs.close()
        ask(ours)
        ours.close()
        sys.exit(child.wait(TIMEOUT))
    elif mode == "datagram":
        run(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), args)


main(*sys.argv[1:])
