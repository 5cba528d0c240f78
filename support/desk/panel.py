"""A panel of controls for the settings that most people change first, with ipywidgets, which comes with jupyter.

The panel makes settings only when its button is clicked, and only from the settings that it shows. The settings cell
does the same without a panel.

Conventions
  names  of settings, as in the notebooks' settings cell; they are the controls' labels too
"""

import ast
import contextlib
import html
import types
import warnings
from importlib.util import find_spec
from pathlib import Path

import IPython.display

from support.record import plain
from support.settings import RECIPES, filled_in

NUMBERS = ("content_weight", "style_weight", "filters", "num_steps", "refine_steps", "seed")
NAMES = ("STYLE_FILENAME", "CONTENT_FILENAME", "recipe", *NUMBERS, "outname")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3")


def controls(current, use):
    """Return the panel, to be displayed.

    Parameters
    ----------
    current : function
        Returns the present Settings. Where they are not the ones that the panel shows, the button only shows them.
    use : function
        From a dict of settings to a sentence for the reader; makes them the present settings. ValueError and
        RuntimeError refuse, and are shown.

    Returns
    -------
    panel : ipywidgets.VBox, or without ipywidgets a sentence (IPython.display.Markdown)
    """
    if find_spec("ipywidgets") is None:
        return IPython.display.Markdown("The panel needs the package ipywidgets. The settings cell does the same.")
    return _Panel(current, use).box


def sound_files(*folders):
    """Return the paths of the sound files in folders, a sorted list without the folders that are not there."""
    paths = (path for folder in folders for path in Path(folder).glob("*") if path.suffix.lower() in SOUNDS)
    return sorted({str(path) for path in paths})


class _Panel:
    def __init__(self, current, use):
        import ipywidgets  # here, because loading takes time and many people need no panel

        self._current, self._use, self._changed = current, use, {}
        wide = dict(style={"description_width": "11em"}, layout={"width": "30em"})
        self._controls = {
            "STYLE_FILENAME": ipywidgets.SelectMultiple(rows=6, **wide),
            "CONTENT_FILENAME": ipywidgets.Dropdown(**wide),
            "recipe": ipywidgets.Dropdown(options=RECIPES, **wide),
            **{name: ipywidgets.Text(**wide) for name in (*NUMBERS, "outname")},
        }
        for name, control in self._controls.items():
            control.description = name
        button = ipywidgets.Button(description="Use these settings", layout={"width": "12em"})
        self._message = ipywidgets.HTML()
        columns = [self._controls[name] for name in NAMES[:3]], [self._controls[name] for name in NAMES[3:]]
        columns = ipywidgets.HBox([ipywidgets.VBox(column) for column in columns], layout={"flex_flow": "row wrap"})
        self.box = ipywidgets.VBox([columns, button, self._message])
        self._show()
        button.on_click(lambda _: self._clicked())
        for name in ("recipe", "CONTENT_FILENAME"):
            self._controls[name].observe(lambda _: self._show_recipe(), "value")

    def _show(self):
        # Fills the controls with the present settings, as typed.
        self._shown, self._changed = _typed(self._current()), {}
        styles, content = self._shown["STYLE_FILENAME"], self._shown["CONTENT_FILENAME"]
        styles, contents = [styles] if isinstance(styles, str) else styles, [content] if content else []
        files = sound_files("samples", *(Path(path).parent for path in [*styles, *contents]))
        files = list(dict.fromkeys([*styles, *files, *contents]))  # the styles come first, because their order counts
        self._controls["STYLE_FILENAME"].options, self._controls["STYLE_FILENAME"].value = files, tuple(styles)
        none = ("no content: a texture", None)
        self._controls["CONTENT_FILENAME"].options = [none, *((path, path) for path in files)]
        # By its index, because a value of None would show nothing.
        self._controls["CONTENT_FILENAME"].index = 1 + files.index(content) if content else 0
        for name in ("recipe", "outname"):
            self._controls[name].value = self._shown[name]
        for name in NUMBERS:
            self._controls[name].value = "" if self._shown[name] is None else repr(self._shown[name])
        self._show_recipe()

    def _show_recipe(self):
        # An empty control says what the recipe would fill in.
        settings = self._current()
        recipe, transfer = self._controls["recipe"].value, self._controls["CONTENT_FILENAME"].value is not None
        known = dict(transform=settings.transform, use_style_net=settings.use_style_net)
        values = filled_in(types.SimpleNamespace(**known, recipe=recipe, is_transfer=transfer))
        for name in NUMBERS:
            self._controls[name].placeholder = f"{values[name]:g}, from {recipe!r}" if name in values else ""

    def _clicked(self):
        if _typed(self._current()) != self._shown:
            self._show()
            self._say("The settings were changed outside of the panel, which shows them now. Choose again.")
            return
        try:
            chosen = self._chosen()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                sentence = self._use(chosen)
        except (ValueError, RuntimeError) as error:
            self._say(f"Nothing was changed: {error}.")
            return
        self._changed |= {name: value for name, value in chosen.items() if value != self._shown[name]}
        self._shown = _typed(self._current())
        self._say(*(f"Warning: {warning.message}." for warning in caught), sentence, *self._lines())

    def _chosen(self):
        chosen = {name: control.value for name, control in self._controls.items()}
        styles = chosen["STYLE_FILENAME"]
        if not styles:
            raise ValueError("no style is chosen; choose one or more files")
        chosen["STYLE_FILENAME"] = styles[0] if len(styles) == 1 else list(styles)
        return chosen | {name: _number(name, chosen[name]) for name in NUMBERS}

    def _lines(self):
        if not self._changed:
            return ()
        lines = [f"{name} = {value!r}" for name, value in self._changed.items()]
        return "The settings cell is as before. To keep these values, write there:", *lines

    def _say(self, *lines):
        text = "<br>".join(html.escape(line) for line in lines)
        self._message.value = f'<div style="line-height: 1.5">{text}</div>'


def _typed(settings):
    return {name: plain(settings.given[name]) for name in NAMES}


def _number(name, text):
    number = None
    with contextlib.suppress(ValueError, SyntaxError):
        number = ast.literal_eval(text.strip())
    if text.strip() and type(number) not in (int, float):
        raise ValueError(f"{name}={text!r} is no number; type one, or nothing for the recipe's")
    return number
