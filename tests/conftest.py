from pathlib import Path

import numpy as np
import pytest
import torch

from support.sound import files, transforms

ROOT = Path(__file__).parents[1]
SAMPLE_RATE = 22050


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


# Files whose tests start kernels, browsers or other processes, or take seconds each: `make quick` leaves them out.
SLOW = "notebooks runs browser elsewhere state robustness terminal gallery training quality refinement mosaic "
SLOW += "damages cells metrics loops windows mel pictures optimisation weights known_answers"


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem.removeprefix("test_") in SLOW.split() or "page" in item.fixturenames:  # page: a browser
            item.add_marker(pytest.mark.slow)
