#!/usr/bin/env python3
"""pebble-challtestsrv for a host of a mesh: TXT records go into the mesh by
`agent record`, and port 443 leads to its TLS servers by ALPN."""
import http.server, json, socket, subprocess, sys, threading, urllib.request

BEHIND = "http://127.0.0.1:8056"
records = {}

def agent(*words):
    done = subprocess.run(["agent", *words], capture_output=True, text=True)
    if done.returncode:
        print(words, done.stdout, done.stderr, file=sys.stderr, flush=True)
    return done

class Management(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        told = json.loads(body or b"{}")
        if self.path == "/set-txt":
            name = told["host"].rstrip(".")
            agent("record", "add", name, "TXT", "--", told["value"])
        elif self.path == "/clear-txt":
            agent("record", "rm", told["host"].rstrip("."), "TXT")
        request = urllib.request.Request(BEHIND + self.path, data=body, method="POST")
        try:
            urllib.request.urlopen(request).read()
            status = 200
        except urllib.error.HTTPError as error:
            status = error.code
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

def copy(a, b):
    try:
        while True:
            some = a.recv(65536)
            if not some: break
            b.sendall(some)
    except OSError: pass
    for s in (a, b):
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass

def route(client):
    try:
        hello = client.recv(16384)
        port = 5001 if b"acme-tls/1" in hello else 5003
        server = socket.create_connection(("127.0.0.1", port))
        server.sendall(hello)
    except OSError:
        client.close(); return
    threading.Thread(target=copy, args=(client, server), daemon=True).start()
    copy(server, client)

def tls():
    listener = socket.create_server(("::", 443), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=route, args=(client,), daemon=True).start()

threading.Thread(target=tls, daemon=True).start()
subprocess.Popen(["pebble-challtestsrv", "-management", "127.0.0.1:8056", "-http01", ":80",
    "-https01", "127.0.0.1:5003", "-tlsalpn01", "127.0.0.1:5001", "-dns01", "127.0.0.1:8053", "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1"],
    stdout=open("/tmp/cts.log", "w"), stderr=subprocess.STDOUT)
http.server.ThreadingHTTPServer(("127.0.0.1", 8055), Management).serve_forever()
