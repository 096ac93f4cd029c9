"""A network's own name server: every name below `example` is at 198.51.100.1,
and there are no others."""
import socket

listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(("192.0.2.1", 53))
while True:
    query, client = listener.recvfrom(4096)
    if len(query) < 17:
        continue
    end = 12
    labels = []
    while end < len(query) and query[end]:
        labels.append(query[end + 1 : end + 1 + query[end]].lower())
        end += 1 + query[end]
    question = query[12 : end + 5]
    known = labels[-1:] == [b"example"]
    address = known and question[-4:] == b"\0\1\0\1"
    header = query[:2] + (b"\x85\x80" if known else b"\x85\x83")
    header += b"\0\1" + (b"\0\1" if address else b"\0\0") + b"\0\0\0\0"
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\xc6\x33\x64\x01" if address else b""
    listener.sendto(header + question + answer, client)
