"""A web server that fails on purpose.

Usage: faults.py FOLDER. Prints its port, and ends when its standard input does. The first part of a path
says how a file is served: `good`, `flaky` (each fifth request fails, in turns by a status, a connection
that breaks and a body that is short), `reset`, `short`, `hang`, `stall` (in the middle of the body), `whole`
(knows no ranges) or a status.
"""

import http.server
import os
import re
import socket
import struct
import sys
import threading

FOLDER = sys.argv[1]
EVERY = 5
FAULTS = ["500", "reset", "short", "503"]
lock = threading.Lock()
n_flaky = 0


def next_mode():
    global n_flaky
    with lock:
        n_flaky += 1
        if n_flaky % EVERY:
            return "good"
        return FAULTS[n_flaky // EVERY % len(FAULTS)]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # The body is written after the header; otherwise it would wait 40 ms for the other side's delayed ACK.
    disable_nagle_algorithm = True

    def do_GET(self):
        mode, _, name = self.path.lstrip("/").partition("/")
        if mode == "flaky":
            mode = next_mode()
        if mode.isdigit():
            return self.answer(int(mode), b"on purpose", "good")
        if mode == "hang":
            # The other side gives up first.
            self.connection.recv(1)
            self.close_connection = True
            return None
        path = os.path.join(FOLDER, os.path.basename(name))
        if not os.path.exists(path):
            return self.answer(404, b"", "good")
        with open(path, "rb") as file:
            content = file.read()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not asked or mode == "whole":
            return self.answer(200, content, mode)
        first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
        if first >= len(content):
            return self.answer(416, b"", "good")
        part = content[first : last + 1]
        return self.answer(206, part, mode, f"bytes {first}-{last}/{len(content)}")

    def answer(self, status, body, mode, content_range=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if mode in ("reset", "short", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if mode == "stall":
                # The other side gives up first.
                self.connection.recv(1)
            if mode == "reset":
                # Closing with a lingering time of zero sends RST.
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
sys.stdin.read()
