"""A real HTTP server that answers chat completions as a test defines."""

import contextlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def code_of(body):
    """The code of a question, which its answer must have."""
    return re.match(r"<reasoning (\w+)>\n", body["messages"][-1]["content"])[1]


class ChatServer:
    """Answers chat completions with the result of ``reply(body, number)``.

    A reply is RELEVANT or NOT_RELEVANT (sent with the question's code), another text (sent as it
    is, with the code for CODE), a (status, headers) pair, a (status, headers, body) triple, or a
    number of seconds to stay silent.
    """

    def __init__(self, reply, port=0):
        self.requests = []
        self.headers = []
        self.at_once = self.most_at_once = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.requests.append(body)
                    outer.headers.append((self.path, dict(self.headers)))
                    number = len(outer.requests)
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    self.answer(reply(body, number), code_of(body))
                finally:
                    with lock:
                        outer.at_once -= 1

            def answer(self, found, code):
                if isinstance(found, float):
                    time.sleep(found)
                    found = "RELEVANT"
                if found in ("RELEVANT", "NOT_RELEVANT"):
                    found = f"CODE {found}"
                if isinstance(found, str):
                    found = found.replace("CODE", code)
                status, headers, *given = found if isinstance(found, tuple) else (200, {})
                answer = {
                    "choices": [{"message": {"content": found}}],
                    "usage": {"prompt_tokens": 100, "completion_tokens": 2},
                }
                error = {"error": f"status {status}"}
                whole = answer if status == 200 else error
                content = given[0] if given else json.dumps(whole).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):
                    self.wfile.write(content)

            def log_message(self, *args): ...

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, request, client_address):
                """A judge that is killed leaves requests half sent."""

        self.server = Server(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def variables(self):
        """Settings of a judge that uses this server."""
        return {
            "RETRAIL_JUDGE": "llm",
            "RETRAIL_JUDGE_URL": self.url,
            "RETRAIL_JUDGE_MODEL": "judge-7b",
            "RETRAIL_JUDGE_TIMEOUT": "1",
        }

    def close(self):
        self.server.shutdown()
        self.server.server_close()
