"""A listening test without names, as one page, and what its answers say.

Conventions
  runs    dict from the path of a run's json file to its report, see past.find_runs; or, for any sound files,
          {sound: {method: path}}
  sound   the name of a recording; every sound is one trial, in which all methods are judged
  method  what made a stimulus; several runs of one method are several stimuli
"""

import base64
import codecs
import csv
import io
import itertools
import json
import secrets
from pathlib import Path

import jinja2
import numpy as np
import scipy  # loads scipy.stats where it is used: that takes a second
import soundfile

from support.checks import check_choice, is_file, printable
from support.desk import past, pictures, players
from support.desk.saving import write_whole
from support.desk.table import settings_in_words
from support.sound.files import encoded, load_audio
from support.start import matched_noise

REFERENCE = "reference"  # the method of the hidden recording
# Least and most rating, and the least for the hidden recording, for "mushra" as ITU-R BS.1534 says.
SCALES = {"mushra": (0, 100, 90), "five": (1, 5, 4), "ab": (0, 1, 1)}
MOST_BYTES = 2**24  # of a csv: 100,000 answers
COLUMNS = ["page", "listener", "scale", "trial", "stimulus", "sound", "method", "rating"]
OF_THE_SOUND = {"STYLE_FILENAME", "CONTENT_FILENAME", "style_blend", "offset", "duration", "result_duration", "seed"}


def noise(samples):
    """Return noise with the spectrum and the level of samples [shape=(n,) or (2, n)]: the low anchor."""
    return matched_noise(np.atleast_2d(samples).mean(axis=0), length=samples.shape[-1])


ANCHORS = {"noise": noise}


def page(runs, path, *, reference=None, anchors=ANCHORS, scale="mushra", question="How much is it like the reference?"):
    """Write a page for listeners: one HTML file that needs no server and no network.

    Every browser draws an order of its own, and keeps the answers until they are downloaded as csv. All sounds of a
    trial have the level (root mean square) and the length of the quietest and the shortest one, and lose nothing.

    Parameters
    ----------
    reference : dict or None
        Paths of the recordings by sound; None: the style of the runs, in their excerpt.
    anchors : dict from a name to a function
        Each makes a stimulus of the samples [shape=(n,), or (2, n) in stereo] of the reference.
    scale : str
        "mushra" (0 to 100), "five" (1 to 5), or "ab": pairs of all stimuli, of which one is chosen.
    """
    check_choice("scale", scale, SCALES)
    trials, references = _trials(runs)
    references |= {sound: (file, {}) for sound, file in (reference or {}).items()}
    if missing := [sound for sound in trials if sound not in references]:
        raise ValueError(f"no reference for {missing[0]!r}; give reference={{{missing[0]!r}: 'its recording.wav'}}")
    taken = {REFERENCE, *anchors}
    if not trials or any(method in taken for found in trials.values() for method, _ in found):
        raise ValueError(f"runs must hold at least one run, and no method named {' or '.join(sorted(taken))}")
    key, sounds, made = {}, {}, []
    for sound, found in trials.items():
        pairs, rate = _load(found, references[sound], anchors)
        ids = [secrets.token_hex(8) for _ in pairs]  # the first one is heard openly
        for each, (method, samples) in zip(ids, pairs, strict=True):
            key[each] = sound, method
            sounds[each] = players.data_uri("audio/flac", encoded(samples, rate, "flac"))
        hidden = sorted(ids[1:])
        groups = itertools.combinations(hidden, 2) if scale == "ab" else [hidden]
        made += [{"reference": ids[0], "stimuli": list(group)} for group in groups]
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    text = (
        jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        .from_string(template)
        .render(
            page=secrets.token_hex(4),
            scale=scale,
            limits=SCALES[scale][:2],
            key=base64.b64encode(json.dumps(key).encode()).decode(),
            trials=made,
            sounds=dict(sorted(sounds.items())),  # their random names hide the order of the methods
            columns=COLUMNS,
            question=question,
            switching=players.SCRIPT.replace("SELECTOR", "#desk"),
        )
    )
    write_whole(Path(path), lambda partial: partial.write_text(text, encoding="utf-8"))


def _trials(runs):
    # By sound: pairs of a method and a file; and the path and the excerpt of each recording.
    if not all(isinstance(path, Path) for path in runs):
        return {sound: list(files.items()) for sound, files in runs.items()}, {}
    trials, references = {}, {}
    names = [name for name in past.differing_settings(runs) if name not in OF_THE_SOUND] if runs else []
    for path, report in runs.items():
        settings, effective = report["settings"], past.effective_settings(report)
        styles, content = settings["STYLE_FILENAME"], settings["CONTENT_FILENAME"]
        styles = styles if isinstance(styles, list) else [styles]
        sound = ", ".join(Path(each).stem for each in styles)
        sound = f"{Path(content).stem} in {sound}" if content else sound
        method = ", ".join(settings_in_words(effective, names)) or settings["recipe"]
        trials.setdefault(sound, []).append((method, path.with_suffix(".wav")))
        if len(styles) == 1:
            references[sound] = styles[0], dict(offset=settings["offset"], duration=settings["duration"])
    return trials, references


def _load(found, reference, anchors):
    # Pairs of a method and samples, and their rate: the reference twice, the anchors, and the sounds that are judged.
    heads = [soundfile.info(file) for _, file in found]
    rate, mono = max(head.samplerate for head in heads), all(head.channels == 1 for head in heads)
    file, excerpt = reference
    judged = [(method, load_audio(path, sample_rate=rate, mono=mono)) for method, path in found]
    recording = load_audio(file, sample_rate=rate, mono=mono, **excerpt)
    length = min(samples.shape[-1] for samples in (recording, *(samples for _, samples in judged)))
    made = [(name, anchor(recording[..., :length])) for name, anchor in anchors.items()]
    pairs = [(REFERENCE, recording)] * 2 + made + judged
    sounds = {number: samples[..., :length] for number, (_, samples) in enumerate(pairs)}
    sounds = {number: gain * sounds[number] for number, gain in players.gains(sounds).items()}
    peak = max(np.abs(samples).max() for samples in sounds.values())
    return [(method, 0.99 / peak * sounds[number]) for number, (method, _) in enumerate(pairs)], rate


def result(csvs, *, most_failed=0.15):
    """Return what listeners answered: means, who was left out, and a picture.

    Every listener counts once in a mean. The interval of 95 % (Student's t) is that of the mean over listeners; it is
    NaN for one listener. Left out are listeners who rate the hidden reference too low ("mushra": below 90, "five":
    below 4, "ab": not chosen) in more than a share most_failed of their trials.

    Returns
    -------
    rows : list of dict
        "method", "sound" (None: all sounds), "mean", "low", "high", "listeners"; pandas.DataFrame(rows) makes a frame.
    failed : dict
        From the listeners who were left out to the share of their trials that failed.
    figure : matplotlib.figure.Figure
    """
    if not csvs:
        raise ValueError("there is no csv; give the paths of the files that listeners sent, such as glob.glob('*.csv')")
    answers = [answer for path in csvs for answer in _read(path)]
    places = [(answer["page"], answer["listener"], answer["trial"], answer["stimulus"]) for answer in answers]
    if len({answer["scale"] for answer in answers}) != 1 or len(set(places)) < len(places):
        raise ValueError("csvs must hold answers on one scale, and every file once; give other files")
    low, high, least = SCALES[answers[0]["scale"]]
    missed = {}
    for answer in answers:
        if answer["method"] == REFERENCE:
            missed.setdefault(answer["listener"], []).append(answer["rating"] < least)
    failed = {listener: float(np.mean(each)) for listener, each in missed.items() if np.mean(each) > most_failed}
    kept = [answer for answer in answers if answer["listener"] not in failed]
    if not kept:
        raise ValueError(f"no listener heard the hidden reference: {failed}; ask others, or set most_failed=1")
    pairs = dict.fromkeys((answer["method"], sound) for answer in kept for sound in (None, answer["sound"]))
    rows = [_row(kept, method, sound) for method, sound in pairs]
    rows.sort(key=lambda row: (row["sound"] or "", -row["mean"]))  # first all sounds, the best method first
    return rows, failed, pictures.plot_ratings(rows, (low, high))


def _row(answers, method, sound):
    ratings = {}
    for answer in answers:
        if answer["method"] == method and sound in (None, answer["sound"]):
            ratings.setdefault(answer["listener"], {}).setdefault(answer["sound"], []).append(answer["rating"])
    means = [np.mean([np.mean(each) for each in by_sound.values()]) for by_sound in ratings.values()]
    mean, count = float(np.mean(means)), len(means)
    half = scipy.stats.t.ppf(0.975, count - 1) * scipy.stats.sem(means) if count > 1 else np.nan
    return dict(method=method, sound=sound, mean=mean, low=mean - half, high=mean + half, listeners=count)


def _read(path):
    name = printable(path)
    if not is_file(path):
        raise FileNotFoundError(f"{name} is not a file; give the csv that a listener downloaded")
    try:
        if Path(path).stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES >> 20} MB")
        content = Path(path).read_bytes()
        text = content.decode("utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
        first = text.partition("\n")[0]  # a spreadsheet saves UTF-16 with tabs
        answers = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in first else ","))
    except (OSError, ValueError, csv.Error) as error:  # of bytes that are not text, and of endless fields
        raise ValueError(f"{name} is not a csv of a listening page ({error}); download the csv again") from error
    if not answers or set(answers[0]) != set(COLUMNS) or any(None in row.values() for row in answers):
        raise ValueError(f"{name} is not a csv of a listening page; its columns must be {', '.join(COLUMNS)}")
    for answer in answers:
        check_choice(f"{name}: scale", answer["scale"], SCALES)
        low, high, _ = SCALES[answer["scale"]]
        if answer["rating"] not in map(str, range(low, high + 1)):
            raise ValueError(f"{name}: a rating is not a whole number from {low} to {high}; download the csv again")
        answer["rating"] = int(answer["rating"])
    return answers
