#!/usr/bin/env python3
"""Serves a directory by TFTP (RFC 1350, reading only): UDP both ways, checked by content. usage: tftp.py ADDRESS PORT DIR"""
import os
import socket
import struct
import sys


def serve(client, path):
    with open(path, "rb") as file:
        data = file.read()
    transfer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    transfer.bind((sys.argv[1], 0))
    transfer.settimeout(5)
    for block in range(len(data) // 512 + 1):
        packet = struct.pack("!HH", 3, block + 1) + data[block * 512:(block + 1) * 512]
        for _ in range(10):
            transfer.sendto(packet, client)
            try:
                if transfer.recvfrom(64)[0] == struct.pack("!HH", 4, block + 1):
                    break
            except socket.timeout:
                pass


listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind((sys.argv[1], int(sys.argv[2])))
while True:
    request, client = listener.recvfrom(1024)
    if request[:2] == b"\0\1":
        serve(client, os.path.join(sys.argv[3], os.path.basename(request[2:].split(b"\0")[0].decode())))
