"""A program that looks like ``vllm`` from outside: its command line, its paths, its log, its children."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

#: How many requests others have in it, and what share of its cache they hold.
OTHERS = os.environ.get("FAKE_OTHERS", "3 0.25").split()
METRICS = f"""# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
vllm:cache_config_info{{block_size="128",cache_dtype="auto",kv_cache_size_tokens="46592",num_gpu_blocks="364"}} 1.0
vllm:num_requests_running{{engine="0",model_name="m"}} {OTHERS[0]}.0
vllm:num_requests_waiting{{engine="0",model_name="m"}} 1.0
vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} {OTHERS[1]}
vllm:num_preemptions_total{{engine="0",model_name="m"}} 2.0
"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asleep = False

    def log_message(self, format: str, *args: object) -> None:
        print(format % args, flush=True)

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {os.environ['SAGE_VLLM_KEY']}":
            self.answer(401, {"error": "no key"})
        elif self.path == "/health":
            self.answer(503 if (Path(sys.argv[2]) / "stall").exists() else 200, {})
        elif self.path == "/metrics" and os.environ.get("FAKE_VLLM") != "discreet":
            self.text(METRICS)
        elif self.path == "/v1/models":
            self.answer(200, {"data": [{"id": named("--served-model-name"), "max_model_len": 4096}]})
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        if path in ("/sleep", "/wake_up") and os.environ.get("VLLM_SERVER_DEV_MODE") != "1":
            # The routes are there in that mode only.
            self.answer(404, {"detail": "Not Found"})
        elif path in ("/sleep", "/wake_up"):
            note("moves", f"{seen().get('moves', '')} {self.path}".strip())
            # As the real ones do: also when it does not wake up, the status is 200.
            drowsy = os.environ.get("FAKE_VLLM") == "drowsy"
            told = "sleeping" if path == "/sleep" or drowsy else "awake"
            self.answer(200 if "--enable-sleep-mode" in sys.argv else 500, {"status": told})
        elif path == "/v1/chat/completions":
            self.stream(json.loads(body))
        elif path == "/v1/embeddings":
            texts = json.loads(body)["input"]
            rows = [{"index": place, "embedding": [float(len(text)), 1.0]} for place, text in enumerate(texts)]
            self.answer(200, {"data": rows})
        else:
            self.answer(404, {})

    def stream(self, asked: dict[str, object]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(int(str(asked["max_tokens"]))):
            self.event({"choices": [{"index": 0, "delta": {"content": f"w{number} "}}]})
            if asked["max_tokens"] == 1_000:
                time.sleep(0.02)
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
        usage = {"prompt_tokens": 5, "completion_tokens": asked["max_tokens"]}
        self.event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def event(self, value: object) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()

    def answer(self, status: int, value: object) -> None:
        self.send_response(status)
        data = json.dumps(value).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def text(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def named(option: str) -> str:
    return sys.argv[sys.argv.index(option) + 1]


def seen() -> dict[str, object]:
    file = Path(sys.argv[2]) / "seen.json.txt"
    return json.loads(file.read_text()) if file.exists() else {}


def note(key: str, value: object) -> None:
    """Tell the test something, in the folder of the weights; the name is none that an identity reads."""
    told = {**seen(), key: value}
    file = Path(sys.argv[2]) / "seen.tmp"
    file.write_text(json.dumps(told))
    file.rename(Path(sys.argv[2]) / "seen.json.txt")


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print("0.32.0+fake")
        return
    faults = os.environ.get("FAKE_VLLM", "")
    print("loading weights", flush=True)
    if faults == "dies":
        sys.exit("ValueError: no kernel image is available")
    if faults == "flag":
        argparse.ArgumentParser("vllm serve").parse_args(["--colour", "red"])
    if faults == "port":
        # Somebody was quicker.
        quicker = ThreadingHTTPServer(("127.0.0.1", int(named("--port"))), Handler)
        ThreadingHTTPServer.allow_reuse_address = False
        ThreadingHTTPServer(quicker.server_address, Handler)
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    note("argv", sys.argv[1:])
    note("environment", dict(os.environ))
    note("pids", [os.getpid(), helper.pid])
    note("starts", int(str(seen().get("starts", 0))) + 1)
    if faults == "hangs":
        time.sleep(600)
    ThreadingHTTPServer(("127.0.0.1", int(named("--port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
