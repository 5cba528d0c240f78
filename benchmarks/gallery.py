"""A page to listen to the benchmarks: python benchmarks/gallery.py writes benchmarks/gallery.html.

With --blind, a second page beside it asks for ratings of three textures without names, see support/desk/listening.py.

The page holds the sounds that quality.py, truth.py, rhythm.py and masks.py saved under outputs/benchmarks/, as MP3,
beside small spectrograms and the measured figures. The page is one file and loads nothing else. The rows in FIRST stand
on top, with large pictures. The page that is already there keeps every byte of its sounds, unless the folder holds the
same sounds: one benchmark is enough to add its rows, or one method's sounds to rows. A sound that stays keeps its
picture, too, whose colours are those of the row that it was made with. Delete the page to begin with an empty one.

A folder is one row of the page:

  truth/<A melody>, <B melody>/<method>.flac         "content", "style", "default", "truth", "Gatys recipe"
  rhythm/<texture>/<method>.flac                     "recording", "default without rhythm", "default"
  ringing/<texture>/<method>.flac                    "recording", "another take", "default"
  textures/<texture>/<method>.flac                   "recording", "another take", "Gatys recipe", "default"
  transfers/<content>, <style>/<method>.flac         "content", "style", "mosaic", "default, content_weight 3" ...
  only_a_part/<title>/<method>.flac                  "the recording", "with a gap of 0.8 s", "filled" ...
  figures.json in each of these folders              {method: {name of the figure: number}}
"""

import argparse
import fnmatch
import html
import io
import json
import re
from pathlib import Path

import jinja2
import librosa
import matplotlib.pyplot as plt
import numpy as np

import metrics
from report import ROOT
from support.desk import listening
from support.desk.players import data_uri
from support.sound.analysis import Analysis
from support.sound.files import encoded, load_audio
from support.sound.transforms import STFT

RATE = 22050  # Hz; of the sounds in the page
LARGEST = 12_000_000  # bytes of the page
N_BANDS = 80  # rows of a spectrogram
# The sounds of a row, in this order. Of several sounds that match a pattern, the middle one is shown.
SHOWN = {
    "truth": ("content", "style", "default", "truth", "Gatys recipe"),
    "rhythm": ("recording", "default without rhythm", "default"),
    "ringing": ("recording", "another take", "default"),
    "textures": ("recording", "another take", "Gatys recipe", "default"),
    "transfers": ("content", "style", "mosaic*", *(f"default, content_weight {weight}" for weight in (10, 30, 100))),
    "only_a_part": ("the recording", "with a gap*", "filled", "speech", "rain", "fire", "* becomes *", "* above *"),
}
HEADINGS = {
    "truth": "Melodies for another instrument",
    "rhythm": "Rhythms",
    "ringing": "Bells, chimes and strings",
    "textures": "Textures",
    "transfers": "Transfers",
    "only_a_part": "Only a part changes",
}
# Rows on top of the page, and their titles there.
FIRST = {
    "truth/trumpet scarborough_fair, cello twinkle": "A melody of a trumpet, with the sound of a cello",
    "rhythm/tabla": "New tabla, in time",
    "ringing/steel_drums": "New strokes of steel drums",
}
# What stands below the titles of rows.
LINES = {
    "only_a_part/birdsong with a filled gap": "In the middle, 0.8 s are missing. A new sound in the style of the rest "
    "fills the gap.",
    "only_a_part/brook with a filled gap": "The same is done to a brook.",
    "only_a_part/rain becomes fire": "The two recordings are styles. The new sound begins as rain, and ends as fire.",
    "only_a_part/speech with rain above 2 kHz": "Above 2 kHz, the voice takes the sound of rain; below, the voice "
    "stays as it is.",
}
CHOSEN = {  # of these kinds, only some rows are shown: of the half that no setting was chosen on
    "truth": (
        "guitar twinkle, trumpet scarborough_fair",
        "flute jesu, vibraphone twinkle",
        "trumpet scarborough_fair, cello twinkle",
        "vibraphone scarborough_fair, flute elise",
    ),
    "rhythm": ("tabla", "metronome", "congas", "claves"),
    "ringing": ("steel_drums", "glockenspiel_chimes", "music_box", "vibraphone_chimes"),
}
BLIND = ("birds", "babble", "water_stream")  # textures whose methods a listener can judge without their names
# The sounds whose titles begin so are this project's, and are marked.
MADE = ("default", "filled", "rain becomes fire", "speech with rain")
EXPLANATIONS = {
    "distance to the truth": "the difference between the spectrograms of this sound and of the truth, as a share of "
    "the content's own. Lower is nearer to the truth.",
    "style left": "the distance between the texture statistics of this sound and of the style, as a share of the "
    "content's. Lower is nearer to the style.",
    "like B": "how alike this sound and the style are to the listener, see below.",
    "onsets kept": "how well the onsets follow the onsets of the content. 1: exactly.",
    "chroma kept": "how well the pitch classes follow the pitch classes of the content. 1: exactly.",
    "pitch error [cents]": "the median difference between the pitch of this sound and of the truth; 100 cents are a "
    "semitone.",
    "rhythm: its share": "the height of the strongest beat of this sound, divided by that of the recording. 1: the "
    "beat is as strong.",
    "rhythm: correlation": "how alike the beats of this sound and of the recording are. 1: the same.",
    "distance ratio": "the distance between the texture statistics of this sound and of the recording; 1 is the "
    "distance of another take of the same recording. Lower is better.",
    "listener": "how alike this sound and the recording are to a network that was trained to sort sound effects. "
    "1: the same. 0: as different as any two sounds.",
    "its share": "the listener's number, divided by the number for another take.",
    "kernel distance": "how far apart the parts of this sound and of the recording are to the listener, as a whole. 0: "
    "the same.",
    "copy score": "how much of this sound is copied from the recording, from 0 to 1.",
    "spectrum [dB]": "the difference between the average spectra of this sound and of the recording.",
    "distance to the style": "the distance between the texture statistics of this sound and of the style. Lower is "
    "nearer to the style.",
    "like the style": "how alike this sound and the style are to the listener.",
    "like the content": "how alike this sound and the content are to the listener.",
    "rhythm kept": "how well the onsets follow the onsets of the content. 1: exactly.",
    "pitch kept": "how well the pitch classes follow the pitch classes of the content. 1: exactly.",
}
PAGE = Path(__file__).with_name("gallery_page.html")  # a template of jinja2
# A player in a page that the template wrote.
PLAYER = re.compile(
    r'<figure(?P<made> class="made")?>\s*<figcaption>(?P<title>.*?)</figcaption>.*?<img src="(?P<picture>.*?)"[^>]*'
    r'width: (?P<width>\d+)%.*?<audio [^>]*src="(?P<audio>.*?)"(?P<figures>.*?)</figure>',
    re.DOTALL,
)


# 1. Files ----------------------------------------------------------------------------------------


def find_rows(folder):
    """Return the rows of the page: a dict from the heading to a dict from the row's folder to its sounds' paths."""
    groups = {}
    for kind, patterns in SHOWN.items():
        rows = [row for row in Path(folder, kind).glob("*") if row.is_dir()]
        rows = [row for row in rows if row.name in CHOSEN.get(kind, [row.name])]
        tuned = [row for row in rows if kind == "textures" and row.name in metrics.TUNING]
        for row in sorted(rows, key=lambda row: (row in tuned, row)):
            heading = "Textures that settings were chosen on" if row in tuned else HEADINGS[kind]
            if paths := choose(row, patterns):
                groups.setdefault(heading, {})[row] = paths
    return groups


def choose(row, patterns):
    """Return the paths of the sounds in a folder that match the patterns, in the order of the patterns."""
    paths = sorted((path for path in row.glob("*") if path.suffix in (".flac", ".wav")), key=numbers_in_name)
    matches = ([path for path in paths if fnmatch.fnmatchcase(path.stem, pattern)] for pattern in patterns)
    return [found[len(found) // 2] for found in matches if found]


def numbers_in_name(path):
    """Return the numbers in a file's name, to sort by."""
    return [float(number) for number in re.findall(r"\d+\.?\d*", path.stem)]


def read_figures(row):
    """Return the figures of a row as text: a dict from the method to a dict from the figure's name to its value."""
    path = row / "figures.json"
    figures = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {
        method: {name: f"{value:.2f}" for name, value in values.items() if value is not None and np.isfinite(value)}
        for method, values in figures.items()
    }


# 2. The page -------------------------------------------------------------------------------------


def make_page(folder, *, old="", blind=None):
    """Return the page as HTML, from the sounds in a folder and the rows of an old page that the folder doesn't hold.

    blind: the name of a page beside it; None: that of the old page, if any.
    """
    rows = read_rows(old)
    for place, row in make_rows(folder).items():
        rows[place] = row | dict(sounds=merge_sounds(place.partition("-")[0], row, rows.get(place)))
    if not rows:
        raise FileNotFoundError(
            f"{folder} holds no sounds; make them first: python benchmarks/quality.py textures, and transfers, "
            "python benchmarks/truth.py reporting, python benchmarks/rhythm.py rhythm, and ringing, "
            "and python benchmarks/masks.py sounds"
        )
    blind = blind or next(iter(re.findall(r'<p><a href="([^#"]*)">Judge', old)), None)
    first = [rows.pop(place) for place in map(path_to_place, FIRST) if place in rows]
    groups, shown = {}, [sound for row in (*first, *rows.values()) for sound in row["sounds"]]
    for row in rows.values():
        groups.setdefault(row["heading"], []).append(row)
    names = {name for sound in shown for name in sound["figures"]}
    meanings = {name: meaning for name, meaning in EXPLANATIONS.items() if name in names}
    lines = {path_to_place(path): line for path, line in LINES.items()}
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(PAGE.read_text(encoding="utf-8")).render(
        first=first, groups=groups, meanings=meanings, lines=lines, blind=blind
    )
    check_size(page)
    return page


def make_rows(folder):
    """Return the rows of the sounds in a folder: a dict from a row's place in the page to what the page shows."""
    made = {}
    for heading, rows in find_rows(folder).items():
        for row, paths in rows.items():
            path = f"{row.parent.name}/{row.name}"
            place, title = path_to_place(path), FIRST.get(path, row_title(row))
            sounds = make_sounds(paths, read_figures(row))
            made[place] = dict(heading=heading, title=title, place=place, sounds=sounds)
    return made


def read_rows(page):
    """Return the rows of a page that this script wrote, as make_rows does; no sound is decoded."""
    rows, heading = {}, None
    for part in re.findall(r"<h2>.*?</h2>|<section.*?</section>", page, re.DOTALL):
        title = html.unescape(re.search(r"<h[23]>(.*?)</h[23]>", part)[1])
        if part.startswith("<h2>"):
            heading = title
            continue
        place = re.match(r'<section id="(.*?)"', part)[1]
        sounds = [read_sound(player) for player in PLAYER.finditer(part)]
        rows[place] = dict(heading=heading or HEADINGS[place.split("-")[0]], title=title, place=place, sounds=sounds)
    found, held = sum(len(row["sounds"]) for row in rows.values()), page.count("<audio ")
    if found != held:
        raise ValueError(
            f"only {found} of the {held} sounds of the old page can be read; write to another file by --page"
        )
    return rows


def merge_sounds(kind, row, old):
    """Return the sounds of a row, and those of the old page's row in the places that the new row leaves empty."""

    def of_pattern(row, pattern):
        sounds = row["sounds"] if row else []
        return [sound for sound in sounds if fnmatch.fnmatchcase(sound["title"].partition(":")[0], pattern)]

    return [sound for pattern in SHOWN[kind] for sound in of_pattern(row, pattern) or of_pattern(old, pattern)]


def read_sound(player):
    """Return what a page shows of a sound, as make_sounds does, from a match of PLAYER."""
    figures = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", player["figures"])
    return dict(
        title=html.unescape(player["title"]),
        made=bool(player["made"]),
        audio=player["audio"],
        picture=player["picture"],
        width=player["width"],
        figures={html.unescape(name): value for name, value in figures},
    )


def write_blind(folder, path):
    """Write the page without names, from the sounds in a folder."""
    rows = {name: Path(folder, "textures", name) for name in BLIND}
    runs = {name: {path.stem: path for path in choose(row, SHOWN["textures"][1:])} for name, row in rows.items()}
    if missing := [name for name, paths in runs.items() if not paths]:
        raise FileNotFoundError(
            f"{folder} holds no texture of {missing[0]}; make it: python benchmarks/quality.py textures"
        )
    listening.page(runs, path, reference={name: row / "recording.flac" for name, row in rows.items()})


def path_to_place(path):
    """Return the name of a row's place in the page: letters, digits and hyphens."""
    return re.sub(r"\W+", "-", path)


def row_title(row):
    """Return the title of a row from its folder's name."""
    if row.parent.name == "truth":
        (a, melody), (b, _) = (each.split() for each in row.name.split(", "))
        return f"{melody} on the {a}, in the style of the {b}".replace("_", " ")
    content, comma, style = row.name.replace("_", " ").partition(", ")
    return f"{content} in the style of {style}" if comma else content


def sound_title(path):
    """Return the title of a sound from its file's name, with the instrument that plays a melody."""
    if path.parent.parent.name == "truth":
        a, b = (each.split()[0] for each in path.parent.name.split(", "))
        return path.stem + {"content": f": {a}", "style": f": {b}", "truth": f": {b}"}.get(path.stem, "")
    return path.stem


def make_sounds(paths, figures):
    """Return what the page shows of the sounds of one row, a list of dicts."""
    sounds = [load_audio(path, sample_rate=RATE) for path in paths]
    longest = max(len(samples) for samples in sounds)
    return [
        dict(
            title=sound_title(path),
            made=path.stem.startswith(MADE),
            audio=data_uri("audio/mpeg", encoded(samples, RATE, "mp3", loss=0.7)),  # 56 kbit/s
            picture=picture,
            width=round(100 * len(samples) / longest),
            figures=figures.get(path.stem, {}),
        )
        for path, samples, picture in zip(paths, sounds, draw(sounds), strict=True)
    ]


def check_size(page):
    """Raise ValueError if a page is too large."""
    size = len(page.encode())
    if size > LARGEST:
        raise ValueError(
            f"the page takes {size / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f} MB; show fewer sounds: remove folders, "
            "or names from SHOWN in gallery.py"
        )


def draw(sounds):
    """Return the spectrograms of sounds as data URIs with JPEG inside, all on one colour scale."""
    analysis = Analysis(transform=STFT(sample_rate=RATE, n_fft=1024, hop_length=256))
    bands = librosa.filters.mel(sr=RATE, n_fft=1024, n_mels=N_BANDS, norm=None)
    bands /= bands.sum(axis=1, keepdims=True)
    spectrograms = [analysis.compress(bands @ analysis.transform.magnitude(samples)) for samples in sounds]
    top, pictures = max(spectrogram.max() for spectrogram in spectrograms), []
    for spectrogram in spectrograms:
        file = io.BytesIO()
        colours = dict(cmap="magma", vmin=0, vmax=top, origin="lower")
        plt.imsave(file, spectrogram, format="jpg", pil_kwargs=dict(quality=70), **colours)
        pictures.append(data_uri("image/jpeg", file.getvalue()))
    return pictures


def main():
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs/benchmarks", help="where the sounds are")
    parser.add_argument("--page", type=Path, default=ROOT / "benchmarks/gallery.html", help="the page to write")
    parser.add_argument("--blind", type=Path, help="the page without names to write, in the same folder")
    arguments = parser.parse_args()
    try:
        old = arguments.page.read_text(encoding="utf-8") if arguments.page.is_file() else ""
        page = make_page(arguments.folder, old=old, blind=arguments.blind and arguments.blind.name)
        if arguments.blind:
            write_blind(arguments.folder, arguments.blind)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    arguments.page.write_text(page, encoding="utf-8")
    print(f"{arguments.page}: {len(page.encode()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
