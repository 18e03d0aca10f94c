#!/usr/bin/env python3
"""A name server for tests: usage: dns.py ADDRESS NAME=ANSWER[/ANSWER]...

ANSWER is a list of addresses with commas. A question for both A and AAAA gets those of its family; with several ANSWERs each
address question is given the next one, and the last one forever. Other names do not exist."""
import ipaddress
import socket
import sys

TYPES = {1: 4, 28: 6}
names = {}
for argument in sys.argv[2:]:
    name, _, answers = argument.partition("=")
    names[name] = [[ipaddress.ip_address(a) for a in answer.split(",")] for answer in answers.split("/")]


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


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
while True:
    query, client = server.recvfrom(4096)
    try:
        server.sendto(reply(query), client)
    except (IndexError, UnicodeDecodeError):
        pass
