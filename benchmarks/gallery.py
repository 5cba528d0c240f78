"""A page to listen to the benchmarks: python benchmarks/gallery.py writes benchmarks/gallery.html.

The page holds the sounds that quality.py saved under outputs/benchmarks/, as MP3, beside small spectrograms and the
measured figures. The page is one file and loads nothing else. A folder is one row of the page:

  textures/<texture>/<method>.flac                   "recording", "another take", "Gatys recipe", "default"
  transfers/<content>, <style>/<method>.flac         "content", "style", "mosaic", "default, content_weight 3" ...
  figures.json in each of these folders              {method: {name of the figure: number}}
"""

import argparse
import fnmatch
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
from support.desk.players import data_uri
from support.sound.analysis import Analysis
from support.sound.files import encoded, load_audio
from support.sound.transforms import STFT

RATE = 22050  # Hz; of the sounds in the page
LARGEST = 12_000_000  # bytes of the page
N_BANDS = 80  # rows of a spectrogram
# The sounds of a row, in this order. Of several sounds that match a pattern, the middle one is shown.
SHOWN = {
    "textures": ("recording", "another take", "Gatys recipe", "default"),
    "transfers": ("content", "style", "mosaic*", *(f"default, content_weight {weight}" for weight in (10, 30, 100))),
}
EXPLANATIONS = {
    "distance ratio": "the distance between the texture statistics of this sound and of the recording; 1 is the "
    "distance of another take of the same recording. Lower is better.",
    "listener": "how alike this sound and the recording are to a network that was trained to sort sound effects. "
    "1: the same. 0: as different as any two sounds.",
    "its share": "the listener's number, divided by the number for another take.",
    "copy score": "how much of this sound is copied from the recording, from 0 to 1.",
    "spectrum [dB]": "the difference between the average spectra of this sound and of the recording.",
    "distance to the style": "the distance between the texture statistics of this sound and of the style. Lower is "
    "nearer to the style.",
    "like the style": "how alike this sound and the style are to the listener.",
    "like the content": "how alike this sound and the content are to the listener.",
    "rhythm kept": "how well the onsets follow the onsets of the content. 1: exactly.",
    "pitch kept": "how well the pitch classes follow the pitch classes of the content. 1: exactly.",
}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Neural style transfer on audio: the sounds</title>
<style>
  :root { color-scheme: light dark; --line: light-dark(#ddd, #444); --soft: light-dark(#595959, #aaa); }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 0 auto; padding: 1rem; }
  h1 { font-size: 1.6rem; line-height: 1.2; } h2 { margin: 2.5rem 0 0; } h3 { margin: 0 0 .5rem; }
  p, .meanings { max-width: 46rem; }
  nav { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1rem; }
  nav b, nav a { display: block; }
  section { border-top: 1px solid var(--line); margin-top: 1.25rem; padding-top: 1rem; }
  .row { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); column-gap: .75rem; }
  figure { display: grid; grid-row: span 4; grid-template-rows: subgrid; row-gap: 0; margin: 0 0 1rem; min-width: 0; }
  figure:only-child { max-width: 25rem; }
  figcaption { align-self: end; font-size: .9rem; font-weight: 600; line-height: 1.3; margin-bottom: .3rem; }
  .picture { background: var(--line); height: 90px; }
  .picture img { display: block; height: 100%; }
  audio { display: block; width: 100%; height: 38px; margin: .3rem 0; }
  figure dl { color: var(--soft); display: grid; grid-template-columns: 1fr auto; align-content: start; }
  figure dl { font-size: .8rem; margin: 0; }
  figure dd { margin: 0; font-variant-numeric: tabular-nums; }
  .meanings dt { font-weight: 600; } .meanings dd { margin: 0 0 .5rem; }
  @media (max-width: 480px) { .row { grid-template-columns: 1fr 1fr; } }
</style>
</head>
<body>
<h1>Neural style transfer on audio: the sounds</h1>
<p>Every player holds one sound. The picture above a player is its spectrogram: time runs to the right, and pitch
runs upwards. All pictures of a row have the same colours and the same scale of time.</p>
<p><b>Textures.</b> A texture is a new sound that resembles a recording. <i>Gatys recipe</i> is the baseline from the
literature: one network with random filters, and Gram matrices. <i>Default</i> is this project's recipe: several
networks on bands and random patterns of neighbouring frequencies, and distributions instead of Gram matrices.
<i>Another take</i> is a later part of the same recording.</p>
<p><b>Transfers.</b> A transfer gives a content the sound of a style. The default recipe has the setting
<i>content_weight</i>: a higher weight keeps more of the content. A <i>mosaic</i> is the baseline: the
mosaic follows the content with short grains that are cut out of the style (Driedger, Prätzlich and Müller 2015).</p>
<p>The sounds are compressed to MP3. The figures were measured before the compression.</p>
{% if meanings %}
<details>
<summary>What the figures mean</summary>
<dl class="meanings">
{% for name, meaning in meanings.items() %}<dt>{{ name }}</dt><dd>{{ meaning }}</dd>
{% endfor %}</dl>
</details>
{% endif %}
<h2>Contents</h2>
<nav>
{% for heading, rows in groups.items() %}<div><b>{{ heading }}</b>
{% for row in rows %}<a href="#{{ row.place }}">{{ row.title }}</a>
{% endfor %}</div>
{% endfor %}</nav>
{% for heading, rows in groups.items() %}
<h2>{{ heading }}</h2>
{% for row in rows %}
<section id="{{ row.place }}">
<h3>{{ row.title }}</h3>
<div class="row">
{% for sound in row.sounds %}
<figure>
<figcaption>{{ sound.title }}</figcaption>
<div class="picture"><img src="{{ sound.picture }}" alt="spectrogram" style="width: {{ sound.width }}%"></div>
<audio controls controlslist="nodownload noplaybackrate" preload="none" src="{{ sound.audio }}"
  aria-label="{{ row.title }}: {{ sound.title }}"></audio>
{% if sound.figures %}
<dl>{% for name, value in sound.figures.items() %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
{% endif %}
</figure>
{% endfor %}
</div>
</section>
{% endfor %}
{% endfor %}
<script>
  document.addEventListener("play", event => {
    for (const audio of document.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
  }, true);
</script>
</body>
</html>
"""


# 1. Files ----------------------------------------------------------------------------------------


def find_rows(folder):
    """Return the rows of the page: a dict from the heading to a dict from the row's folder to its sounds' paths."""
    groups = {}
    for kind, patterns in SHOWN.items():
        for row in sorted(path for path in Path(folder, kind).glob("*") if path.is_dir()):
            tuned = kind == "textures" and row.name in metrics.TUNING
            heading = "Textures that settings were chosen on" if tuned else kind.capitalize()
            if paths := choose(row, patterns):
                groups.setdefault(heading, {})[row] = paths
    if not groups:
        raise FileNotFoundError(
            f"{folder} holds no sounds; make them first: python benchmarks/quality.py textures, "
            "and python benchmarks/quality.py transfers"
        )
    return {heading: groups[heading] for heading in sorted(groups)}


def choose(row, patterns):
    """Return the paths of the sounds in a folder that match the patterns, in the order of the patterns."""
    paths = sorted((path for path in row.iterdir() if path.suffix in (".flac", ".wav")), key=numbers_in_name)
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


def make_page(folder):
    """Return the page as HTML, from the sounds in a folder."""
    groups, names, place = {}, {}, 0
    for heading, rows in find_rows(folder).items():
        for row, paths in rows.items():
            sounds = make_sounds(paths, read_figures(row))
            names |= dict.fromkeys(name for sound in sounds for name in sound["figures"])
            place += 1
            made = dict(title=row_title(row), place=f"row-{place}", sounds=sounds)
            groups.setdefault(heading, []).append(made)
    meanings = {name: meaning for name, meaning in EXPLANATIONS.items() if name in names}
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(PAGE).render(groups=groups, meanings=meanings)
    check_size(page)
    return page


def row_title(row):
    """Return the title of a row from its folder's name."""
    content, comma, style = row.name.replace("_", " ").partition(", ")
    return f"{content} in the style of {style}" if comma else content


def make_sounds(paths, figures):
    """Return what the page shows of the sounds of one row, a list of dicts."""
    sounds = [load_audio(path, sample_rate=RATE) for path in paths]
    longest = max(len(samples) for samples in sounds)
    return [
        dict(
            title=path.stem,
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
    arguments = parser.parse_args()
    try:
        page = make_page(arguments.folder)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    arguments.page.write_text(page, encoding="utf-8")
    print(f"{arguments.page}: {len(page.encode()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
