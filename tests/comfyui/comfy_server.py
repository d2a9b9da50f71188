"""A real ComfyUI as a child process, on the loopback interface only, and a small client for its HTTP API."""

from __future__ import annotations

import base64
import json
import os
import shlex
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
#: Freed tensors go back to the system at once; otherwise they would hide, in what the process holds, new ones.
_HONEST_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
TEXT = 3  # kind of a binary message that holds status text
_ENDINGS = ("execution_success", "execution_error", "execution_interrupted")
ROOT = Path(__file__).resolve().parents[2]


class NodeError(RuntimeError):
    """A node failed, or the prompt was refused; the message is what the node's error box shows."""


class Interrupted(RuntimeError):
    """The prompt was cancelled."""


@dataclass
class Heard:
    """What a running prompt told the page.

    entry: of the history. texts: status texts on each node, in order. progress: (node, share done) of the bars.
    previews: how many images came while nodes ran.
    """

    entry: dict = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    progress: list[tuple[str, float]] = field(default_factory=list)
    previews: int = 0

    def take(self, message: bytes) -> None:
        """A binary message: status text with the node's id before it, or an image."""
        (kind,) = struct.unpack(">I", message[:4])
        if kind != TEXT:
            self.previews += 1
            return
        (length,) = struct.unpack(">I", message[4:8])
        node, text = message[8 : 8 + length].decode(), message[8 + length :].decode()
        self.texts.setdefault(node, []).append(text)


class ComfyServer:
    """Starts `main.py --cpu` of a checkout with folders of its own below `base`; `close` ends it.

    checkout: folder with ComfyUI's main.py. python: interpreter of the environment it runs in. Further arguments, such
    as --front-end-root, are taken from the variable COMFYUI_ARGS.
    """

    def __init__(self, checkout: Path, python: str, base: Path, environment: dict[str, str] | None = None):
        self.base, self.python, self.client_id = base, python, uuid.uuid4().hex
        for folder in ("models", "input", "output", "temp", "user", "custom_nodes"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        link = base / "custom_nodes" / "stable-keypoints"
        if not link.exists():
            link.symlink_to(ROOT, target_is_directory=True)
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port = probe.getsockname()[1]
        self.log_path = base / "server.log"
        self._log = self.log_path.open("wb")  # noqa: SIM115 - open as long as the server
        self._process = subprocess.Popen(
            [
                python,
                "main.py",
                "--cpu",
                "--listen",
                HOST,
                "--port",
                str(self.port),
                "--base-directory",
                str(base),
                "--disable-auto-launch",
                "--database-url",
                f"sqlite:///{base / 'user' / 'comfyui.db'}",
                *shlex.split(os.environ.get("COMFYUI_ARGS", "")),
            ],
            cwd=checkout,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_OFFLINE": "1",
                **_HONEST_MEMORY,
                **(environment or {}),
            },
        )

    def wait_until_ready(self, seconds: float = 240.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended while starting:\n{self.log()[-4000:]}")
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)
        raise TimeoutError(f"ComfyUI did not answer within {seconds} s:\n{self.log()[-4000:]}")

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def resident_mb(self) -> float:
        """Main memory the server holds."""
        return self._memory("VmRSS")

    def forget_peak(self) -> None:
        """Let `peak_mb` start from what is held now."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5", encoding="utf-8")

    def peak_mb(self) -> float:
        """The most main memory the server has held since `forget_peak`."""
        return self._memory("VmHWM")

    def processor_seconds(self) -> float:
        """Processor time the server has used; unlike the clock's it does not grow with what else the machine does."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _memory(self, field: str) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        return int(status.split(f"{field}:")[1].split()[0]) / 1024

    # HTTP

    def get(self, path: str, raw: bool = False):
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=60) as answer:
            data = answer.read()
        return data if raw else json.loads(data)

    def post(self, path: str, value: dict | None = None):
        request = urllib.request.Request(
            f"http://{HOST}:{self.port}{path}",
            json.dumps(value or {}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                data = answer.read()
        except urllib.error.HTTPError as error:
            raise NodeError(_refusal(error.read().decode())) from None
        return json.loads(data) if data else None

    def queue(self, prompt: dict) -> str:
        """Queue an API-format prompt; its id. NodeError when ComfyUI refuses it before running it."""
        return self.post("/prompt", {"prompt": prompt, "client_id": self.client_id})["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 1200.0) -> dict:
        """The history entry of a finished prompt. Raises NodeError or Interrupted."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry and entry["status"]["status_str"] in ("success", "error"):
                for kind, detail in entry["status"]["messages"]:
                    if kind == "execution_error":
                        raise NodeError(f"{detail['node_type']}: {detail['exception_message']}")
                    if kind == "execution_interrupted":
                        raise Interrupted(detail["node_type"])
                return entry
            time.sleep(0.1)
        raise TimeoutError(f"prompt {prompt_id} is not finished after {seconds} s")

    def run(self, prompt: dict, seconds: float = 1200.0) -> dict:
        return self.wait(self.queue(prompt), seconds)

    def hear(self, prompt: dict, seconds: float = 1200.0) -> Heard:
        """`run`, and what the page is told meanwhile."""
        heard, events = Heard(), self.events()
        try:
            prompt_id = self.queue(prompt)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                message = events.next()
                if isinstance(message, bytes):
                    heard.take(message)
                    continue
                data = message["data"]
                if message["type"] == "progress":
                    heard.progress.append((str(data["node"]), data["value"] / data["max"]))
                if message["type"] in _ENDINGS and data.get("prompt_id") == prompt_id:
                    break
        finally:
            events.close()
        heard.entry = self.wait(prompt_id, 10)
        return heard

    def images(self, entry: dict, node: str) -> list[bytes]:
        """The files that a preview or save node of a finished prompt shows."""
        return [
            self.get(
                "/view?" + urllib.parse.urlencode({k: image[k] for k in ("filename", "subfolder", "type")}),
                raw=True,
            )
            for image in entry["outputs"][node]["images"]
        ]

    def cached_nodes(self, entry: dict) -> set[str]:
        """Nodes that a prompt did not run again."""
        return {
            node
            for kind, detail in entry["status"]["messages"]
            if kind == "execution_cached"
            for node in detail["nodes"]
        }

    def events(self) -> Events:
        return Events(self.port, self.client_id)


class Events:
    """The server's WebSocket, as far as this test needs it: unmasked server frames, text and binary."""

    def __init__(self, port: int, client_id: str):
        self._socket = socket.create_connection((HOST, port), timeout=600)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            (
                f"GET /ws?clientId={client_id} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ).encode()
        )
        self._stream = self._socket.makefile("rb")
        status = self._stream.readline()
        if b" 101 " not in status:
            raise RuntimeError(f"no WebSocket: {status!r}")
        while self._stream.readline() not in (b"\r\n", b""):
            pass

    def next(self) -> dict | bytes:
        """The next message: a decoded JSON object, or the bytes of a binary one (a preview picture)."""
        while True:
            first, second = self._stream.read(2)
            length = second & 127
            if length == 126:
                length = struct.unpack(">H", self._stream.read(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self._stream.read(8))[0]
            data, kind = self._stream.read(length), first & 15
            if kind == 1:
                return json.loads(data)
            if kind == 2:
                return data

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


def _refusal(text: str) -> str:
    """The sentences of a refused prompt."""
    try:
        answer = json.loads(text)
    except json.JSONDecodeError:
        return text
    found = [
        f"{node['class_type']}: {error['message']}: {error['details']}"
        for node in (answer.get("node_errors") or {}).values()
        for error in node["errors"]
    ]
    return "\n".join(found) or json.dumps(answer)
