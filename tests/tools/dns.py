#!/usr/bin/env python3
"""A name server for tests: usage: dns.py ADDRESS[,ADDRESS] NAME=ANSWER[/ANSWER]...

ANSWER is a list of addresses with commas. A question for both A and AAAA gets those of its family; with several ANSWERs each
address question is given the next one, and the last one forever. An ANSWER *N is N addresses, 198.18.0.0 and on: what is more
than a datagram holds comes cut, and whole over TCP. Other names do not exist."""
import ipaddress
import socket
import sys
import threading

TYPES = {1: 4, 28: 6}
names = {}
for argument in sys.argv[2:]:
    name, _, answers = argument.partition("=")
    names[name] = [[ipaddress.ip_address("198.18.0.0") + i for i in range(int(answer[1:]))] if answer[0] == "*" else
                   [ipaddress.ip_address(a) for a in answer.split(",")] for answer in answers.split("/")]


def reply(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    kind = int.from_bytes(query[at + 1:at + 3], "big")
    answers = names.get(".".join(labels))
    question = query[12:at + 5]
    if answers is None:
        return query[:2] + b"\x81\x83\0\1" + bytes(6) + question
    here = [a for a in answers[0] if a.version == TYPES.get(kind)]
    if here and len(answers) > 1:
        answers.pop(0)
    records = b"".join(b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1" + bytes(4) + len(a.packed).to_bytes(2, "big") + a.packed
                       for a in here)
    return query[:2] + b"\x81\x80\0\1" + len(here).to_bytes(2, "big") + bytes(4) + question + records


def serve_stream(client):
    with client, client.makefile("rb") as questions:
        while length := questions.read(2):
            answer = reply(questions.read(int.from_bytes(length, "big")))
            client.sendall(len(answer).to_bytes(2, "big") + answer)


def serve_streams(address, family):
    with socket.create_server((address, 53), family=family) as listener:
        while True:
            threading.Thread(target=serve_stream, args=(listener.accept()[0],), daemon=True).start()


def serve_datagrams(address, family):
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind((address, 53))
    while True:
        query, client = server.recvfrom(4096)
        try:
            answer = reply(query)
            if len(answer) > 1232:
                answer = answer[:2] + b"\x83\x80\0\1" + bytes(6) + answer[12:answer.index(0, 12) + 5]
            server.sendto(answer, client)
        except (IndexError, UnicodeDecodeError):
            pass


for address in sys.argv[1].split(","):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for serve in serve_streams, serve_datagrams:
        threading.Thread(target=serve, args=(address, family)).start()
