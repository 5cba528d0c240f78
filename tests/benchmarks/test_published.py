"""TexStat by an independent computation, and published sets by a set of two short sounds."""

import itertools

import numpy as np
import pytest
import scipy.stats
import soundfile

import metrics
import published
import texstat

RATE = 22050


def band_by_band(samples, positions, edges):
    """Half-cosine bands of a sound by a plain sum over its frequencies, each from one edge to the next but one."""
    times, n = np.arange(len(samples)), len(samples)
    found = np.zeros((len(edges) - 2, n), complex)
    for k, position in enumerate(positions):
        wave = np.exp(2j * np.pi * k * times / n)
        part = (1 if k in (0, n / 2) else 2) * (samples @ wave.conj()) / n * wave
        for band, (low, high) in enumerate(zip(edges, edges[2:], strict=False)):
            if low < position < high:
                found[band] += np.cos(np.pi * (position - (low + high) / 2) / (high - low)) * part
    return found


def test_texstat_is_what_its_description_says():
    """A tiny sound at the rate of the envelopes, with sums over frequencies and over pairs written out."""
    rate, samples = texstat.ENVELOPE_RATE, np.random.default_rng(0).normal(size=600) ** 3
    frequencies = rate * np.arange(301) / 600
    erb = [9.265 * np.log(1 + hertz / 228.8455) for hertz in (*frequencies, 20, rate / 2)]
    envelopes = np.abs(band_by_band(samples, erb[:-2], np.linspace(erb[-2], erb[-1], 18)))
    logarithms = [-np.inf, *np.log(frequencies[1:])]
    edges = np.linspace(np.log(10), np.log(rate / 4), 8)
    parts = [band_by_band(envelope, logarithms, edges).real for envelope in envelopes]
    moments = [[100 * e.mean(), e.var() / e.mean() ** 2, scipy.stats.skew(e) / 10] for e in envelopes]
    fourth = [np.mean((e - e.mean()) ** 4) / e.var() ** 2 / 100 for e in envelopes]

    def pairs(rows):
        return [scipy.stats.pearsonr(a, b)[0] for a, b in itertools.combinations(rows, 2)]

    expected = [
        np.column_stack([moments, fourth]).T,
        pairs(envelopes),
        [[part.std() / envelope.std() for part in row] for row, envelope in zip(parts, envelopes, strict=True)],
        [pairs([row[band] for row in parts]) for band in range(6)],
        [pairs(row) for row in parts],
    ]
    found = texstat.statistics(samples, rate)
    for group, values in zip(found, expected, strict=True):
        np.testing.assert_allclose(group, values, rtol=1e-6, atol=1e-5)
    others = texstat.statistics(2 * samples, rate)
    loss = sum(np.sqrt(np.mean((a - b) ** 2)) for a, b in zip(found, others, strict=True))
    assert texstat.texstat(samples, 2 * samples, rate) == pytest.approx(loss)
    assert loss == pytest.approx(np.sqrt(np.mean(found[0][0] ** 2) / 4))  # the level counts in the first moment alone


def test_texstat_knows_no_time_and_orders_sounds_as_it_must():
    style, other = metrics.takes("fire", RATE)
    assert texstat.texstat(style, style, RATE) == 0
    assert texstat.texstat(np.roll(style, 2 * 5000), style, RATE) < 0.1  # at its ends, the envelope is resampled
    noise = texstat.texstat(metrics.matched_noise(style), style, RATE)
    assert 0.1 < texstat.texstat(other, style, RATE) < noise / 2


def test_the_envelope_of_a_trembling_tone_has_the_moments_of_a_sine():
    times = np.arange(2 * RATE) / RATE
    tone = (1 + 0.5 * np.cos(2 * np.pi * 20 * times)) * np.sin(2 * np.pi * 3000 * times)
    moments = texstat.statistics(tone, RATE)[0] / texstat.MOMENT_WEIGHTS[:, None]
    loudest = moments[:, moments[0].argmax()]
    assert loudest[1:] == pytest.approx([0.5**2 / 2, 0, 1.5], abs=0.01)


def test_texstat_refuses_other_rates():
    with pytest.raises(ValueError, match="sample_rate 16000 is not a multiple of 11025; resample to 22050 or 44100"):
        texstat.texstat(np.ones(10), np.ones(10), 16000)


# Sets --------------------------------------------------------------------------------------------

FAKE = published.PublishedSet(
    method="Theirs",
    repository="example.org/theirs",
    licence="MIT",
    recording="*.wav",
    output="*-theirs.wav",
    figures={"Loss": {"one": 1.25, "two": 3.75}},
)


@pytest.fixture
def folder(tmp_path):
    """A set of two sounds, of which "one" was copied, 6 dB quieter."""
    for seed, name in enumerate(("one", "two")):
        random = np.random.default_rng(seed)
        recording, made = random.normal(0, 0.1, (2, 7 * RATE)) * np.repeat(random.random((2, 70)) ** 3, 2205, axis=1)
        soundfile.write(tmp_path / f"{name}.wav", recording, RATE, subtype="FLOAT")
        soundfile.write(
            tmp_path / f"{name}-theirs.wav", recording / 2 if name == "one" else made, RATE, subtype="FLOAT"
        )
    return tmp_path


def test_a_set_is_read_at_one_time_and_one_level(folder):
    whole, _ = soundfile.read(folder / "one.wav")
    recording, other, output = published.read_sounds(FAKE, folder, "one")
    begin, length = 5512, 71663  # 0.25 s, and half of the 6.5 s between
    assert len(recording) == len(other) == len(output) == length
    ratio = recording / whole[begin:][:length]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    np.testing.assert_allclose(output, recording, atol=1e-5)
    assert np.corrcoef(other, whole[-begin - length : -begin])[0, 1] > 0.9999
    assert np.std(other) == pytest.approx(np.std(recording), rel=1e-3)


def test_what_a_set_lacks_is_named(folder):
    (folder / "two-theirs.wav").unlink()
    with pytest.raises(ValueError, match=r"two-theirs.wav is missing; download the set from example.org/theirs into"):
        published.compare(FAKE, folder)
    soundfile.write(folder / "two-theirs.wav", np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    with pytest.raises(ValueError, match="two is too short: 2 takes of more than 2 s are needed; take a longer"):
        published.compare(FAKE, folder)


@pytest.mark.slow
def test_the_table_has_every_method_and_what_was_published(folder):
    """A copy has distance 0, and the rest of a perfect score; columns without a figure are left out."""
    title, _, *rows = published.compare(FAKE, folder, num_steps=2, refine_steps=2, filters=8)
    titles, *cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in (title, *rows))
    table = {tuple(row[:2]): dict(zip(titles[2:], row[2:], strict=True)) for row in cells}
    methods = ("another take", "Theirs", "default")
    assert list(table) == list(itertools.product(("one", "two", "**mean**"), methods))
    copied = table["one", "Theirs"]
    perfect = {"distance ratio": "0.00", "listener": "1.00", "copy score": "1.00", "TexStat": "0.00"}
    assert {name: copied[name] for name in perfect} == perfect and "rhythm" not in titles
    losses = {key: row["published Loss"] for key, row in table.items() if row["published Loss"]}
    assert losses == {("one", "Theirs"): "1.25", ("two", "Theirs"): "3.75", ("**mean**", "Theirs"): "2.50"}
    means = [np.mean([float(table[name, method]["TexStat"]) for name in ("one", "two")]) for method in methods]
    assert [float(table["**mean**", method]["TexStat"]) for method in methods] == pytest.approx(means, abs=0.011)


@pytest.mark.parametrize("name", published.SETS)
def test_every_set_names_its_source_and_each_figure_of_each_sound(name):
    chosen = published.SETS[name]
    assert chosen.repository and chosen.licence and chosen.method
    assert chosen.recording.count("*") == chosen.output.count("*") == 1
    assert len({tuple(figure) for figure in chosen.figures.values()}) == 1
