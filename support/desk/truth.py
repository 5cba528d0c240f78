"""What a run used: the parts as they were, the source of what cells defined, and what the settings don't say."""

import ast
import contextlib
import functools
import hashlib
import inspect
import itertools
import linecache
import types

import numpy as np

import audiocnn
from support.layers import named_layers
from support.rhythm import chosen_rhythm
from support.sound.likeness import distance_of_levels

CELLS = "__main__"  # the module of what a notebook's cells define


def describe(result, *, analysis, objective, images, recordings, changed=()):
    """Return what a run used, for its json file.

    Parameters
    ----------
    result : pipeline.Result
        With its settings, whose parts are compared with those that were used, and its optimisers.
    analysis, objective : the parts of the run
    images, recordings : dict
        The images and the samples of the recordings by name.
    changed : list of str
        Steps after which a cell of one's own changed the image or the samples.
    """
    settings, terms, network = result.settings.of_run(result.run), objective.all_terms, objective.first_network
    optimizers = {"optimizer": result.optimizers, "sample_optimizer": result.sample_optimizers}
    used = _in_words(analysis=analysis, terms=terms, network=network)
    for name, each in optimizers.items():
        used[name] = ", then ".join(dict.fromkeys(map(words, each))) or words(audiocnn.lbfgs)
    own_network = settings.use_style_net
    style = analysis.from_image(images["style 1"])
    rhythm = chosen_rhythm(settings.rhythm_weight, style, analysis.transform)
    expected = _in_words(
        analysis=settings.make_analysis(),
        terms=settings.make_terms(rhythm),
        network=None if own_network else settings.make_network(images, analysis),
    )
    expected |= dict.fromkeys(optimizers, words(audiocnn.lbfgs))
    parts = [analysis, analysis.transform, *itertools.chain(*optimizers.values()), *network.modules()]
    parts += [*(each.loss for each in terms), objective.networks]
    others = [name for name in used if used[name] != expected[name]]
    others += [f"what {step!r} gave" for step in changed] + result.changed
    used |= {"layers": named_layers(network), "own_code": _own_code(parts), "not_in_settings": others}
    return used | {"style_distance": _style_distance(result, recordings)}


def _style_distance(result, recordings):  # dB; the mean over several styles
    samples, sample_rate = result.samples.detach().cpu().numpy(), result.settings.sample_rate
    styles = [each for name, each in recordings.items() if name.startswith("style")]
    return round(float(np.mean([distance_of_levels(samples, style, sample_rate) for style in styles])), 2)


def _in_words(*, analysis, terms, network):
    weights = hashlib.sha256(str(network).encode())
    for values in network.state_dict().values() if network else ():
        weights.update(values.detach().cpu().contiguous().numpy().tobytes())
    return {
        "analysis": f"{words(analysis)} of {words(analysis.transform)}",
        "network": f"{type(network).__name__}, layers and weights {weights.hexdigest()[:16]}",
        "terms": [[words(loss), layer, weight] for loss, layer, weight, *_ in terms if weight],
    }


def words(part):
    """Return the name and the parameters of an object, with the module where a cell defined it; words as they are."""
    if isinstance(part, str):
        return part
    if isinstance(part, audiocnn.FunctionLoss):
        return f"{words(part.function)} against the {part.compares}"
    if isinstance(part, functools.partial):
        given = [*map(repr, part.args), *(f"{name}={value!r}" for name, value in part.keywords.items())]
        return f"{words(part.func)}({', '.join(given)})"
    kind = part if isinstance(part, type | types.FunctionType) else type(part)
    name = f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "audiocnn" else kind.__qualname__
    if part is kind:
        return name
    values = [f"{name}={value!r}" for name, value in vars(part).items() if not callable(value)]
    return f"{name}({', '.join(each for each in values if not each.startswith('transform='))})"


def _own_code(parts):
    # Sources by name, of what cells defined, and of what these name in turn.
    found, todo = {}, list(parts)
    while todo:
        part = todo.pop()
        if isinstance(part, functools.partial | audiocnn.FunctionLoss):
            todo += [part.func, *part.args] if isinstance(part, functools.partial) else [part.function]
            continue
        part = part if isinstance(part, type | types.FunctionType) else type(part)
        if part.__module__ != CELLS or part.__qualname__ in found:
            continue
        found[part.__qualname__] = _source(part)
        functions = [each for each in vars(part).values() if isinstance(each, types.FunctionType)]
        for function in [part] if isinstance(part, types.FunctionType) else functions:
            named = [function.__globals__.get(name) for name in function.__code__.co_names]
            todo += [
                each for each in [*named, *(function.__defaults__ or ())] if isinstance(each, type | types.FunctionType)
            ]
    return found


def _source(part):
    with contextlib.suppress(OSError, TypeError):
        return inspect.getsource(part)
    # Before Python 3.13, inspect looks for a class in the file of its module, and a notebook has none.
    functions = [each for each in vars(part).values() if isinstance(each, types.FunctionType)]
    lines = linecache.getlines(functions[0].__code__.co_filename) if functions else []
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.ClassDef) and node.name == part.__name__:
            return "".join(lines[node.lineno - 1 : node.end_lineno])
    return "source not found"
