"""
Headless Chromium for tests, driven by W3C WebDriver (https://www.w3.org/TR/webdriver2/).

``chromedriver`` is started on a free port and speaks JSON over HTTP; what is
needed of that protocol is small enough to be here. Where the programs are missing, tests are
skipped; with ``CI`` set they fail. Debian's packages are ``chromium`` and ``chromium-driver``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

from tests.free_ports import free_ports

PROGRAMS = ("chromium", "chromedriver")
START_S = 120.0
COMMAND_S = 90.0
LIFETIME_S = 400
"""After so long the kernel ends chromedriver, even if whoever started it is gone by then."""

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--lang=en-US",
)
_TAKEN = "port not available"
_STARTED = re.compile(r"started successfully on port (\d+)")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which WebDriver writes a reference to an element."""


def missing_chromium() -> str | None:
    """
    Why tests with a browser cannot run here.

    :returns: a reason to skip; ``None`` if they can, or if this is CI, where they have to.
    """
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if not missing or os.environ.get("CI"):
        return None
    return f"{' and '.join(missing)} not found: install Debian's chromium and chromium-driver"


class BrowserError(AssertionError):
    """WebDriver refused a command."""


class _Driver(ProcessProtocol):
    """chromedriver, a child process."""

    def __init__(self) -> None:
        self.output = ""
        self.port: Deferred[int] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode("utf-8", "replace")
        found = _STARTED.search(self.output)
        if found and not self.port.called:
            self.port.callback(int(found[1]))

    def errReceived(self, data: bytes) -> None:
        self.output += data.decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        if not self.port.called:
            self.port.errback(BrowserError(f"chromedriver ended early: {self.output}"))
        self.ended.callback(None)


class Chromium:
    """One browser window. Begin with :meth:`start`, end with :meth:`stop`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._driver = _Driver()
        self._profile = ""
        self._base = ""
        self._session = ""
        pool = HTTPConnectionPool(reactor, persistent=False)
        quiet: Any = type("_QuietFactory", (HTTPConnectionPool._factory,), {"noisy": False})
        pool._factory = quiet
        self._client = HTTPClient(Agent(reactor, pool=pool))

    async def start(self) -> None:
        """Start driver and browser, with an empty profile."""
        self._profile = tempfile.mkdtemp(prefix="derp-chromium-")
        self._base = f"http://127.0.0.1:{await self._start_driver()}"
        options = {
            "args": [*FLAGS, f"--user-data-dir={self._profile}/data"],
            "binary": shutil.which("chromium"),
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        body = {"capabilities": {"alwaysMatch": wanted}}
        created = await self._command("POST", "/session", body, START_S)
        self._session = f"/session/{created['sessionId']}"

    async def _start_driver(self) -> int:
        """
        Start the driver; its port.

        The port is chosen for it: where there is no IPv6 it does not tell which it has chosen.
        It wants one for both IP versions, and if somebody has that of the other one it ends: it
        is given another as often as that happens.
        """
        home = {**os.environ, "HOME": self._profile, "TMPDIR": self._profile}
        python = shutil.which("python3") or "python3"
        give_up_at = self._reactor.seconds() + START_S
        while True:
            (port,) = free_ports(1)
            command = ["chromedriver", f"--port={port}"]
            bounded = (
                f"import os, signal; os.setsid(); signal.alarm({LIFETIME_S}); "
                f"os.execvp({command[0]!r}, {command!r})"
            )
            self._driver = _Driver()
            self._reactor.spawnProcess(self._driver, python, [python, "-c", bounded], home)
            try:
                return await self._driver.port.addTimeout(START_S, self._reactor)
            except BrowserError:
                taken = _TAKEN in self._driver.output
                if not taken or self._reactor.seconds() > give_up_at:
                    raise

    async def stop(self) -> None:
        """End both, and leave nothing behind."""
        if self._session:
            with suppress(BrowserError):
                await self._command("DELETE", self._session)
            self._session = ""
        transport: Any = self._driver.transport
        if transport is not None and transport.pid:
            with suppress(ProcessExitedAlready, ProcessLookupError):
                os.killpg(transport.pid, signal.SIGKILL)
        if transport is not None:
            await self._driver.ended
        shutil.rmtree(self._profile, ignore_errors=True)

    async def open(self, url: str) -> None:
        """Load a page."""
        await self._in_session("POST", "/url", {"url": url})

    async def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function in the page; what it returns."""
        return await self._in_session(
            "POST", "/execute/sync", {"script": script, "args": list(arguments)}
        )

    async def click(self, selector: str) -> None:
        """Click as a user does: on what is seen, and nowhere if something covers it."""
        found = await self._in_session(
            "POST", "/element", {"using": "css selector", "value": selector}
        )
        await self._in_session("POST", f"/element/{found[_ELEMENT]}/click", {})

    async def text(self, selector: str) -> str:
        """The text that is seen of an element; empty if there is none."""
        script = "const e = document.querySelector(arguments[0]); return e ? e.innerText : '';"
        text: str = await self.run(script, selector)
        return text

    async def screen(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Be a screen of this size, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        await self._devtools("Emulation.setDeviceMetricsOverride", metrics)

    async def prefers(self, **features: str) -> None:
        """Have the user prefer: ``color_scheme="dark"``, ``reduced_motion="reduce"``."""
        found = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        await self._devtools("Emulation.setEmulatedMedia", {"features": found})

    async def before_scripts(self, script: str) -> None:
        """Have a script run in every page that is opened from now on, before its own."""
        await self._devtools("Page.addScriptToEvaluateOnNewDocument", {"source": script})

    async def allow_scripts(self, allowed: bool) -> None:
        """Have scripts on or off from the next page on."""
        await self._devtools("Emulation.setScriptExecutionDisabled", {"value": not allowed})

    async def complaints(self) -> list[str]:
        """
        What the console was told since the last call: errors, violated policies.

        Not by the browser's own pages, with which it begins: those find fault with a slow machine.
        """
        entries = await self._in_session("POST", "/se/log", {"type": "browser"})
        return [
            f"{each['level']}: {each['message']}"
            for each in entries
            if not each["message"].startswith("chrome://")
        ]

    async def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Save what is seen, or the whole page, as PNG."""
        parameters = {"format": "png", "captureBeyondViewport": whole}
        found = await self._devtools("Page.captureScreenshot", parameters)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b64decode(found["data"]))

    # -- inside ----------------------------------------------------------------------------

    async def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        body = {"cmd": command, "params": parameters}
        return await self._in_session("POST", "/goog/cdp/execute", body)

    async def _in_session(self, method: str, path: str, body: dict[str, Any]) -> Any:
        return await self._command(method, self._session + path, body)

    async def _command(
        self, method: str, path: str, body: dict[str, Any] | None = None, time_s: float = COMMAND_S
    ) -> Any:
        data = None if body is None else json.dumps(body).encode("ascii")
        headers = {"Content-Type": "application/json; charset=utf-8"}
        asking = Deferred.fromCoroutine(self._ask(method, self._base + path, data, headers))
        answer = await asking.addTimeout(time_s, self._reactor)
        value = answer["value"]
        if isinstance(value, dict) and "error" in value and "message" in value:
            raise BrowserError(f"{method} {path}: {value['error']}: {value['message']}")
        return value

    async def _ask(self, method: str, url: str, data: bytes | None, headers: Any) -> Any:
        response = await self._client.request(method, url, data=data, headers=headers)
        return json.loads(await response.text("utf-8"))
