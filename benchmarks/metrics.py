"""Measures of sounds: texture statistics, a listener, copied passages, spectrum, rhythm, pitch, and content kept.

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
import scipy.spatial
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


def embeddings(samples, sample_rate, *, step=25):
    """Return what the listener hears in each block of 2.3 s of a sound [shape=(n_blocks, 512)].

    The spectrogram is that of Ma & Lerch, by librosa instead of Essentia. A block begins every `step` frames of 23 ms;
    with 25, the blocks overlap by three quarters.
    """
    samples = librosa.resample(np.asarray(samples, np.float32), orig_sr=sample_rate, target_sr=LISTENER_RATE)
    frames = dict(n_fft=2048, hop_length=1024, n_mels=96, norm=1, htk=True)
    mel = librosa.feature.melspectrogram(y=samples / np.abs(samples).max(), sr=LISTENER_RATE, **frames)
    mel = torch.from_numpy(np.log10(10000 * mel.T + 1) / 9.4578).float()  # their largest value is 9.4578
    blocks = mel.unfold(0, 100, step).transpose(1, 2) if len(mel) > 100 else mel[None]
    with torch.no_grad():
        return listener_network()(blocks.contiguous()).numpy()


def embedding(samples, sample_rate):
    """Return what the listener hears in a sound: the mean embedding of its blocks [shape=(512,)]."""
    return embeddings(samples, sample_rate).mean(axis=0)


@functools.cache
def _usual_blocks():
    paths = sorted((Path(__file__).parents[1] / "samples").glob("*.flac"))
    return [embeddings(*librosa.load(path, sr=None)) for path in paths]


@functools.cache
def _usual_embedding():
    return np.mean([blocks.mean(axis=0) for blocks in _usual_blocks()], axis=0)


@functools.cache
def usual_width():
    """Return the median distance between the listener's blocks of the recordings in samples/."""
    return np.median(scipy.spatial.distance.pdist(np.concatenate(_usual_blocks())))


def kernel_distance(samples, reference, sample_rate, *, step=8):
    """Return how far the listener's blocks of two sounds lie apart as distributions: 0 for the same, at most 2.

    The squared maximum mean discrepancy with a Gaussian kernel (Chung and others 2025, arXiv:2502.15602); unlike
    likeness, the distance is far from its limit for another take (.02 to .12; for other recordings .4 to .9). The
    width of the kernel is the median distance between blocks of the recordings in samples/. That of the reference's
    own blocks, as in the paper, is a fifth as wide, and another take of frogs is then as far as any sound. The sums
    include each block's pair with itself, so that the same sound has 0: the blocks overlap anyway.
    """
    first, second = (embeddings(sound, sample_rate, step=step) for sound in (samples, reference))

    def mean_kernel(a, b):
        return np.exp(-scipy.spatial.distance.cdist(a, b, "sqeuclidean") / (2 * usual_width() ** 2)).mean()

    return float(mean_kernel(first, first) + mean_kernel(second, second) - 2 * mean_kernel(first, second))


def likeness(samples, reference, sample_rate):
    """Return how alike two sounds are to the listener: 1 for the same, about 0 for any two sounds.

    The cosine between their embeddings, from both of which the mean embedding of the recordings in samples/ is
    subtracted: any two sounds share this part.
    """
    first, second = (embedding(sound, sample_rate) - _usual_embedding() for sound in (samples, reference))
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def onsets_kept(samples, content, sample_rate):
    """Return the correlation of the onset strength with the content's, frame by frame."""
    return _correlation(librosa.onset.onset_strength, samples, content, sr=sample_rate)


def chroma_kept(samples, content, sample_rate, *, feature=librosa.feature.chroma_stft):
    """Return the correlation of the chroma (pitch without its octave) with the content's, frame by frame.

    The same melody by another instrument has a mean of .67 (least .16) by chroma_stft, which hears the strong third
    harmonic of a clarinet as another pitch, and .82 (least .60) by librosa.feature.chroma_cqt; another melody by that
    instrument has .00 and .05 (the 60 pairs of truth.py). The tables of transfers have chroma_stft.
    """
    return _correlation(feature, samples, content, sr=sample_rate, tuning=0)


def _correlation(feature, *sounds, **settings):
    length = min(map(len, sounds))
    return float(np.corrcoef(*(feature(y=sound[:length], **settings).ravel() for sound in sounds))[0, 1])


def content_kept(samples, content, sample_rate):
    """Return how much of the content is kept: (onsets_kept, chroma_kept)."""
    return onsets_kept(samples, content, sample_rate), chroma_kept(samples, content, sample_rate)


def pitch_error(samples, reference, sample_rate, *, lowest=65.0, highest=2100.0):
    """Return how far the pitch is from the reference's: (median error in cents, share of frames within 50 cents).

    Of the frames in which pYIN finds the reference voiced; an octave counts as no error. In frames of the samples
    that pYIN finds unvoiced, its best guess counts. A random pitch has (300, 1/12); a reference without pitch, nan.
    """
    length, settings = min(len(samples), len(reference)), dict(sr=sample_rate, fmin=lowest, fmax=highest)
    found, (pitch, voiced, _) = (
        librosa.pyin(y=np.asarray(sound[:length]), fill_na=None, **settings) for sound in (samples, reference)
    )
    if not voiced.any():
        return np.nan, np.nan
    cents = 1200 * np.log2(found[0][voiced] / pitch[voiced])
    cents = np.abs((cents + 600) % 1200 - 600)
    return float(np.median(cents)), float(np.mean(cents <= 50))


def voice_lost(samples, content, sample_rate, *, frame=0.05, same_level=True):
    """Return the share of the content's active frames of 50 ms that come out more than 20 dB below the content's.

    A frame is active if its level lies within 30 dB of the content's loudest frame. With same_level, the samples are
    brought to the content's level as a whole before, so that a quieter result has lost nothing.
    """
    length = round(frame * sample_rate)
    n = min(len(samples), len(content)) // length
    result, wanted = (np.square(each[: n * length]).reshape(n, length).mean(axis=1) for each in (samples, content))
    result = result * (wanted.mean() / max(result.mean(), 1e-20) if same_level else 1.0)
    active = wanted > 1e-3 * wanted.max()
    return float(np.mean(result[active] < 1e-2 * wanted[active]))


def rhythm_curve(samples, sample_rate):
    """Return the autocorrelation of the onset strength at lags of .08 to 2 s, by its value at lag 0 [shape=(193,)].

    Frames of 10 ms. A repeating pattern has peaks at its period; at lag t, a sound of n seconds reaches at most about
    1 - t / n, because the ends have no partner. The sound must be longer than 2 s.
    """
    onsets = librosa.onset.onset_strength(y=samples, sr=sample_rate, hop_length=round(0.01 * sample_rate))
    products = librosa.autocorrelate(onsets - onsets.mean(), max_size=201)
    if len(products) < 201:
        raise ValueError(f"the rhythm needs more than 2 s, and the sound has {len(samples) / sample_rate:.1f} s")
    return products[8:] / max(products[0], 1e-9)


def rhythm_peak(samples, sample_rate):
    """Return the highest value of the rhythm curve: near 1 for a clock, about .1 to .2 for steady noise."""
    return float(rhythm_curve(samples, sample_rate).max())


def rhythm_kept(samples, reference, sample_rate):
    """Return the correlation of the rhythm curve with the reference's."""
    return float(np.corrcoef(*(rhythm_curve(sound, sample_rate) for sound in (samples, reference)))[0, 1])


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
