"""The picture and the sound of a transfer: python benchmarks/screenshot.py writes benchmarks/result.png and .ogg.

JupyterLab runs a copy of the notebook in a folder of its own, with the transfer that README.md names; Chromium shows
its result. Needs Chromium (Debian: chromium) and the packages of tests/requirements.txt.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import soundfile
from playwright.sync_api import sync_playwright

from report import ROOT

# isort: split
from support.sound.files import encoded

NOTEBOOK = "neural_style_audio_pretrained.ipynb"
TRANSFER = {"STYLE_FILENAME": "samples/tabla.flac", "CONTENT_FILENAME": "samples/speech.flac", "duration": None}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # otherwise the page lacks the cells out of sight
    "apputils-extension/notification": '{"fetchNews": "false"}',  # otherwise a question covers a corner
}
HELPERS = """
    window.panel = () => window.jupyterapp.shell.currentWidget;
    window.cells = () => panel().content.widgets;
    window.find = text => cells().findIndex(cell =>
        cell.model.type === 'code' && cell.model.sharedModel.getSource().includes(text));
    window.run = command => { window.jupyterapp.commands.execute(command); };
    window.select = index => { panel().content.activeCellIndex = index; };
    window.change = (index, name, line) => {
        const model = cells()[index].model.sharedModel;
        const pattern = new RegExp('^' + name + ' = .*$', 'm');
        if (!pattern.test(model.getSource())) throw new Error('no ' + name);
        model.setSource(model.getSource().replace(pattern, () => line));
    };
    window.output = index => cells()[index].node.querySelector('.jp-OutputArea')?.innerText ?? '';
    window.busy = () => panel().sessionContext.session?.kernel?.status !== 'idle'
        || cells().some(cell => cell.node.querySelector('.jp-InputPrompt')?.innerText.includes('*'));
"""


@contextlib.contextmanager
def jupyterlab(folder):
    """Run JupyterLab on a folder; gives its address, without a token."""
    for name, text in SETTINGS.items():
        path = folder / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", "--LabApp.expose_app_in_browser=True"]
    options += ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True", "--LabApp.news_url="]
    command = [sys.executable, "-m", "jupyterlab", *options]
    log = folder / "log"
    with log.open("w") as file, subprocess.Popen(command, cwd=folder, env=environment, stderr=file, stdout=file) as lab:
        address = None
        for _ in range(120):
            time.sleep(0.5)
            if found := re.search(r"http://127\.0\.0\.1:\d+/lab", log.read_text()):
                address = found[0]
                break
        assert address, log.read_text()
        urllib.request.urlopen(address).read()
        try:
            yield address
        finally:
            lab.terminate()


@contextlib.contextmanager
def browser_page(width, height):
    """Open a page of Chromium, of a size in pixels."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(120_000)
        yield page
        browser.close()


def open_notebook(page, lab, name):
    """Open a notebook with a new kernel, and wait until the kernel is idle."""
    # A restart from the page waited for ever, once in some twenty test runs: the kernels of earlier tests end here.
    sessions = lab.removesuffix("lab") + "api/sessions"
    for session in json.load(urllib.request.urlopen(sessions)):
        urllib.request.urlopen(urllib.request.Request(f"{sessions}/{session['id']}", method="DELETE"))
    page.goto(f"{lab}/tree/{name}?reset")
    page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length > 10")
    page.evaluate(HELPERS)
    # The page may miss the message that the new kernel is idle; each request for information brings another one.
    page.wait_for_function(
        """() => {
            const kernel = panel().sessionContext.session?.kernel;
            if (kernel && kernel.status !== 'idle') kernel.requestKernelInfo();
            return kernel?.status === 'idle';
        }""",
        polling=1000,
    )


def change(page, index, **values):
    """Change lines of the settings cell."""
    for name, value in values.items():
        page.evaluate("([index, name, value]) => change(index, name, value)", [index, name, f"{name} = {value!r}"])


def wait_until_done(page, *, minutes=5):
    """Wait until no cell runs."""
    page.wait_for_timeout(1000)
    page.wait_for_function("!busy()", timeout=60_000 * minutes)


def main():
    """Run the transfer, and save the picture of its result."""
    if CHROMIUM is None:
        raise SystemExit("no Chromium on this machine; install chromium")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(ROOT / NOTEBOOK, folder)
        (folder / "samples").symlink_to(ROOT / "samples")
        with jupyterlab(folder) as lab, browser_page(1180, 1250) as page:
            open_notebook(page, lab, NOTEBOOK)
            change(page, page.evaluate("find('steps.typed()')"), **TRANSFER)
            page.evaluate("run('application:toggle-left-area')")  # the list of files
            page.evaluate("run('notebook:run-all-cells')")
            wait_until_done(page, minutes=20)
            shown = "cells()[find('outputs = {show')].node.querySelector('.jp-OutputArea')"
            page.evaluate(f"{shown}.scrollIntoView()")
            page.wait_for_timeout(1000)  # the players are drawn
            page.screenshot(path=ROOT / "benchmarks/result.png")
        samples, rate = soundfile.read(next((folder / "outputs").glob("*-001.wav")))
        (ROOT / "benchmarks/result.ogg").write_bytes(encoded(samples.T, rate))  # heard on the notebooks' first screen
    print(ROOT / "benchmarks/result.png")


if __name__ == "__main__":
    main()
