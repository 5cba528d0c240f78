"""Sounds to hear in a browser: a player for each, and buttons that switch between the players.

The output is plain HTML with a script of its own, and holds all sounds. Without the script, the players remain.

Conventions
  sounds  dict from title to samples [shape=(n,), or (2, n) in stereo]
"""

import base64
import html
import urllib.parse
import uuid
from pathlib import Path

import IPython.display
import numpy as np

from support.checks import check_choice
from support.sound.files import KINDS, encoded

SILENT = 1e-4  # root mean square, -80 dBFS; a sound below has no level that others could be brought to

# The buttons are hidden until the script runs, because they do nothing without the script. An output that is shown
# twice has its id twice, hence the loop. JupyterLab's shortcuts would take the keys of a focused button; the attribute
# data-lm-suppress-shortcuts leaves the keys to the button.
SCRIPT = """
for (const desk of document.querySelectorAll('SELECTOR')) {
    if (desk.dataset.ready) continue;
    desk.dataset.ready = "yes";
    const players = [...desk.querySelectorAll("audio")], row = desk.querySelector("[hidden]");
    const [play, ...buttons] = row.querySelectorAll("button"), [level, repeat] = row.querySelectorAll("input");
    let heard = players[0];
    const show = () => {
        play.textContent = heard.paused ? "Play" : "Pause";
        buttons.forEach((button, number) => {
            button.setAttribute("aria-pressed", players[number] === heard);
            button.style.fontWeight = players[number] === heard ? "bold" : "normal";
        });
    };
    const adjust = () => players.forEach(player => {
        player.volume = level.checked ? player.closest("figure").dataset.gain : 1;
        player.loop = repeat.checked;
    });
    const start = player => player.play().catch(() => {});
    play.onclick = () => heard.paused ? start(heard) : heard.pause();
    buttons.forEach((button, number) => button.onclick = () => {
        const before = heard, playing = !before.paused;
        heard = players[number];
        if (heard !== before) heard.currentTime = before.currentTime % (heard.duration || Infinity);
        if (heard !== before) before.pause();
        if (playing) start(heard);
        show();
    });
    players.forEach(player => {
        player.addEventListener("play", () => {
            if (player.paused) return;  // the browser says so late, and another sound was chosen meanwhile
            heard = player;
            players.forEach(other => other === player || other.pause());
            show();
        });
        player.addEventListener("pause", show);
    });
    level.onchange = repeat.onchange = adjust;
    adjust();
    show();
    row.hidden = false;
}
"""


def gains(sounds):
    """Return a gain for each sound, by title, that brings all to the level of the quietest; silent sounds keep 1.

    No gain is above 1, so that nothing clips. The level is the root mean square.
    """
    squares = {title: np.square(samples, dtype=np.float64) for title, samples in sounds.items()}
    return gains_of_levels({title: float(np.sqrt(np.mean(each))) for title, each in squares.items()})


def gains_of_levels(levels):
    """Return these gains for root mean squares by title."""
    quietest = min((level for level in levels.values() if level > SILENT), default=1.0)
    return {title: float(quietest / level) if level > SILENT else 1.0 for title, level in levels.items()}


def compare(sounds, *, sample_rate, kind="ogg"):
    """Show a player for each sound, and buttons that switch between them at the same place and level.

    The samples keep their own levels, except that a sound that would clip is scaled down; the buttons and the script
    set the volume of the players.

    kind : "wav" keeps every sample, and takes 5 times the place of "ogg"; above 200 kHz, all is wav

    Returns
    -------
    output : IPython.display.HTML
    """
    found = {title: player(title, samples, sample_rate, kind) for title, samples in sounds.items()}
    cards = wrapped(card(title, found[title], gain) for title, gain in gains(sounds).items())
    return IPython.display.HTML(in_unicode(with_buttons(sounds, cards)))


def data_uri(kind, data):
    """Return bytes as an address that holds them, kind: such as "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def in_unicode(text):
    """Return a text in which what no text can hold, as in names of files from other systems, is a question mark."""
    return text.encode(errors="replace").decode()


def player(title, samples, sample_rate, kind, *, loss=0.4):
    """Return HTML of a player of samples; as wav, where there is no file of this kind at this sample rate.

    kind, loss : see files.encoded
    """
    check_choice("kind", kind, KINDS)
    try:
        data = encoded(samples, sample_rate, kind, loss=loss)
    except ValueError:
        kind, data = "wav", encoded(samples, sample_rate, "wav")
    source = data_uri(f"audio/{'mpeg' if kind == 'mp3' else kind}", data)
    return f"<audio controls aria-label='{html.escape(title)}' src='{source}'></audio>"


def of_file(path):
    """Return HTML of a player that reads a file beside the notebook when somebody presses play."""
    address = urllib.parse.quote(Path(path).as_posix())
    return f"<audio controls preload='none' src='{address}' aria-label='{html.escape(Path(path).name)}'></audio>"


def with_buttons(titles, cards):
    """Return HTML of cards, one for each title and in this order, below buttons that switch between their players."""
    name, row, script = f"desk-{uuid.uuid4().hex}", "", ""
    if len(titles) > 1:
        row, script = _row(titles), f"<script>{SCRIPT.replace('SELECTOR', f'#{name}')}</script>"
    return f'<div id="{name}" data-lm-suppress-shortcuts="true">{row}{cards}{script}</div>'


def wrapped(cards):
    """Return HTML of cards side by side, in as many lines as they need."""
    return f'<div style="display: flex; flex-wrap: wrap; gap: 0.5em 1em">{"".join(cards)}</div>'


def card(title, player, gain):
    """Return HTML of a title above a player, and its gain for the same level."""
    title = f'<figcaption style="font-weight: bold; text-align: left">{html.escape(title)}</figcaption>'
    return f'<figure style="margin: 0" data-gain="{gain:.6f}">{title}{player}</figure>'


def _row(titles):
    buttons = "".join(f'<button type="button" aria-pressed="false">{html.escape(title)}</button> ' for title in titles)
    boxes = "".join(f'<label><input type="checkbox" checked> {word}</label> ' for word in ("same level", "repeat"))
    play = '<button type="button" style="min-width: 4.5em">Play</button>'
    group = 'role="group" aria-label="Compare the sounds" style="margin: 0 0 0.5em"'
    return f"<div hidden {group}>{play} | {buttons}| {boxes}</div>"
