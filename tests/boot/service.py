"""Answers every connection on port 9000 of all addresses."""
import socket

listener = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    connection, _ = listener.accept()
    with connection:
        try:
            connection.settimeout(2)
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello\n")
        except OSError:
            pass
