"""Runs inside a sandbox: counts in its memory and in a file, and tells of both.

GET /count/N counts N, once however often it is asked; any other path only looks.
"""

import hashlib
import http.server
import json
import os
import threading

os.chdir("/w")
lock = threading.Lock()
held = os.urandom(8 << 20)  # memory that a restore must bring back whole
digest = hashlib.sha256(held).hexdigest()
birth = os.urandom(8).hex()


def stored():
    try:
        with open("numbers") as f:
            return [int(line) for line in f]
    except FileNotFoundError:
        return []


numbers = stored()


def sha(name):
    with open(os.path.join("files", name), "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = 20  # a client may be gone for good

    def do_GET(self):
        what, _, number = self.path[1:].partition("/")
        with lock:
            if what == "count" and int(number) not in numbers:
                numbers.append(int(number))
                with open("numbers", "a") as f:
                    f.write(number + "\n")
            answer = {
                "birth": birth,
                "boot": open("/proc/sys/kernel/random/boot_id").read().strip(),
                "whole": hashlib.sha256(held).hexdigest() == digest,
                "memory": numbers,
                "disk": stored(),
                "files": {name: sha(name) for name in os.listdir("files")},
            }
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
