"""A page in a browser without a screen: QtWebEngine, which is Chromium in a wheel. A program of its own.

python tests/browser.py '{"page": "report.html", "width": 1200, "dark": false, "scripts": ["document.title"],
                          "picture": "page.png"}'

Prints what happened as JSON: `console` (what the page complained of), `requests` (what it asked for that isn't the
page itself or a data URI, or, of a page that a server gives, that isn't this server's), and `results`, of each script
in turn; a script that gives null is asked again until it gives something, or 10 s (`patience`) have passed. Among the
scripts may stand `["move", selector]` and `["click", selector]`, which bring the pointer to the middle of an element,
`["click", selector, file]`, where the click makes the page ask for a file, and `["type", selector, text]`, a `\\n` for
Enter. A microphone that beeps is there. picture: where a picture of the page goes; `height` cuts it off.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ["QTWEBENGINE_DISABLE_SANDBOX"] = "1"  # root has none
DARK = len(sys.argv) > 1 and bool(json.loads(sys.argv[1]).get("dark"))
os.environ["QTWEBENGINE_CHROMIUM_FLAGS"] = (
    f"--disable-gpu --mute-audio --log-level=3 --blink-settings=preferredColorScheme={0 if DARK else 1} "
    "--use-fake-device-for-media-stream"
)

from PySide6.QtCore import QEventLoop, QPoint, QPointF, Qt, QTimer, QUrl  # noqa: E402
from PySide6.QtGui import QKeyEvent, QMouseEvent  # noqa: E402
from PySide6.QtWebEngineCore import QWebEnginePage, QWebEngineProfile, QWebEngineUrlRequestInterceptor  # noqa: E402
from PySide6.QtWebEngineWidgets import QWebEngineView  # noqa: E402
from PySide6.QtWidgets import QApplication  # noqa: E402

PATIENCE = 10  # seconds


class Requests(QWebEngineUrlRequestInterceptor):
    """Remembers what is asked for."""

    def __init__(self, page: str):
        super().__init__()
        self.page, self.seen = page, []
        self.server = page if page.startswith("http") else None

    def interceptRequest(self, info) -> None:  # noqa: N802
        url = info.requestUrl()
        if self.server is not None and url.toString().replace("ws:", "http:", 1).startswith(self.server):
            return
        if url.scheme() not in ("data", "blob") and url.toLocalFile() != self.page:
            self.seen.append(url.toString()[:200])


class Page(QWebEnginePage):
    """Remembers what is said on its console."""

    def __init__(self, profile: QWebEngineProfile):
        super().__init__(profile)
        self.console = []
        self.files: list[str] = []
        self.permissionRequested.connect(lambda permission: permission.grant())

    def chooseFiles(self, mode, old, kinds) -> list[str]:  # noqa: N802
        return self.files

    def javaScriptConsoleMessage(self, level, message, line, source) -> None:  # noqa: N802
        self.console.append(f"{message} (line {line})")


def wait(seconds: float) -> None:
    loop = QEventLoop()
    QTimer.singleShot(int(1000 * seconds), loop.quit)
    loop.exec()


def main(asked: dict) -> None:
    application = QApplication(sys.argv[:1])
    served = asked["page"].startswith("http")
    path = asked["page"] if served else str(Path(asked["page"]).absolute())
    profile, requests = QWebEngineProfile(), Requests(path)
    profile.setUrlRequestInterceptor(requests)
    page, view = Page(profile), QWebEngineView()
    view.setPage(page)
    view.resize(asked.get("width", 1200), 900)
    view.show()
    loaded = []
    page.loadFinished.connect(loaded.append)
    page.load(QUrl(path) if served else QUrl.fromLocalFile(path))
    began = time.monotonic()
    while not loaded and time.monotonic() - began < 3 * PATIENCE:
        wait(0.02)

    def run(script: str) -> Any:
        answers: list[Any] = []
        page.runJavaScript(script, 0, answers.append)
        while not answers and time.monotonic() - began < 60:
            wait(0.01)
        return answers[0] if answers else None

    def pointer(kind: str, selector: str) -> None:
        element = f"document.querySelector({json.dumps(selector)})"
        run(f"{element}.scrollIntoView({{block: 'center'}})")
        box = json.loads(run(f"JSON.stringify({element}.getBoundingClientRect())"))
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        wait(0.3)  # scrolling hides what the pointer showed
        target = view.focusProxy() or view
        none, left, keys = Qt.MouseButton.NoButton, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        events = [(QMouseEvent.Type.MouseMove, none, none)]
        if kind == "click":
            events += [
                (QMouseEvent.Type.MouseButtonPress, left, left),
                (QMouseEvent.Type.MouseButtonRelease, left, none),
            ]
        for event, button, buttons in events:
            where = QPointF(target.mapToGlobal(QPoint(int(x), int(y))))
            application.sendEvent(target, QMouseEvent(event, QPointF(x, y), where, button, buttons, keys))

    def keys(text: str) -> None:
        for letter in text:
            key = Qt.Key.Key_Return if letter == "\n" else Qt.Key.Key_unknown
            for kind in (QKeyEvent.Type.KeyPress, QKeyEvent.Type.KeyRelease):
                typed = "\r" if letter == "\n" else letter
                application.sendEvent(view.focusProxy() or view, QKeyEvent(kind, key, no_keys, typed))

    no_keys = Qt.KeyboardModifier.NoModifier
    results = []
    for script in asked.get("scripts", []):
        if not isinstance(script, str):
            kind, selector, *given = script
            page.files = given if kind == "click" else []
            pointer("click" if kind == "type" else kind, selector)
            keys(given[0] if kind == "type" else "")
            continue
        until = time.monotonic() + asked.get("patience", PATIENCE)
        while (answer := run(script)) in (None, "") and time.monotonic() < until:
            wait(0.05)
        results.append(answer)
    if asked.get("picture"):
        height = int(run("document.documentElement.scrollHeight"))
        height = min(height, asked.get("height", 30_000))
        view.resize(asked.get("width", 1200), height)
        while run("innerHeight") != height and time.monotonic() - began < 60:
            wait(0.1)
        wait(asked.get("wait", 1.0))
        view.grab().save(asked["picture"])
    print(json.dumps({"loaded": loaded, "console": page.console, "requests": requests.seen, "results": results}))
    sys.stdout.flush()
    os._exit(0)  # Qt takes a second to tidy up


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
