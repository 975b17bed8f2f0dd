"""The application beside the sidecar, in a few lines: a page, a button that starts a job, and its progress.

It starts the work, with the sidecar's token; the browser watches, by the URL that it is given for that and with no token.

    SIDECAR             where we reach the sidecar              http://127.0.0.1:8090
    SIDESTREAM_TOKEN    its token
    WATCH               where browsers reach it, behind nginx   http://localhost:8080
    HOST, PORT          where we listen                         127.0.0.1, 3000

The page comes from another origin than its events, so that the sidecar has to be told: SIDESTREAM_ORIGINS=http://localhost:3000.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

SIDECAR = os.environ.get("SIDECAR", "http://127.0.0.1:8090")
WATCH = os.environ.get("WATCH", "http://localhost:8080")
TOKEN = os.environ.get("SIDESTREAM_TOKEN", "")

PAGE = b"""<!doctype html>
<meta charset="utf-8">
<title>Progress</title>
<button>Start</button> <progress max="100" value="0"></progress>
<script>
document.querySelector("button").onclick = async () => {
    const {progress} = await (await fetch("/start", {method: "POST"})).json();
    const events = new EventSource(progress);  // comes back by itself, and gets what it missed
    events.onmessage = ({data}) => {
        if (data === "[DONE]") events.close();
        else document.querySelector("progress").value = JSON.parse(data).progress;
    };
};
</script>
"""


class Application(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer("text/html; charset=utf-8", PAGE)

    def do_POST(self) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        with urlopen(Request(f"{SIDECAR}/jobs", b'{"kind": "steps"}', headers), timeout=10) as answer:
            job = json.load(answer)
        # Not the key: it would let the page cancel
        self.answer("application/json", json.dumps({"progress": WATCH + job["progress"]}).encode())

    def answer(self, content_type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    address = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "3000"))
    ThreadingHTTPServer(address, Application).serve_forever()
