"""Sends to the addresses in /etc/flood without end, and says how often."""
import os
import socket
import time

rounds = 0
sockets = {False: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
           True: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)}
with open("/etc/flood", encoding="ascii") as file:
    addresses = file.read().split()
while True:
    for address in addresses:
        try:
            sockets[":" in address].sendto(b"for the tunnel only", (address, 9))
        except OSError:
            pass
    rounds += 1
    if rounds % 10 == 0:
        with open("/var/lib/flood/next", "w", encoding="ascii") as file:
            file.write(str(rounds))
        os.replace("/var/lib/flood/next", "/var/lib/flood/rounds")
    time.sleep(0.005)
