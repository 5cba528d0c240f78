import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from support.sound import files, transforms

ROOT = Path(__file__).parents[1]
SAMPLE_RATE = 22050


@pytest.fixture(autouse=True)
def seeded():
    """Random numbers of torch don't depend on the tests that ran before: one in four draws broke an assertion."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def load():
    def load(name, **excerpt):
        return files.load_audio(ROOT / f"samples/{name}.flac", sample_rate=SAMPLE_RATE, **excerpt)

    return load


@pytest.fixture(scope="session")
def stft():
    return transforms.STFT(sample_rate=SAMPLE_RATE, n_fft=1024, hop_length=256)


@pytest.fixture
def parameters():
    return dict(
        l1channels=12,
        l2channels=8,
        l3channels=6,
        orientation="freq",
        in_channels=20,
        in_height=1,
        in_width=64,
        n_classes=5,
        kernelsize=11,
    )


@pytest.fixture
def image():
    return torch.from_numpy(np.random.default_rng(0).random((1, 20, 1, 64), dtype=np.float32))


@pytest.fixture
def browser():
    """A Chromium of Playwright; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


# Files whose tests start kernels, browsers or other processes, or take seconds each: `make quick` leaves them out.
SLOW = "notebooks runs browser elsewhere state robustness terminal gallery training quality refinement mosaic "
SLOW += "strokes only_a_part damages cells metrics loops windows mel pictures optimisation weights known_answers"


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem.removeprefix("test_") in SLOW.split() or "browser" in item.fixturenames:
            item.add_marker(pytest.mark.slow)
