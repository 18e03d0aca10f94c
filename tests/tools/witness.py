#!/usr/bin/env python3
"""Whom a guest reached: listens at TCP and UDP port 8000 of every address, IPv4 and IPv6, says what it was reached by, one line
for each ("tcp 10.1.2.3"), and echoes. The guest's side is reach.py. usage: witness.py"""
import ipaddress
import selectors
import socket
import struct


def written(packed):
    address = ipaddress.ip_address(packed)
    return str(getattr(address, "ipv4_mapped", None) or address)


tcp = socket.create_server(("::", 8000), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
udp.bind(("::", 8000))
try:
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.1.2.3") + socket.inet_aton("10.1.2.3"))
except OSError:
    pass  # another host than the one with that address
events = selectors.DefaultSelector()
events.register(tcp, selectors.EVENT_READ)
events.register(udp, selectors.EVENT_READ)
while True:
    for key, _ in events.select():
        if key.fileobj is tcp:
            connection, _ = tcp.accept()
            print("tcp", written(socket.inet_pton(socket.AF_INET6, connection.getsockname()[0].partition("%")[0])), flush=True)
            connection.sendall(b"reached\n")
            connection.close()
        else:
            data, control, _, client = udp.recvmsg(2048, 256)
            packed = [d[:16] for level, kind, d in control if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO]
            print("udp", written(packed[0]), flush=True)
            # From the address that it was sent to, not whichever is nearest.
            udp.sendmsg([b"reached\n"], [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, packed[0] + struct.pack("I", 0))]
                        if not ipaddress.ip_address(packed[0]).is_multicast else [], 0, client)
