#!/usr/bin/env python3
"""A host that a guest speaks to at port 8002 of its addresses: usage: halves.py ADDRESS...

UDP: echo. TCP: who says "first" ends its half first and is answered then; to anybody else the half that ends first is ours, and
what comes after that is printed: its length."""
import socket
import sys
import threading
import time


def read_all(connection):
    data = b""
    while part := connection.recv(1 << 16):
        data += part
    return data


def serve(connection):
    with connection:
        if connection.recv(5) == b"first":
            data = read_all(connection)
            time.sleep(1)  # long enough for an end that takes both halves to be seen
            connection.sendall(data[::-1])
        else:
            connection.sendall(b"x" * 100000)
            connection.shutdown(socket.SHUT_WR)
            print(len(read_all(connection)), flush=True)


def serve_all():
    with socket.create_server(("::", 8002), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def echo(address):
    # Of its own, so that an answer comes from the address that was asked.
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((address, 8002))
        while True:
            data, client = udp.recvfrom(1 << 16)
            udp.sendto(data, client)


for own in sys.argv[1:]:
    threading.Thread(target=echo, args=(own,), daemon=True).start()
serve_all()
