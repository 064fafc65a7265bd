"""A real browser for tests: headless Chromium, told what to do over its DevTools protocol.

    with Browser(tmp_path) as browser:
        browser.open(path, width_px=360, dark=True)
        browser.evaluate("document.title")
        browser.failures, browser.requests

Messages are JSON that ends with a zero byte, on file descriptors 3 and 4 of the browser: no port, no client library.
"""

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium isn't installed")


class Browser:
    """One page. `failures` holds what the console said and every exception, `requests` what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.failures: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._events: list[dict[str, Any]] = []
        command_read, self._write = os.pipe()
        self._read, answer_write = os.pipe()
        # Numbers above those that they are moved to, so that neither is overwritten before it is moved.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (command_read, answer_write)]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}', str(CHROMIUM), *FLAGS,
             f"--user-data-dir={folder / 'profile'}", "about:blank"],
            pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        for end in (command_read, answer_write, *ends):
            os.close(end)
        self._pending = b""
        self._session = ""
        target = next(one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        attach = {"targetId": target["targetId"], "flatten": True}
        self._session = self.call("Target.attachToTarget", **attach)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=30)
        os.close(self._write)
        os.close(self._read)

    def open(self, page: Path, *, width_px: int, dark: bool = False, height_px: int = 900) -> None:
        """Load `page` anew, in a window of this width and the reader's wish for light or dark."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width_px, height=height_px, deviceScaleFactor=1, mobile=width_px < 600,
        )  # fmt: skip
        self.failures.clear()
        self.requests.clear()
        self._events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._receive()
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, run beside the page and not by it: its policy forbids scripts."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self) -> bytes:
        """The whole page as a PNG."""
        return self._file("Page.captureScreenshot", captureBeyondViewport=True)

    def pdf(self) -> bytes:
        """The page as it is printed, on A4."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True}
        return self._file("Page.printToPDF", printBackground=True, **size)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer of the browser to one command."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _file(self, method: str, **parameters: Any) -> bytes:
        return base64.b64decode(self.call(method, **parameters)["data"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            read = os.read(self._read, 1 << 20)
            assert read, "the browser has ended"
            self._pending += read
        line, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self._events.append(message)
            self._note(message["method"], message["params"])
        return message

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        if method in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.failures.append(json.dumps(parameters))
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
