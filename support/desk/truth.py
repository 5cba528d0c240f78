"""What a run used: the parts as they were, the source of what cells defined, and what the settings don't say."""

import ast
import contextlib
import dataclasses
import dis
import functools
import hashlib
import inspect
import linecache
import types
import warnings

import numpy as np
import torch
from torch import nn

import audiocnn
from support import pipeline
from support.curves import is_curve
from support.layers import named_layers
from support.rhythm import chosen_rhythm
from support.sound.analysis import Analysis
from support.sound.likeness import distance_of_levels
from support.sound.masks import Where, where_of

MASKS = ("change", "style", "content")
CELLS = "__main__"  # the module of what a notebook's cells define
FOLLOWED = (type, types.FunctionType, types.MethodType, functools.partial)  # in search of own code
SHORT = 8  # values of an array that are written out
LONG = 200  # characters of a value
FIRST_SECTION = "the length, because this is only the first section of a long result"
UNKNOWN = "not known, because no show.progress saw these steps"


def describe(result, *, analysis, objective, images, recordings, changed=()):
    """Return what a run used, for its json file.

    Parameters
    ----------
    result : pipeline.Result
        With its settings, whose parts are compared with those that were used, and with what `noted` says.
    analysis, objective : the parts of the run
    images, recordings : dict
        The images and the samples of the recordings by name.
    changed : list of str
        Steps after which a cell of one's own changed the image or the samples.
    """
    settings, terms, network = result.settings.of_run(result.run), objective.all_terms, objective.first_network
    style = analysis.from_image(images["style 1"])
    rhythm = chosen_rhythm(settings.rhythm_weight, style, analysis.transform)
    blend = None if is_curve(settings.style_blend) else settings.style_blend  # a curve is in the terms
    blend = blend or [1.0] * len(settings.styles)
    of_result = dataclasses.replace(analysis, loop=settings.loop)
    length = of_result.length_of(settings.length_of(recordings))
    where = where_of(settings.where, of_result, recordings, length=length)
    used = _in_words(analysis, network, terms, objective.segment, objective.blend, objective.loop, objective.where)
    with warnings.catch_warnings(action="ignore"):  # those of the settings were shown before
        expected = _in_words(
            settings.make_analysis(),
            None if settings.use_style_net else settings.make_network(images, analysis),
            settings.make_terms(rhythm),
            analysis.frames(settings.segment_duration),
            [share / sum(blend) for share in blend],
            settings.loop,
            where,
        )
    of_descents, expected_descents = _descents(result, objective, settings.steps_of_draw)
    used, expected = used | of_descents, expected | expected_descents
    start = functools.partial(
        pipeline.make_start,
        settings.start,
        of_result,
        recordings["style 1"],
        images,
        length=length,
        seed=settings.seed,
        rhythm=rhythm,
        **settings.start_values,
    )
    parts = [analysis, analysis.transform, *network.modules(), *(each.loss for each in terms), objective.networks]
    parts += [getattr(objective.where, name, None) for name in MASKS]
    own_code = _own_code(parts)
    for each in result.descents + result.sample_descents:
        own_code |= each["own_code"]
    others = [name for name in used if used[name] != expected[name]]
    others += [] if _is_start(result.first, start, where) else ["start"]
    others += _edited(result, recordings, images, analysis, objective)
    others += [f"what {step!r} gave" for step in changed] + result.changed
    others += [FIRST_SECTION] if settings.length_of_long else []
    if settings.drawn:
        used["excerpts"] = settings.excerpts(_draws(result, settings.steps_of_draw))
    used |= {"layers": named_layers(network), "own_code": own_code, "not_in_settings": others}
    return used | {"style_distance": _style_distance(result, recordings)}


def noted(descent, analysis, samples=None):
    """Return how a descent is made: words by name.

    Parameters
    ----------
    descent : audiocnn.Descent
        Another iterator says nothing of how it is made.
    analysis : of the result
    samples : torch.Tensor or None
        Of the descent on samples.
    """
    if not isinstance(descent, audiocnn.Descent):
        return dict.fromkeys(("optimizer", "redraw", "precondition", "objectives"), UNKNOWN) | {"own_code": {}}
    sums = [[_seen(through, analysis, samples), _terms_in_words(each.terms)] for through, each in descent.pairs]
    made_by = [descent.make_optimizer, descent.precondition]
    return {
        "optimizer": words(descent.make_optimizer),
        "redraw": int(descent.redraw or 0),
        "precondition": words(descent.precondition),
        "objectives": sums,
        "own_code": _own_code([*made_by, *(each.loss for _, objective in descent.pairs for each in objective.terms)]),
    }


def _seen(through, analysis, samples):
    # What an objective sees: the image, the samples by the analysis, or an image of another shape or of other values.
    if through is None:
        return "the image"
    with torch.no_grad():
        image = through(samples)
        own = analysis.view(samples.shape[-1], samples.device)(samples)
    return "the analysis" if _alike(image, own) else f"another image {list(image.shape)}"


def _alike(image, other):  # but for rounding, which depends on where the values lie in memory
    return image.shape == other.shape and bool((image - other).abs().max() <= 1e-3 * other.abs().max())


def _descents(result, objective, redraw):
    # How the image and the samples were changed, and how the settings say so.
    found, expected, first = {}, {}, _terms_in_words(objective.terms)
    of_samples = _terms_in_words(term for term in objective.all_terms if term.layer == "samples")
    shape = f"another image {[result.samples.ndim, 1, 1, result.samples.shape[-1]]}"  # 1 or 2 channels
    sums = [["the analysis", first], *([[shape, of_samples]] if of_samples else [])]
    changes = (None, Analysis.preconditioner) if objective.where is None else (Where.in_image, Where.in_samples)
    moved = [
        bool(history) or (begin is not None and not torch.equal(tensor, begin))
        for history, tensor, begin in (
            (result.history, result.image, result.first),
            (result.refinement, result.samples, result.reconstruction),
        )
    ]
    places = (
        ("", result.descents, max(len(result.begun), moved[0]), [["the image", first]], changes[0]),
        ("sample_", result.sample_descents, max(len(result.begun_to_refine), moved[1]), sums, changes[1]),
    )
    for prefix, descents, begun, objectives, precondition in places:
        said = {"optimizer": words(audiocnn.lbfgs), "redraw": redraw}
        said |= {"precondition": words(precondition), "objectives": objectives}
        for name, value in said.items():
            values = [each[name] for each in descents] + [UNKNOWN] * (len(descents) < begun)
            values = [each for place, each in enumerate(values) if each not in values[:place]] or [value]
            expected[prefix + name] = value
            found[prefix + name] = values[0] if len(values) == 1 else values
    return found, expected


def _is_start(image, start, where):
    # Whether the settings make this start; True where the start's file can't be read now.
    with contextlib.suppress(OSError, ValueError), warnings.catch_warnings(action="ignore"):
        made = start()[1]
        return _alike(image, where.mixed_image(made) if where else made)
    return True


def _edited(result, recordings, images, analysis, objective):
    # What cells changed of the recordings, of their images, and of the networks of later draws, in words.
    found, own = [], result.settings.of_run(result.run)
    with contextlib.suppress(OSError, ValueError), warnings.catch_warnings(action="ignore"):
        loaded = result.settings.load()  # fails where the files are gone
        if any(not np.array_equal(each, recordings.get(name)) for name, each in loaded.items()):
            found.append("the recordings")
    for name, samples in recordings.items():
        image = analysis.to_image(analysis.spectrogram(samples), images[name].device)
        if not _alike(images[name], image):
            found.append(f"the image of {name}")
    if own.steps_of_draw and not own.use_style_net and not isinstance(objective.networks, nn.Module):
        used = [_number_of(each) for each in (objective.first_network, objective.networks(1))]
        made = [_number_of(own.make_network(images, analysis, draw)) for draw in (0, 1)]
        found += ["the networks of later draws"] * (used[0] == made[0] and used[1] != made[1])
    return found


def _draws(result, redraw):
    # The numbers of the draws that a result has seen, see audiocnn.optimise.
    steps = {0: len(result.history), audiocnn.SAMPLES_DRAW: len(result.refinement)}
    return [first + number for first, count in steps.items() for number in range(-(-count // redraw) if redraw else 1)]


def _style_distance(result, recordings):  # dB; the mean over several styles
    samples, sample_rate = result.samples.detach().cpu().numpy(), result.settings.sample_rate
    styles = [each for name, each in recordings.items() if name.startswith("style")]
    return round(float(np.mean([distance_of_levels(samples, style, sample_rate) for style in styles])), 2)


def _in_words(analysis, network, terms, segment, blend, loop, where):
    masks = [name for name in MASKS if getattr(where, name, None) is not None]
    return {
        "analysis": f"{words(analysis)} of {words(analysis.transform)}",
        "network": f"{type(network).__name__}, layers and weights {_number_of(network)}",
        "terms": _terms_in_words(terms),
        "segment": None if segment is None else int(segment),  # a json holds no numbers of NumPy
        "blend": [float(share) for share in blend],
        "loop": bool(loop),
        "masks": {name: _value(where.values(name)) for name in masks} if where else None,
    }


def _number_of(network):  # that stands for its layers and weights
    digest = hashlib.sha256(str(network).encode())
    for values in network.state_dict().values() if network else ():
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _terms_in_words(terms):
    return [[words(loss), layer, weight] for loss, layer, weight, *_ in terms if weight]


def words(part):
    """Return the name and the parameters of an object, with the module where a cell defined it; words as they are."""
    if isinstance(part, str | None):
        return str(part)
    if isinstance(part, audiocnn.FunctionLoss):
        return f"{words(part.function)} against the {part.compares}"
    if isinstance(part, functools.partial):
        given = [*map(_given, part.args), *(f"{name}={_given(value)}" for name, value in part.keywords.items())]
        return f"{words(part.func)}({', '.join(given)})"
    part = part.__func__ if isinstance(part, types.MethodType) else part
    kind = part if isinstance(part, type | types.FunctionType) else type(part)
    name = f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "audiocnn" else kind.__qualname__
    if part is kind:
        return name
    values = {key: value for key, value in _parameters(part).items() if _is_given(value)}
    return f"{name}({', '.join(f'{key}={_given(value)}' for key, value in values.items())})"


def _is_given(value):
    return not callable(value) or isinstance(value, types.FunctionType | functools.partial)


def _given(value):  # functions by their names, because their repr holds an address
    return words(value) if callable(value) else _value(value)


def _parameters(part):
    # What was given to an object; not what it computed of that, and not the bookkeeping of PyTorch's modules.
    found = vars(part)
    if isinstance(part, nn.Module):
        found = {name: value for name, value in found.items() if name[0] != "_" and name != "training"}
        found |= part.state_dict()
    computed = {name for name in found if isinstance(getattr(type(part), name, None), functools.cached_property)}
    return {name: value for name, value in found.items() if name not in {"transform", *computed}}


def _value(value):
    # Long arrays by their shape and a number that stands for their values; repr would leave out their middle.
    if not isinstance(value, np.ndarray | torch.Tensor) or np.prod(value.shape) <= SHORT:
        return repr(value)
    values = np.ascontiguousarray(torch.as_tensor(value).detach().cpu().numpy())
    return f"array of {tuple(value.shape)}, values {hashlib.sha256(values.tobytes()).hexdigest()[:16]}"


def _own_code(parts):
    # Sources by name, of what cells defined, of what these name in turn, and the values that they read. Two things of
    # one name, such as two lambdas, are numbered.
    found, seen, todo = {}, [], list(parts)

    def add(name, text):
        same = [each for each in found if each.partition(" (")[0] == name]
        if text not in [found[each] for each in same]:
            found[f"{name} ({len(same) + 1})" if same else name] = text

    while todo:
        part = todo.pop()
        inside = [part.func, *part.args, *part.keywords.values()] if isinstance(part, functools.partial) else []
        inside += [part.__self__] if isinstance(part, types.MethodType) else []
        if not isinstance(part, type | types.FunctionType):
            inside += getattr(part, "__dict__", {}).values()
            part = type(part)
        todo += [each for each in inside if isinstance(each, FOLLOWED) or type(each).__module__ == CELLS]
        if part.__module__ != CELLS or any(part is each for each in seen):
            continue
        seen.append(part)
        todo += getattr(part, "__bases__", ())
        members = [part] if isinstance(part, types.FunctionType) else vars(part).values()
        functions = [each for each in members if isinstance(each, types.FunctionType) and each.__module__ == CELLS]
        functions = [each for each in functions if "__create_fn__" not in each.__qualname__]  # dataclass writes these
        add(part.__qualname__, _source(part, functions))
        for function in functions:
            read = _read_by(function)
            todo += [each for each in read.values() if isinstance(each, FOLLOWED) or type(each).__module__ == CELLS]
            for name, value in read.items():
                if _is_plain(value):
                    add(name, _value(value)[:LONG])
    return found


def _read_by(function):
    # What a function reads by name from outside: globals, what encloses the function, and its own defaults.
    names, codes = [], [function.__code__]
    for code in codes:
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]  # of lambdas in the function
        names += [each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
    read = {name: function.__globals__[name] for name in names if name in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # of a name that has no value yet
            read[name] = cell.cell_contents
    return read | {each.__name__: each for each in function.__defaults__ or () if inspect.isroutine(each)}


def _is_plain(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    plain = (bool, int, float, str, list, tuple, dict, np.ndarray, torch.Tensor, types.NoneType)
    arrays = any(isinstance(each, np.ndarray | torch.Tensor) for each in inner)  # such as images by name
    return isinstance(value, plain) and not arrays and all(map(_is_plain, inner))


def _source(part, functions):
    with contextlib.suppress(OSError, TypeError):
        return inspect.getsource(part)
    # Before Python 3.13, inspect looks for a class in the file of its module, and a notebook has none: its cells are in
    # linecache, without a time, and the last one counts.
    cells = [name for name, entry in linecache.cache.items() if len(entry) == 4 and entry[1] is None]
    for name in [each.__code__.co_filename for each in functions[:1]] or reversed(cells):
        lines = linecache.getlines(name)
        with contextlib.suppress(SyntaxError):
            for node in ast.walk(ast.parse("".join(lines))):
                if isinstance(node, ast.ClassDef) and node.name == part.__name__:
                    return "".join(lines[node.lineno - 1 : node.end_lineno])
    return "source not found"
