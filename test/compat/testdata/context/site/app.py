"""A small web application, as users have one: Flask, started with the template."""

import os
import time

from flask import Flask

app = Flask(__name__)
started = time.time()


@app.get("/")
def hello():
    return {"hello": "from the template", "mode": os.environ.get("MODE"), "pid": os.getpid()}


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=8000)
