"""Which notes sound, how much a content's notes count, and whether a transfer keeps the melody."""

import librosa
import numpy as np
import pytest
import torch

from support import pipeline
from support.desk.settings import Settings
from support.pitch import LOWEST, PitchLoss, semitones
from support.sound.files import load_audio

RATE = 22050
WITHOUT_NOTES = ("water_stream", "rain", "applause", "fire", "furnace", "vinyl_crackle", "birdsong")
MELODIES = ("clarinet_minuet", "violin_greensleeves", "organ_ode_to_joy", "piano_frere_jacques", "flute_elise")


@pytest.fixture
def part(request):
    path = request.config.rootpath / "benchmarks/parts"
    return lambda name: load_audio(path / f"{name}.flac", sample_rate=RATE)


def tone(note, *, partials, seconds=0.5):
    """A tone of MIDI's note, with the levels of its partials."""
    times = np.arange(round(seconds * RATE)) / RATE
    pitch = 440 * 2 ** ((note - 69) / 12)
    waves = [level * np.sin(2 * np.pi * pitch * number * times) for number, level in enumerate(partials, start=1)]
    return (0.1 * np.sum(waves, axis=0) * np.hanning(len(times))).astype(np.float32)


def melody(notes, partials):
    return np.concatenate([tone(note, partials=partials) for note in notes])


def image(samples):
    return torch.from_numpy(np.asarray(samples, np.float32)).reshape(-1, 1, 1, samples.shape[-1])


def distance(samples, content, rate=RATE):
    loss = PitchLoss(rate)
    return float(loss.distance(image(samples), loss.target(image(content), blend=[1.0])))


def weight(samples):
    return float(PitchLoss(RATE).target(image(samples), blend=[1.0]).weights.sum())


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000])
def test_a_sine_is_loudest_in_its_own_semitone(rate):
    """Below about 100 Hz, neighbours lie closer than two bins of the window."""
    bands = semitones(rate).numpy()
    n_fft = 2 * (bands.shape[1] - 1)
    for note in range(LOWEST + 9, LOWEST + len(bands)):
        sine = np.sin(2 * np.pi * 440 * 2 ** ((note - 69) / 12) * np.arange(n_fft) / rate)
        power = bands @ np.abs(np.fft.rfft(sine * np.hanning(n_fft))) ** 2
        assert abs(power.argmax() - (note - LOWEST)) == 0, note


def test_the_melody_counts_and_neither_the_timbre_nor_the_level():
    notes, bright, dark = (60, 64, 67, 62, 65, 69), [1, 0.9, 0.8, 0.7, 0.6, 0.5], [1, 0.3, 0.1, 0.03]
    content = melody(notes, bright)
    assert distance(content, content) < 1e-3
    assert distance(0.1 * content, content) < 0.01
    same, shifted = melody(notes, dark), melody([note + 1 for note in notes], bright)
    assert distance(same, content) < 0.5 * distance(shifted, content)
    reverse = melody(notes[::-1], bright)
    assert distance(same, content) < 0.7 * distance(reverse, content)
    noise = np.random.default_rng(0).normal(0, 0.1, len(content))
    assert distance(noise, content) > 0.7  # 1 if no note is there by chance


@pytest.mark.parametrize("name", WITHOUT_NOTES)
def test_recordings_without_notes_have_no_weight(name, load):
    assert weight(load(name, duration=5.0)) < 0.1  # 0.06 for the hum of the furnace, below 0.02 for the others


@pytest.mark.parametrize("name", MELODIES)
def test_melodies_have_nearly_all_of_it(name, part):
    assert weight(part(name)) > 0.7


@pytest.mark.parametrize("length", [1, 300, 4096, 3 * RATE])
def test_every_sound_gives_a_finite_number_and_gradient(length):
    """Also silence, noise, and sounds shorter than the window, in mono and in stereo."""
    noise = np.random.default_rng(1).normal(0, 0.1, (2, length))
    content = np.stack([melody((60, 64, 67, 62, 65, 69), [1.0, 0.5])[:length]] * 2)
    loss = PitchLoss(RATE)
    for target, samples in ((content, 0 * noise), (content, 1e-7 * noise), (noise, content), (0 * noise, noise)):
        changed = image(samples).requires_grad_()
        value = loss.distance(changed, loss.target(image(target), blend=[1.0]))
        (gradient,) = torch.autograd.grad(value, changed)
        assert torch.isfinite(value) and torch.isfinite(gradient).all()


@pytest.mark.slow
def test_a_transfer_keeps_the_melody(part):
    """A piano's melody in the style of a violin, by a measure that is not the loss: librosa's chroma of constant-Q."""
    torch.set_num_threads(1)
    recordings = {"style 1": part("violin_greensleeves"), "content": part("piano_frere_jacques")}
    kept = []
    for pitch_weight in (None, 0.0):
        quick = dict(filters=80, num_steps=10, refine_steps=20, phase_iterations=20)
        settings = Settings(device="cpu", CONTENT_FILENAME="content", pitch_weight=pitch_weight, **quick)
        made = pipeline.synthesise(settings, recordings)
        chroma = (librosa.feature.chroma_cqt(y=each, sr=RATE, tuning=0) for each in (made, recordings["content"]))
        kept.append(np.corrcoef(*(each.ravel() for each in chroma))[0, 1])
    assert kept[0] > kept[1] + 0.1


def test_a_content_without_notes_gives_the_same_samples(load):
    torch.set_num_threads(1)
    recordings = {"style 1": load("fire", duration=1.5), "content": load("rain", duration=1.5)}
    quick = dict(filters=20, num_steps=2, refine_steps=3, phase_iterations=5, device="cpu", CONTENT_FILENAME="content")
    made = [pipeline.run(Settings(pitch_weight=each, **quick), recordings) for each in (0.5, 0.0)]
    np.testing.assert_array_equal(*(each.samples for each in made))
    names = [set(each.refinement[-1]) for each in made]
    assert names[0] - names[1] == {"pitch samples"} and made[0].history == made[1].history  # the image has no such term
