# Copyright 2026 The infmllm_ros authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""
A headless Chromium, driven over a pipe by its DevTools protocol: no driver, no port, no download.

Run as a script it makes screenshots of a page, for people to look at:
``python test/replay/browser.py report.html FOLDER`` (each width, light and dark), or of one kind
with ``--only desktop-light --height 1300``.
"""

from __future__ import annotations

import argparse
from base64 import b64decode
from itertools import count
import json
import os
from pathlib import Path
import select
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

NAMES = ('chromium-headless-shell', 'chrome-headless-shell', 'google-chrome',
         'google-chrome-stable', 'chromium', 'chromium-browser')
DESKTOP, PHONE = (1280, 900), (390, 844)  # [pixels]
# It reads from 3 and writes to 4; what those are here does not matter in a process of its own.
LAUNCH = """import os, sys
ends = [os.dup2(int(end), 100 + place) for place, end in enumerate(sys.argv[1:3])]
os.dup2(ends[0], 3), os.dup2(ends[1], 4), os.closerange(5, 200)
os.execv(sys.argv[3], sys.argv[3:])"""
PATIENCE = 200.  # [s] for one reply, on a busy machine


def find() -> str | None:
    """Find a browser: $BROWSER_BINARY, or one of Chromium's names on the path."""
    named = os.environ.get('BROWSER_BINARY')
    return next((path for name in ([named] if named else NAMES) if (path := shutil.which(name))),
                None)


class Browser:
    """
    One page of a browser; a context manager.

    Attributes
    ----------
    complaints : list of str
        What the page wrote to the console, threw, or was forbidden.
    requests : list of str
        All that it asked for, but `data:`.
    """

    def __init__(self, binary: str) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._binary, self._numbers, self._buffer = binary, count(1), b''
        self._loaded: set[str] = set()
        self._session: str | None = None

    def __enter__(self) -> Browser:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, '-ISc', LAUNCH, str(theirs_in), str(theirs_out), self._binary,
             '--headless', '--remote-debugging-pipe', '--disable-gpu', '--hide-scrollbars',
             '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking',
             *(['--no-sandbox'] if os.geteuid() == 0 else []),
             f'--user-data-dir={self._profile.name}', 'about:blank'],
            pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self._session = self.call('Target.attachToTarget', targetId=target,
                                  flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(f'{domain}.enable')
        self.call('Page.setLifecycleEventsEnabled', enabled=True)
        return self

    def __exit__(self, *_: Any) -> None:
        for end in (self._out, self._in):
            os.close(end)
        self._process.kill()
        self._process.wait()
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._numbers)
        message = {'id': number, 'method': method, 'params': parameters}
        if self._session:
            message['sessionId'] = self._session
        os.write(self._out, json.dumps(message).encode() + b'\0')
        while True:
            reply = self._read()
            if reply.get('id') == number:
                if 'error' in reply:
                    raise RuntimeError(f'{method}: {reply["error"]["message"]}')
                return reply['result']
            self._note(reply)

    def visit(self, address: str, size: tuple[int, int] = DESKTOP, dark: bool = False,
              media: str = '', script: bool = True) -> None:
        """Load a page and wait until it has all."""
        width, height = size
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)
        self.call('Emulation.setEmulatedMedia', media=media, features=[
            {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}])
        self.call('Emulation.setScriptExecutionDisabled', value=not script)
        self._load('about:blank')  # or another fragment alone would load nothing
        self.complaints.clear()
        self.requests.clear()
        self._load(address)
        self.requests.remove(address.partition('#')[0])

    def _load(self, address: str) -> None:
        reply = self.call('Page.navigate', url=address)
        if 'errorText' in reply:
            raise RuntimeError(f'{self._binary} cannot open {address}: {reply["errorText"]}')
        while reply['loaderId'] not in self._loaded:
            self._note(self._read())

    def run(self, expression: str) -> Any:
        """Evaluate JavaScript and return its value."""
        reply = self.call('Runtime.evaluate', expression=expression, returnByValue=True,
                          awaitPromise=True)
        if 'exceptionDetails' in reply:
            raise RuntimeError(f'{expression}: {reply["exceptionDetails"]}')
        return reply['result'].get('value')

    def point(self, selector: str) -> None:
        """Move the mouse onto an element."""
        x, y = self.run('(() => {const e = document.querySelector(' + json.dumps(selector) + ');'
                        'e.scrollIntoView({block: "center"}); const b = e.getBoundingClientRect();'
                        'return [b.x + b.width / 2, b.y + b.height / 2];})()')
        self.call('Input.dispatchMouseEvent', type='mouseMoved', x=x, y=y)

    def press(self, key: str) -> None:
        """Press a key that writes nothing, such as Tab or ArrowRight."""
        code = {'Tab': 9, 'Enter': 13, 'Escape': 27, 'ArrowLeft': 37, 'ArrowRight': 39}[key]
        text = {'text': '\r'} if key == 'Enter' else {}
        for kind in ('keyDown', 'keyUp'):
            self.call('Input.dispatchKeyEvent', type=kind, key=key, code=key,
                      windowsVirtualKeyCode=code, **(text if kind == 'keyDown' else {}))

    def screenshot(self, path: Path) -> None:
        """Write a PNG of what is in view."""
        data = self.call('Page.captureScreenshot', format='png')
        path.write_bytes(b64decode(data['data']))

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b'\0' not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0., end - time.monotonic()))
            if not ready:
                raise TimeoutError(f'the browser said nothing for {PATIENCE:.0f} s')
            data = os.read(self._in, 1 << 20)
            if not data:
                raise RuntimeError(f'{self._binary} ended: {self._process.poll()}')
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b'\0')
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, told = event.get('method', ''), event.get('params', {})
        if method == 'Page.lifecycleEvent' and told['name'] == 'load':
            self._loaded.add(told['loaderId'])
        elif method in ('Runtime.exceptionThrown', 'Runtime.consoleAPICalled', 'Log.entryAdded'):
            self.complaints.append(json.dumps(told)[:500])
        elif method == 'Network.requestWillBeSent':
            address = told['request']['url']
            if not address.startswith('data:'):
                self.requests.append(address)


def main() -> None:
    """Make screenshots."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('page', type=Path, nargs='?')
    parser.add_argument('folder', type=Path, nargs='?', default=Path())
    parser.add_argument('--find', action='store_true', help='only say which browser there is')
    parser.add_argument('--only', help='such as phone-dark')
    parser.add_argument('--height', type=int, help='[pixels] of the window')
    arguments = parser.parse_args()
    binary = find() or sys.exit(f'no browser: none of {", ".join(NAMES)} is on the path')
    if arguments.find or arguments.page is None:
        sys.exit(print(binary))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with Browser(binary) as browser:
        for name, size in (('desktop', DESKTOP), ('phone', PHONE)):
            for shade in ('light', 'dark'):
                if arguments.only in (None, f'{name}-{shade}'):
                    browser.visit(arguments.page.resolve().as_uri(),
                                  (size[0], arguments.height or size[1]), shade == 'dark')
                    browser.screenshot(arguments.folder / f'{name}-{shade}.png')


if __name__ == '__main__':
    main()
