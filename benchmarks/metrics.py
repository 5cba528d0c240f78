"""What is measured on sounds: texture statistics, and how much of a content is kept.

Texture statistics follow McDermott & Simoncelli 2011, "Sound texture perception via statistics of
the auditory periphery", Neuron 71: 30 bands evenly on the ERB scale, compressed envelopes, their
moments, the correlations between bands, and the power of their modulations.
"""

import itertools
from pathlib import Path

import librosa
import numpy as np
import scipy.signal
import scipy.stats

N_BANDS, LOWEST = 30, 50.0  # bands, Hz
ENVELOPE_RATE = 400  # Hz
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
    return np.maximum(librosa.resample(np.array(bands), orig_sr=sample_rate, target_sr=ENVELOPE_RATE), 1e-4)


def texture_statistics(samples, sample_rate):
    """Return the statistics of a texture, a dict from the name of the group to an array."""
    bands = envelopes(samples, sample_rate)
    mean, deviation = bands.mean(axis=1), bands.std(axis=1)
    frequencies, power = scipy.signal.welch(bands, ENVELOPE_RATE, nperseg=min(1024, bands.shape[1]), axis=1)
    shares = []
    for low, high in itertools.pairwise(MODULATIONS):
        chosen = (frequencies >= low) & (frequencies < high)
        if chosen.any():
            shares.append(np.sqrt(power[:, chosen].sum(axis=1) / np.maximum(power[:, 1:].sum(axis=1), 1e-12)))
    return {
        "level": np.log(mean) / 0.3,
        "coefficient of variation": deviation / mean,
        "skewness": np.arcsinh(scipy.stats.skew(bands, axis=1)),  # so that outliers don't rule
        "kurtosis": np.arcsinh(scipy.stats.kurtosis(bands, axis=1)),
        "cross-band correlation": np.corrcoef(bands)[np.triu_indices(N_BANDS, 1)],
        "modulation power": np.array(shares).ravel(),
    }


# What the two halves of a recording differ by in each group (rms), median over the nine textures of samples/;
# `python benchmarks/metrics.py` prints it.
TYPICAL = {
    "level": 0.234,
    "coefficient of variation": 0.029,
    "skewness": 0.276,
    "kurtosis": 0.592,
    "cross-band correlation": 0.137,
    "modulation power": 0.060,
}


def difference(first, second, sample_rate):
    """Distance between two sounds: over the groups, the mean of the rms difference by its typical size."""
    pair = [texture_statistics(samples, sample_rate) for samples in (first, second)]
    groups = {name: np.sqrt(np.mean((pair[0][name] - pair[1][name]) ** 2)) for name in pair[0]}
    return float(np.mean([groups[name] / TYPICAL[name] for name in groups]))


def statistics_distance(samples, reference, other_take, sample_rate):
    """Distance ratio: 1 if samples are as far from the reference as another take of it is."""
    return difference(samples, reference, sample_rate) / difference(other_take, reference, sample_rate)


def content_kept(samples, content, sample_rate):
    """Correlation of the onset envelopes and of the chroma with the content's: (rhythm, pitch)."""
    length = min(len(samples), len(content))
    pair = [samples[:length], content[:length]]
    onsets = [librosa.onset.onset_strength(y=y, sr=sample_rate) for y in pair]
    chroma = [librosa.feature.chroma_stft(y=y, sr=sample_rate, tuning=0).ravel() for y in pair]
    return float(np.corrcoef(*onsets)[0, 1]), float(np.corrcoef(*chroma)[0, 1])


def print_typical():
    """Print what the two halves of each texture of samples/ differ by, the origin of TYPICAL."""
    names = "water_stream rain fire applause frogs birds vinyl_crackle furnace sawmill".split()  # noqa: SIM905
    found = {name: [] for name in TYPICAL}
    for name in names:
        samples, rate = librosa.load(Path(__file__).parents[1] / f"samples/{name}.flac", sr=None)
        half = len(samples) // 2
        first, second = (texture_statistics(part, rate) for part in (samples[:half], samples[half : 2 * half]))
        for group, values in found.items():
            values.append(np.sqrt(np.mean((first[group] - second[group]) ** 2)))
    for group, values in found.items():
        print(f"{group}: {np.median(values):.3f}, in use {TYPICAL[group]}")


if __name__ == "__main__":
    print_typical()
