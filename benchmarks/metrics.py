"""Measures of sounds: texture statistics, a listener, copied passages, the spectrum, how much of a content is kept.

Texture statistics follow McDermott & Simoncelli 2011, "Sound texture perception via statistics of
the auditory periphery", Neuron 71: 30 bands that are spaced evenly on the ERB scale, compressed
envelopes, their moments, the correlations between bands, and the power of their modulations.

The listener is a network that other people trained to sort sound effects: Ma & Lerch 2022, "Representation
learning for the automatic indexing of sound effects libraries", ISMIR. The package aisfx carries its weights
(`pip install --no-deps -r benchmarks/requirements.txt`; weights CC-BY 4.0).
"""

import functools
import hashlib
import io
import itertools
from pathlib import Path

import librosa
import numpy as np
import scipy.signal
import scipy.stats
import torch

# The recordings that settings were chosen on, and those that the tables report on.
# The loops drum_loop and tabla are in neither: their second half repeats the first, so that another take is a copy.
TUNING = (
    *("fire", "frogs", "vinyl_crackle", "furnace", "speech", "piano", "laughter", "birdsong", "choir"),
    "steam_engine",
)
REPORTING = (
    *("water_stream", "rain", "applause", "sawmill", "electric_arc", "birds", "mosquito", "pig_imitation"),
    *("babble", "singing", "bells", "guitar_classical"),
)
VOICES_AND_CALLS = ("birds", "mosquito", "pig_imitation", "babble", "singing")  # of REPORTING
# Of these, the two takes' median differences are the typical ones, see TYPICAL.
TEXTURES = ("water_stream", "rain", "fire", "applause", "frogs", "birds", "vinyl_crackle", "furnace", "sawmill")
N_BANDS, LOWEST = 30, 50.0  # bands, Hz
ENVELOPE_RATE = 400  # Hz
EDGE = 20  # 50 ms at either end are left out: the filters wrap around there, and the resampling rings
MODULATIONS = np.geomspace(0.5, 128.0, 17)  # Hz, edges of the half-octave modulation bands


def envelopes(samples, sample_rate):
    """Return compressed envelopes of half-cosine ERB bands [shape=(N_BANDS, n), ENVELOPE_RATE], as in the ear."""
    frequencies = np.fft.rfftfreq(len(samples), 1 / sample_rate)

    def erb(hertz):  # Glasberg & Moore 1990
        return 9.265 * np.log(1 + hertz / (24.7 * 9.265))

    centres = np.linspace(erb(LOWEST), erb(0.95 * sample_rate / 2), N_BANDS + 2)
    spectrum = np.fft.rfft(samples)
    bands = []
    for centre in centres[1:-1]:
        distance = (erb(frequencies) - centre) / (centres[1] - centres[0])
        band = np.where(np.abs(distance) < 1, np.cos(np.pi / 2 * distance), 0) * spectrum
        analytic = np.fft.ifft(np.pad(2 * band, (0, len(samples) - len(band))))  # its magnitude is the envelope
        bands.append(np.abs(analytic) ** 0.3)
    bands = librosa.resample(np.array(bands), orig_sr=sample_rate, target_sr=ENVELOPE_RATE)
    return np.maximum(bands[:, EDGE:-EDGE], 1e-4)


def texture_statistics(samples, sample_rate):
    """Return the statistics of a texture, a dict from the name of the group to an array."""
    bands = envelopes(samples, sample_rate)
    mean, deviation = bands.mean(axis=1), bands.std(axis=1)
    segment = min(1024, bands.shape[1])  # short sounds are padded, so that all have the same bins
    frequencies, power = scipy.signal.welch(bands, ENVELOPE_RATE, nperseg=segment, nfft=1024, axis=1)
    shares = []
    for low, high in itertools.pairwise(MODULATIONS):
        chosen = (frequencies >= low) & (frequencies < high)
        if chosen.any():
            shares.append(np.sqrt(power[:, chosen].sum(axis=1) / np.maximum(power[:, 1:].sum(axis=1), 1e-12)))
    return {
        "level": np.log(mean) / 0.3,
        "coefficient of variation": deviation / mean,
        "skewness": np.arcsinh(scipy.stats.skew(bands, axis=1)),  # arcsinh limits the influence of outliers
        "kurtosis": np.arcsinh(scipy.stats.kurtosis(bands, axis=1)),
        "cross-band correlation": np.corrcoef(bands)[np.triu_indices(N_BANDS, 1)],
        "modulation power": np.array(shares).ravel(),
    }


# The rms difference between the two takes of a texture in each group, the median over TEXTURES;
# `python benchmarks/metrics.py` prints these numbers.
TYPICAL = {
    "level": 0.304,
    "coefficient of variation": 0.020,
    "skewness": 0.235,
    "kurtosis": 0.520,
    "cross-band correlation": 0.068,
    "modulation power": 0.064,
}


def difference(first, second, sample_rate):
    """Return the distance between two sounds: the mean over the groups of the rms difference by its typical size."""
    pair = [texture_statistics(samples, sample_rate) for samples in (first, second)]
    groups = {name: np.sqrt(np.mean((pair[0][name] - pair[1][name]) ** 2)) for name in pair[0]}
    return float(np.mean([groups[name] / TYPICAL[name] for name in groups]))


def statistics_distance(samples, reference, other_take, sample_rate):
    """Return the distance ratio: 1 if samples are as far from the reference as another take of it is."""
    return difference(samples, reference, sample_rate) / difference(other_take, reference, sample_rate)


LISTENER_RATE = 44100  # Hz
LISTENER_SHA256 = "499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5"


@functools.cache
def listener_network():
    """Return the network of the listener, from mel spectrograms (1, n_frames, 96) to embeddings (1, 512)."""
    try:
        from aisfx.models import cnn2d
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the listener needs the package aisfx: pip install --no-deps -r benchmarks/requirements.txt"
        ) from None
    path = Path(cnn2d.__file__).with_name("checkpoint.pth")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != LISTENER_SHA256:  # a pickle can run any code when it is loaded
        raise ValueError(f"{path} is not the file of aisfx 0.1.2; install exactly this version again")
    weights, _ = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
    network, part = cnn2d.EmbeddingNet("max", ks=3, strd=1, hl1=64), "embedding_net."
    network.load_state_dict({name.removeprefix(part): w for name, w in weights.items() if name.startswith(part)})
    return network.eval()


def embedding(samples, sample_rate):
    """Return what the listener hears in a sound: the mean embedding of its blocks of 2.3 s [shape=(512,)].

    The spectrogram is that of Ma & Lerch, by librosa instead of Essentia. The blocks overlap by three quarters.
    """
    samples = librosa.resample(np.asarray(samples, np.float32), orig_sr=sample_rate, target_sr=LISTENER_RATE)
    frames = dict(n_fft=2048, hop_length=1024, n_mels=96, norm=1, htk=True)
    mel = librosa.feature.melspectrogram(y=samples / np.abs(samples).max(), sr=LISTENER_RATE, **frames)
    mel = torch.from_numpy(np.log10(10000 * mel.T + 1) / 9.4578).float()  # their largest value is 9.4578
    blocks = mel.unfold(0, 100, 25).transpose(1, 2) if len(mel) > 100 else mel[None]
    with torch.no_grad():
        return listener_network()(blocks.contiguous()).mean(dim=0).numpy()


@functools.cache
def _usual_embedding():
    paths = sorted((Path(__file__).parents[1] / "samples").glob("*.flac"))
    return np.mean([embedding(*librosa.load(path, sr=None)) for path in paths], axis=0)


def likeness(samples, reference, sample_rate):
    """Return how alike two sounds are to the listener: 1 for the same, about 0 for any two sounds.

    The cosine between their embeddings, from both of which the mean embedding of the recordings in samples/ is
    subtracted: any two sounds share this part.
    """
    first, second = (embedding(sound, sample_rate) - _usual_embedding() for sound in (samples, reference))
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def content_kept(samples, content, sample_rate):
    """Return the correlations of the onset envelopes and of the chroma with the content's: (rhythm, pitch)."""
    length = min(len(samples), len(content))
    pair = [samples[:length], content[:length]]
    onsets = [librosa.onset.onset_strength(y=y, sr=sample_rate) for y in pair]
    chroma = [librosa.feature.chroma_stft(y=y, sr=sample_rate, tuning=0).ravel() for y in pair]
    return float(np.corrcoef(*onsets)[0, 1]), float(np.corrcoef(*chroma)[0, 1])


def log_spectral_distance(samples, reference, sample_rate):
    """Return the rms difference between two average power spectra in third-octave bands from 50 Hz [dB]."""
    edges = 50 * 2 ** (np.arange(0, np.log2(sample_rate / 2 / 50), 1 / 3))
    levels = []
    for sound in (samples, reference):
        frequencies, power = scipy.signal.welch(sound, sample_rate, nperseg=4096)
        bands = [power[(frequencies >= low) & (frequencies < high)].mean() for low, high in itertools.pairwise(edges)]
        levels.append(10 * np.log10(np.array(bands) + 1e-14))
    return float(np.sqrt(np.mean((levels[0] - levels[1]) ** 2)))


def copy_score(samples, original, sample_rate, *, seconds=0.5):
    """Return how much of a result is copied from the original, from 0 to 1.

    Log spectrograms in dB, at most 60 dB below the loudest value, are cut into excerpts of half a second that
    begin every quarter of a second. Each excerpt has its best correlation with any place in the original; the
    score is the mean over the excerpts. From every bin, the mean over the excerpt or the place is subtracted,
    because otherwise all sounds with the same average spectrum would correlate.
    """
    result, recording = (
        torch.from_numpy(
            librosa.power_to_db(np.abs(librosa.stft(sound, n_fft=1024, hop_length=256)) ** 2, ref=np.max, top_db=60)
        )
        for sound in (samples, original)
    )
    length = round(seconds * sample_rate / 256)
    excerpts = result.unfold(1, length, length // 2).transpose(0, 1)  # (excerpts, bins, frames)
    excerpts = excerpts - excerpts.mean(dim=2, keepdim=True)
    places = recording.unfold(1, length, 1)  # (bins, places, frames)
    energy = (places - places.mean(dim=2, keepdim=True)).square().sum(dim=(0, 2))
    products = torch.nn.functional.conv1d(recording[None], excerpts)[0]  # (excerpts, places)
    scale = energy.sqrt() * excerpts.flatten(1).norm(dim=1)[:, None]
    return float((products / scale.clamp_min(1e-9)).amax(dim=1).mean())


def matched_noise(samples, *, seed=0):
    """Return stationary noise with the spectrum and the length of samples."""
    spectrum = np.abs(np.fft.rfft(samples))
    phases = 2 * np.pi * np.random.default_rng(seed).random(len(spectrum))
    return np.fft.irfft(spectrum * np.exp(1j * phases), len(samples)).astype(np.float32)


def takes(name, sample_rate, *, longest=5.0):
    """Return the two halves of a recording of samples/ without its fades: a texture, and another take of it."""
    samples, _ = librosa.load(Path(__file__).parents[1] / f"samples/{name}.flac", sr=sample_rate)
    steady = samples[sample_rate // 4 : -sample_rate // 4]
    half = min(len(steady) // 2, int(longest * sample_rate))
    return steady[:half], steady[-half:]


def print_typical():
    """Print the typical differences between the two halves of each texture of samples/, for TYPICAL."""
    differences = {name: [] for name in TYPICAL}
    for name in TEXTURES:
        first, second = (texture_statistics(half, 22050) for half in takes(name, 22050))
        for group, values in differences.items():
            values.append(np.sqrt(np.mean((first[group] - second[group]) ** 2)))
    for group, values in differences.items():
        print(f"{group}: {np.median(values):.3f}, in use {TYPICAL[group]}")


if __name__ == "__main__":
    print_typical()
