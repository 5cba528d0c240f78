"""What loading damaged files gives, as json: 500 random damages with `python tests/damage.py 500`, or given files.

In a process of its own, because a file may end it.
"""

import io
import json
import pickle
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import soundfile
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
import audiocnn  # noqa: E402
from support import networks  # noqa: E402
from support.sound.files import load_audio  # noqa: E402

PARAMETERS = networks.load_parameters(ROOT / "params/stft_time.pkl") | dict(
    l1channels=3, l2channels=2, l3channels=2, in_channels=4, in_width=16, n_classes=2
)
SOUNDS = [dict(format="WAV"), dict(format="WAV", subtype="FLOAT"), dict(format="FLAC"), dict(format="OGG")]
SOUNDS += [dict(format="MP3"), dict(format="AIFF"), dict(format="WAV", subtype="GSM610")]


def originals():
    """Dict from the names of real files to their bytes."""
    sound, rate = soundfile.read(ROOT / "samples/cat.flac", frames=20000)
    files = {}
    for number, kind in enumerate(SOUNDS):
        stream = io.BytesIO()
        soundfile.write(stream, sound, rate, **kind)
        files[f"sound-{number}.{kind['format'].lower()}"] = stream.getvalue()
    for protocol in (0, 2, 4):
        files[f"protocol-{protocol}.pkl"] = pickle.dumps(PARAMETERS, protocol)
    for name, is_zip in {"weights.pth": True, "inside.pth": True, "old.pth": False}.items():
        stream = io.BytesIO()
        torch.save(audiocnn.CNN(PARAMETERS).state_dict(), stream, _use_new_zipfile_serialization=is_zip)
        files[name] = stream.getvalue()
    return files


def damaged(content, generator):
    """Bytes of which some are changed, taken out, doubled or put in, mostly near the beginning."""
    content = bytearray(content)
    for _ in range(generator.integers(1, 6)):
        end = len(content) + 1 if generator.random() < 0.3 else min(len(content) + 1, 300)
        at, count = int(generator.integers(end)), int(generator.choice([1, 1, 2, 4, 8, 50]))
        new = generator.choice(
            [generator.bytes(count), b"\0" * count, b"\xff" * count, bytes(content[at : at + count])]
        )
        match generator.choice(
            ["change", "change", "change", "put in", "take out", "cut"], p=[0.25] * 3 + [0.1] * 2 + [0.05]
        ):
            case "change":
                content[at : at + count] = new
            case "put in":
                content[at:at] = new
            case "take out":
                del content[at : at + count]
            case "cut":
                del content[at:]
    return bytes(content)


def damaged_inside(content, generator):
    """Bytes of a zip file whose pickle is damaged, with the right sums."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            inside = old.read(name)
            new.writestr(name, damaged(inside, generator) if name.endswith("data.pkl") else inside)
    return stream.getvalue()


def load(path):
    """Load what a name says."""
    if path.suffix == ".pkl":
        return networks.load_parameters(path)
    if path.suffix == ".pth":
        return networks.build_network(PARAMETERS, model_path=path)
    return load_audio(path, sample_rate=22050)


def outcome(path):
    """Return "content", or the error in words; an error of another kind begins with "fault: "."""
    try:
        load(path)
    except (ValueError, FileNotFoundError) as error:
        said = str(error)
        return said if path.name in said and "\n" not in said and len(said) < 1000 else f"fault: {said:.300}"
    except BaseException as error:
        return f"fault: {error!r:.300}"
    return "content"


def random_damage(folder, number, seed=0):
    """Yield the paths of damaged copies of real files, each written when it is asked for."""
    generator, files = np.random.default_rng(seed), originals()
    for trial in range(number):
        name = list(files)[trial % len(files)]
        path = Path(folder) / f"{trial}-{name}"
        path.write_bytes((damaged_inside if name == "inside.pth" else damaged)(files[name], generator))
        yield path


def report(paths):
    """Load files; return the outcomes by name, the longest time [s] and the memory that was needed in addition [GB]."""
    before, outcomes, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, {}, {}
    for path in paths:
        began = time.perf_counter()
        outcomes[path.name] = outcome(path)
        seconds[path.name] = time.perf_counter() - began
    gigabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    slowest = max(seconds, key=seconds.get)
    return dict(outcomes=outcomes, slowest=slowest, seconds=seconds[slowest], gigabytes=gigabytes)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (600, 600))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        for name, content in originals().items():  # also, functions are compiled and imported when they are first used
            (Path(folder) / name).write_bytes(content)
            load(Path(folder) / name)
        numbers = sys.argv[1:] if sys.argv[1].isdigit() else []
        paths = random_damage(folder, *map(int, numbers)) if numbers else map(Path, sys.argv[1:])
        print(json.dumps(report(paths), indent=1))
