"""Opens pages in a headless Chromium or Chrome and says what is wrong with them.

Chromium is told what to do through `--remote-debugging-pipe`: JSON messages of the DevTools protocol, each ended by a
zero byte, on its file descriptors 3 and 4. So nothing but the browser needs to be installed.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = (
    "--headless --remote-debugging-pipe --no-first-run --disable-gpu --disable-dev-shm-usage --hide-scrollbars"
    " --disable-background-networking --disable-component-update --disable-breakpad --mute-audio"
    " --no-sandbox"  # as root, and in containers, there is none; only pages of our own are opened
).split()
TIMEOUT_S = 30.0
COMPLAINTS = {"error", "warning", "assert"}

# Resolves once every picture, and the first frame of every video, can be shown or never will be: to the latter.
BROKEN = """
Promise.all([...document.querySelectorAll('img, video, audio')].map(async element => {
    if (element.localName === 'img') await element.decode().catch(() => {});
    else for (let i = 0; i < 200 && element.readyState < 2; i++) {
        if (element.error || element.networkState === HTMLMediaElement.NETWORK_NO_SOURCE) break;
        await new Promise(resolve => setTimeout(resolve, 50));
    }
    const loaded = element.localName === 'img' ? element.naturalWidth > 0 : element.readyState >= 2;
    return loaded ? null : element.outerHTML.slice(0, 120);
})).then(all => all.filter(Boolean))
"""


@dataclass
class Visit:
    """What one visit to a page showed.

    Attributes:
        console: errors, warnings and uncaught exceptions.
        failed: loads that failed, with their reason.
        broken: pictures and videos that cannot be shown.
        requests: every address asked for but the page's own and `data:`.
        width: what the page needs, CSS pixels; more than the window's where something sticks out.
        height: likewise.
        value: what the caller's script returned.
        png: the whole page.
    """

    console: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    width: int = 0
    height: int = 0
    value: Any = None
    png: bytes = b""

    @property
    def complaints(self) -> list[str]:
        """Everything that a user would call broken; empty for a sound page."""
        return [*self.console, *self.failed, *self.broken]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser for as long as the block lasts; skips the test where none is installed."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("no Chromium or Chrome on this machine; `apt-get install chromium` on Debian")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        browser = Browser(executable, Path(home))
        try:
            yield browser
        finally:
            browser.close()


class Browser:
    """One running browser; each visit gets a tab of its own."""

    def __init__(self, executable: str, home: Path) -> None:
        """Starts it with a fresh profile under `home`."""
        child_in, self._out = os.pipe()
        self._in, child_out = os.pipe()
        self._log = home / "log"
        # bash moves the pipes to where the browser looks for them.
        command = ["bash", "-c", f'exec "$@" 3<&{child_in} 4>&{child_out}', "bash", executable, *OPTIONS]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, f"--user-data-dir={home / 'profile'}"],
                pass_fds=(child_in, child_out),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "HOME": str(home)},
            )
        os.close(child_in)
        os.close(child_out)
        self._buffer, self._last_id = b"", 0
        self._events: list[dict[str, Any]] = []

    def visit(
        self, page: Path | str, *, width: int = 1280, height: int = 900, dark: bool = False, script: str = "null"
    ) -> Visit:
        """Opens a file or an address, waits until everything has loaded, and runs `script` (an expression or promise).

        `width` and `height` are the window's, CSS pixels; `dark` is the user's preference of colours.

        Raises:
            RuntimeError: the browser ended or does not answer; the script threw.
        """
        address = page.resolve().as_uri() if isinstance(page, Path) else page
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._events.clear()
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                self._call(f"{domain}.enable", session)
            self._call(
                "Emulation.setDeviceMetricsOverride",
                session,
                width=width,
                height=height,
                deviceScaleFactor=1,
                mobile=width < 600,  # only then is <meta name=viewport> heeded
            )
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            self._call("Emulation.setEmulatedMedia", session, features=[scheme])
            return self._look(address, session, script)
        finally:
            self._call("Target.closeTarget", targetId=target)

    def close(self) -> None:
        """Ends the browser: it does so by itself once its pipe is closed."""
        os.close(self._out)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)

    def _look(self, address: str, session: str, script: str) -> Visit:
        self._call("Page.navigate", session, url=address)
        self._wait_for("Page.loadEventFired", session)
        broken = self._evaluate(BROKEN, session)
        value = self._evaluate(script, session)
        size = self._call("Page.getLayoutMetrics", session)["cssContentSize"]
        shot = self._call("Page.captureScreenshot", session, captureBeyondViewport=True, format="png")
        visit = Visit(
            broken=broken,
            value=value,
            width=size["width"],
            height=size["height"],
            png=base64.b64decode(shot["data"]),
        )
        self._sort_events(visit, session, address)
        return visit

    def _sort_events(self, visit: Visit, session: str, address: str) -> None:
        for event in self._events:
            if event.get("sessionId") != session:
                continue
            said = event["params"]
            match event["method"]:
                case "Runtime.consoleAPICalled" if said["type"] in COMPLAINTS:
                    texts = [str(each.get("value", each.get("description", ""))) for each in said["args"]]
                    visit.console.append(f"{said['type']}: {' '.join(texts)}")
                case "Runtime.exceptionThrown":
                    details = said["exceptionDetails"]
                    visit.console.append(details.get("exception", {}).get("description", details["text"]))
                case "Log.entryAdded" if said["entry"]["level"] in COMPLAINTS:
                    visit.console.append(said["entry"]["text"])
                case "Network.loadingFailed":
                    visit.failed.append(f"{said['type']}: {said['errorText']}")
                case "Network.requestWillBeSent":
                    asked = said["request"]["url"]
                    if asked != address and not asked.startswith("data:"):
                        visit.requests.append(asked)

    def _evaluate(self, expression: str, session: str) -> Any:
        answer = self._call(
            "Runtime.evaluate", session, expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"browser: script failed: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._receive(deadline, f"answer {method}")
            if answer.get("id") == self._last_id:
                break
            self._events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"browser: {method}: {answer['error']['message']}")
        return dict(answer["result"])

    def _wait_for(self, method: str, session: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not any((each["method"], each.get("sessionId")) == (method, session) for each in self._events):
            self._events.append(self._receive(deadline, f"report {method}"))

    def _receive(self, deadline: float, purpose: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._in, 1 << 20) if ready else b""
            if not data:
                log = self._log.read_text(errors="replace")[-500:]
                raise RuntimeError(f"browser: expected it to {purpose} within {TIMEOUT_S:g} s; its log ends: {log}")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))
