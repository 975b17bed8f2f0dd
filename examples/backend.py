"""An application beside the sidecar, in the standard library alone: its backend starts answers, its page watches them.

    SIDESTREAM_ORIGINS=http://127.0.0.1:8000 make run      # in one terminal: the sidecar, which lets our page watch
    python examples/backend.py                             # in another; then open http://127.0.0.1:8000

The backend asks the sidecar for a stream with `Accept: application/json`, gets its URL and its key at once, hands the URL to
the page, and keeps the key: with it the answer can be stopped. The page needs nothing but EventSource (page.html).
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

SIDECAR = os.environ.get("SIDECAR", "http://127.0.0.1:8090")
PORT = int(os.environ.get("PORT", "8000"))
PAGE = Path(__file__).with_name("page.html")

keys: dict[str, str] = {}  # stream id -> key; a real application keeps them with its user's session


def ask_sidecar(method: str, path: str, body: Any = None, **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = Request(SIDECAR + path, data, {"Content-Type": "application/json", **headers}, method=method)
    with urlopen(request) as response:
        return json.loads(response.read() or "null")


class Backend(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.reply(PAGE.read_bytes(), "text/html; charset=utf-8")

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/ask":
            wish = {"prompt": text, "format": "plain", "linger": 10}
            stream = ask_sidecar("POST", "/chat", wish, Accept="application/json")
            keys[stream["stream_id"]] = stream["key"]
            self.reply(json.dumps({"id": stream["stream_id"], "url": SIDECAR + stream["url"]}).encode())
        else:  # /stop; from the button, or from a page that is being left
            if key := keys.pop(text, None):
                ask_sidecar("DELETE", f"/streams/{text}", **{"Stream-Key": key})
            self.reply(b"{}")

    def reply(self, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Backend)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
