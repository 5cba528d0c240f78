"""Hard to break: bad files, any settings, interrupts at the worst moment, full disks, memory."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import traceback
import warnings
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel import CQT, ROOT, STFT, sample
from test_notebooks import BANDS, EXCERPT

import audiocnn
from support import networks, pipeline
from support.checks import LAYOUTS
from support.desk import saving, table
from support.desk.settings import Settings
from support.sound.files import load_audio
from support.start import STARTS

RATE = 22050


def noise(length, channels=1, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((length, channels)).astype(np.float32)


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


class Evil:
    def __reduce__(self):
        return os.system, ("touch code-was-run",)


BAD_SOUNDS = {
    "a wav cut in its header": (
        lambda p: (soundfile.write(p, noise(RATE), RATE), cut(p, 0.0005)),
        "libsndfile can read",
    ),
    "a cut flac": (
        lambda p: (soundfile.write(p, noise(RATE), RATE, format="FLAC"), cut(p, 0.5)),
        "libsndfile can read",
    ),
    "text named wav": (lambda p: p.write_text("This is a letter."), "libsndfile can read"),
    "zero bytes": (lambda p: p.write_bytes(b""), "libsndfile can read"),
    "random bytes": (lambda p: p.write_bytes(np.random.default_rng(0).bytes(9000)), "libsndfile can read"),
    "a header without samples": (lambda p: soundfile.write(p, noise(0), RATE), "no samples"),
    "NaN samples": (lambda p: soundfile.write(p, np.full(999, np.nan), RATE, subtype="FLOAT"), "NaN or infinite"),
    "infinite samples": (lambda p: soundfile.write(p, np.full(999, np.inf), RATE, subtype="DOUBLE"), "NaN or infinite"),
    "silence": (lambda p: soundfile.write(p, np.zeros(RATE), RATE), "is silent"),
    "a directory": (lambda p: p.mkdir(), "is not a file"),
    "nothing": (lambda p: None, "is not a file"),
}


@pytest.mark.parametrize("name", BAD_SOUNDS)
def test_bad_sounds_say_what_is_wrong(name, tmp_path):
    make, message = BAD_SOUNDS[name]
    make(tmp_path / "bad.wav")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load_audio(tmp_path / "bad.wav", sample_rate=RATE)
    assert "bad.wav" in str(error.value)


def test_one_sample_is_too_short(tmp_path, stft):
    soundfile.write(tmp_path / "one.wav", noise(1), RATE)
    samples = load_audio(tmp_path / "one.wav", sample_rate=RATE)
    with pytest.raises(
        ValueError, match=r"the sound has 1 samples .* too short for n_fft=1024: give at least 1024 samples"
    ):
        stft.magnitude(samples)


def test_a_cut_wav_warns(tmp_path):
    soundfile.write(tmp_path / "cut.wav", noise(RATE), RATE)
    cut(tmp_path / "cut.wav", 0.5)
    with pytest.warns(UserWarning, match=r"cut.wav is cut off"):
        samples = load_audio(tmp_path / "cut.wav", sample_rate=RATE)
    assert len(samples) == pytest.approx(RATE / 2, abs=50)


def test_no_permission(tmp_path):
    soundfile.write(tmp_path / "mine.wav", noise(RATE), RATE)
    (tmp_path / "mine.wav").chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    user = os.geteuid()
    with pytest.raises((ValueError, PermissionError), match=r"mine.wav"):
        try:
            os.seteuid(user or 65534)  # root may read everything
            load_audio(tmp_path / "mine.wav", sample_rate=RATE)
        finally:
            os.seteuid(user)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_any_rate_and_channels(rate, channels, tmp_path):
    soundfile.write(tmp_path / "any.wav", noise(rate, channels), rate, subtype="FLOAT")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples = load_audio(tmp_path / "any.wav", sample_rate=RATE)
    assert len(samples) == pytest.approx(RATE, abs=1) and np.isfinite(samples).all()
    assert samples.std() == pytest.approx(0.1 * min(1, RATE / rate) ** 0.5 / channels**0.5, rel=0.1)


BAD_NETWORKS = {
    "a pickle that runs code": ("net.pkl", lambda p: p.write_bytes(pickle.dumps(Evil()))),
    "a .pth that runs code": ("net.pth", lambda p: p.write_bytes(pickle.dumps(Evil()))),
    "a saved object that runs code": ("net.pth", lambda p: torch.save(Evil(), p)),
    "a foreign object": ("net.pth", lambda p: torch.save({"epoch": 3, "net": [1, 2]}, p)),
    "weights of another shape": ("net.pth", lambda p: torch.save({"layer1.0.weight": torch.ones(2, 2, 1, 3)}, p)),
    "a .pth cut in half": ("net.pth", lambda p: (torch.save({"a": torch.ones(9999)}, p), cut(p, 0.5))),
    "text named .pkl": ("net.pkl", lambda p: p.write_text("l1channels: 12")),
    "an empty .pkl": ("net.pkl", lambda p: p.write_bytes(b"")),
    "a directory": ("net.pth", lambda p: p.mkdir()),
}


@pytest.mark.parametrize("name", BAD_NETWORKS)
def test_bad_networks_say_what_is_wrong_and_run_nothing(name, tmp_path, monkeypatch, parameters):
    monkeypatch.chdir(tmp_path)
    ending, make = BAD_NETWORKS[name]
    make(tmp_path / ending)
    with pytest.raises((ValueError, FileNotFoundError), match=r"net\.p"):
        if ending.endswith("pkl"):
            networks.load_parameters(tmp_path / ending)
        else:
            networks.build_network(parameters, model_path=tmp_path / ending)
    assert not (tmp_path / "code-was-run").exists()


# Mostly usual values, or hardly any draw would get past the checks of the settings.
LAYERS = {"gatys": ["relu_1", "conv_3", "batchnorm_2", "pool_1"], "bands": ["conv_1", "conv_2"]}
weights = st.sampled_from([0.0, 1e-9, 1.0, 1e3, 1e12])
lengths = st.integers(4000, 12000) | st.integers(6000, 12000) | st.integers(1, 12000)


def test_any_settings_give_a_sound_or_a_documented_error():
    """From samples to samples: finite and of the right length, or ValueError or FloatingPointError, nothing else."""
    sounds = []

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(data=st.data())
    def check(data):
        sounds.extend(from_samples_to_samples(data.draw))

    check()
    assert len(sounds) >= 5  # or the errors would be all that was tested


def from_samples_to_samples(draw):
    """Return a list of the sound that was made; empty after a documented error."""
    given = draw_settings(draw)
    kind, loudness = draw(st.sampled_from([np.float32, np.float64])), st.sampled_from([1.0] * 7 + [1e-6, 1e9, 0.0])
    sounds = [noise(draw(lengths), 2, seed=seed).T.astype(kind) * draw(loudness) for seed in (0, 1)]
    sounds = sounds if given["stereo"] else [channels.mean(axis=0) for channels in sounds]
    recordings = {"style 1": sounds[0]}
    length = sounds[0].shape[-1]
    if given["CONTENT_FILENAME"] is not None:
        recordings["content"] = sounds[1]
        length = sounds[1].shape[-1]
    elif given["result_duration"] is not None:
        length = round(given["result_duration"] * given["sample_rate"])
    with warnings.catch_warnings(action="ignore"):
        try:
            samples = pipeline.synthesise(Settings(**given), recordings)
        except (ValueError, FloatingPointError) as error:
            *_, raised = traceback.walk_tb(error.__traceback__)
            raised_in = Path(raised[0].f_code.co_filename).relative_to(ROOT)  # not in a library, where it says nothing
            assert raised_in.parts[0] in ("audiocnn.py", "support"), error
            return []
    assert samples.shape == ((2, length) if given["stereo"] else (length,)) and np.isfinite(samples).all()
    return [samples]


def draw_settings(draw):
    """Return settings by name: a transform, a small network, and anything for the rest."""
    recipe = draw(st.sampled_from(["gatys", "gatys", "bands"]))
    channels = draw(st.sampled_from(LAYOUTS)) if recipe == "gatys" else "freq"
    layers = st.lists(st.sampled_from(LAYERS[recipe]), min_size=1, max_size=2)
    layers = layers | st.lists(st.sampled_from([*LAYERS[recipe], "relu_4"]))
    given = draw_transform(draw) | dict(recipe=recipe, whichChannel=channels)
    given |= dict(parameters=dict(l1channels=4, l2channels=3, l3channels=2, kernelsize=3), widths=[1, 4], filters=5)
    given |= dict(num_steps=2, refine_steps=2, phase_iterations=2, stereo=draw(st.sampled_from([False, False, True])))
    given |= dict(CONTENT_FILENAME=draw(st.sampled_from(["any.wav", "any.wav", None])))
    given |= dict(result_duration=draw(st.sampled_from([None, None, 0.4, 1e-6])))
    given |= dict(start=draw(st.sampled_from(STARTS)), statistic=draw(st.sampled_from(list(audiocnn.STYLE_LOSSES))))
    given |= dict(style_layers_default=draw(layers), content_layers_default=draw(layers))
    given |= dict(style_weight=draw(weights), content_weight=draw(weights), reg_weight=draw(weights))
    given |= dict(power=draw(st.sampled_from(["log1p", "log1p", 0.3])), use01scale=draw(st.booleans()))
    if draw(st.booleans()):
        given |= dict(rhythm_weight=draw(weights), diversity_weight=draw(weights))
    return given | dict(segment_duration=draw(st.sampled_from([None, 5.0, 0.1, 0.3])), seed=draw(st.integers(0, 9)))


def draw_transform(draw):
    """Return the settings of a drawn transform, by name."""
    n_fft = draw(st.sampled_from([64, 512, 1024]) | st.integers(2, 1500))
    hop = draw(st.sampled_from([max(1, n_fft // 4)]) | st.integers(1, 700))
    given = dict(sample_rate=draw(st.sampled_from([8000, 22050, 48000])), N_FFT=n_fft, K_HOP=hop)
    if draw(st.sampled_from(["stft", "stft", "cqt"])) == "stft":
        return given
    given |= dict(bins_per_octave=draw(st.sampled_from([12, 12, 48])), n_octaves=draw(st.integers(1, 5)))
    given |= dict(lowest_frequency=draw(st.sampled_from([200.0] * 2 + [440.0, 0.0, -1.0, 30.0] + [440.0] * 4)))
    return given | dict(transform="cqt", K_HOP=min(hop, 256))


def python(source, **options):
    source = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + textwrap.dedent(source)
    return subprocess.Popen([sys.executable, "-c", source], text=True, stdout=subprocess.PIPE, **options)


SAVE = """
    import pathlib, signal, time
    import numpy as np
    from matplotlib.figure import Figure
    from support.desk import saving
    from support.desk.settings import Settings
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background may start without
    def write_half(path, content):
        with open(path, "wb") as file:
            file.write(b"half")
        print("writing", flush=True)
        time.sleep(60)
    if SLOW == "json":
        pathlib.Path.write_text = write_half
    pathlib.Path.write_bytes = write_half
    stem = pathlib.Path("outputs/run-002")
    saving.save_run(stem, np.full(50000, 0.1), 22050, dict(settings=Settings().plain(), losses=[], used={}))
    saving.save_figures(stem, {"picture": Figure()} if SLOW == "picture" else {})
"""


@pytest.fixture
def earlier(tmp_path):
    """Save a run; return a function that tells whether its files are as they were, and lists the other ones."""
    samples = noise(999)[:, 0]
    saving.save_run(tmp_path / "outputs/run-001", samples, 22050, dict(settings=Settings().plain(), losses=[], used={}))
    before = {path: path.read_bytes() for path in (tmp_path / "outputs").iterdir()}
    assert len(before) == 2

    def others():
        assert all(path.read_bytes() == content for path, content in before.items())
        return sorted(path.name for path in (tmp_path / "outputs").iterdir() if path not in before)

    return others


@pytest.mark.parametrize(("slow", "files"), [("json", ["run-002.wav"]), ("picture", ["run-002.json", "run-002.wav"])])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_kill_or_an_interrupt_while_saving_leaves_nothing_half_written(name, slow, files, tmp_path, earlier):
    process = python(SAVE.replace("SLOW", repr(slow)), cwd=tmp_path, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(getattr(signal, name))
    process.communicate()
    assert process.returncode != 0
    assert [new for new in earlier() if not new.startswith(".partial-")] == files
    assert name != "SIGINT" or earlier() == files  # Python cleans up after an interrupt
    assert len(soundfile.read(tmp_path / "outputs/run-002.wav")[0]) == 50000
    assert saving.new_stem(tmp_path / "outputs", "run").name == "run-003"
    assert table.table_of_runs(tmp_path / "outputs").data.count("<audio") == len(files)  # no json, no run


def executed_until(tmp_path, monkeypatch, before, marked):
    """Execute the notebook in tmp_path with code before it, and more in place of the picture while it optimises."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / STFT, as_version=4)
    given = BANDS | EXCERPT | dict(recipe="bands", STYLE_FILENAME=sample("fire"), outname="run", widths=[1, 8])
    settings = "\n".join(f"{key} = {value!r}" for key, value in given.items())
    (place,) = [n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    source = f"{settings}\n{before}\ndef marked(*_, **__):\n    {marked}\npictures.plot_progress = marked"
    source += "\nshow.progress.__defaults__ = (1e-9,)  # a picture after every step"
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(source))
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}, timeout=300).execute()


def test_a_kill_while_optimising_leaves_earlier_runs_alone(tmp_path, monkeypatch, earlier):
    with pytest.raises(nbclient.exceptions.DeadKernelError):
        executed_until(tmp_path, monkeypatch, "import os, signal", "os.kill(os.getpid(), signal.SIGKILL)")
    assert earlier() == []


def test_a_disk_that_fills_while_optimising_leaves_earlier_runs_alone(tmp_path, monkeypatch, earlier):
    full = "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); return 'full'"
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="Error") as error:
        executed_until(tmp_path, monkeypatch, "import resource", full)
    assert "save the sound elsewhere: saving.save_result(" in str(error.value)
    assert earlier() == []


def test_a_full_disk_leaves_nothing_half_written(tmp_path, earlier):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))\n"
    process = python(limit + textwrap.dedent(SAVE.replace("SLOW", "None")), cwd=tmp_path, stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "Error" in errors.splitlines()[-1]
    assert earlier() == []


def test_a_thousand_steps_need_no_more_memory():
    source = """
        import numpy as np, psutil, torch, audiocnn
        from support.bands import band_networks
        from support.start import start_image
        torch.set_num_threads(1)
        image = torch.rand(1, 257, 1, 200, generator=torch.Generator().manual_seed(0))
        bands = band_networks(np.linspace(0, 11025, 257), widths=[1, 8], filters=32)
        objective = audiocnn.Objective(bands, [(audiocnn.DistributionLoss(), "conv_2", 1.0)], style=image)
        start = start_image("rand", like=image)
        for step, _ in enumerate(audiocnn.optimise(start, objective, num_steps=1000), start=1):
            if step in (150, 1000):  # the optimiser's memory of 50 steps is full
                print(psutil.Process().memory_info().rss, flush=True)
    """
    early, late = map(int, python(source).communicate(timeout=600)[0].split())
    assert late < 1.05 * early


@pytest.mark.parametrize("name", [STFT, CQT])
def test_ten_runs_in_one_kernel_need_the_memory_of_two(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / name, as_version=4)
    given = BANDS | EXCERPT | dict(recipe="bands", STYLE_FILENAME=sample("fire"), widths=[1, 8])
    (place,) = [n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    override = nbformat.v4.new_code_cell("\n".join(f"{key} = {value!r}" for key, value in given.items()))
    notebook.cells.insert(place + 1, override)
    once = [cell for cell in notebook.cells if cell.cell_type == "code"]
    report = nbformat.v4.new_code_cell("import psutil; print('resident', psutil.Process().memory_info().rss)")
    cells = [nbformat.from_dict(json.loads(json.dumps(cell))) for _ in range(10) for cell in (*once, report)]
    notebook.cells = cells
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}, timeout=600).execute()
    texts = [output.get("text", "") for cell in cells for output in cell.outputs]
    resident = [int(text.split()[1]) for text in texts if text.startswith("resident")]
    assert len(resident) == 10
    assert resident[9] < 1.1 * resident[1], resident
