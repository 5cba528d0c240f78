"""Gatys' algorithm on spectrograms: the CNN, losses, the objective, the optimisation.

A network turns the spectrogram of a sound into features. Losses at named layers compare the features with those of a
style and of a content. An optimiser changes an image until the weighted sum of the losses is small. This file reads
in that order; what surrounds it, from sound files to pictures, is in support/.

Conventions
  spectrogram  compressed magnitudes of a sound [shape=(n_bins, n_frames)], see support/sound/analysis.py
  image        torch tensor [shape=(planes, channels, height, width)], a spectrogram as a network takes it:
               "freq" (1, n_bins, 1, n_frames), "time" (1, n_frames, 1, n_bins), "2D" (1, 1, n_bins, n_frames);
               in stereo with 4 planes instead of 1, see support/sound/stereo.py
  features     the output of a layer for an image [shape=(planes, channels, height, width)], see support/layers.py
  rows         features as a matrix [shape=(planes * channels, positions)]
  term         a loss, the name of a layer, and a weight; the objective is the sum of the terms
  draw         number of a set of random networks; draw 0 is the first

Sources
  Gatys, Ecker, Bethge 2015, A Neural Algorithm of Artistic Style, arXiv:1508.06576
  Ulyanov, Lebedev 2016, Audio texture synthesis and style transfer (blog post)
  Huzaifah, Wyse 2019, Applying visual domain style transfer and texture synthesis techniques to audio, arXiv:1901.10240
  Antognini, Hoffman, Weiss 2019, Audio texture synthesis with random neural networks, arXiv:1806.08002
  Heitz, Vanhoey, Chambon, Belcour 2021, A sliced Wasserstein loss for neural texture synthesis
"""

import copy
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from support import fast
from support.checks import check_choice, check_cnn, check_number, check_positive_int
from support.descent import Descent, made_optimizer
from support.layers import Layers, Tap, full_name, side_by_side

AS_GIVEN = ("input", "samples")  # layers that are the tensor itself
N_QUANTILES = 4096  # that are kept of a style's features: of up to 24 s all, of longer styles enough
SAMPLES_DRAW = 1000  # draws of random networks are numbered from here while samples are optimised, so that all differ
MEMORY = 3e8  # bytes that L-BFGS may take where history_size is None; 5 steps of 5 minutes take 5.3e8
LONG = 10_000  # frames, about a minute; of longer styles, one network's features at a time are in memory
HISTORY = 20  # steps that L-BFGS remembers; with 50, a texture is as good, and L-BFGS takes twice the time


# 1. Networks -------------------------------------------------------------------------------------


class CNN(nn.Module):
    """Three blocks of convolution, batch norm, ReLU and max-pool, then a linear classifier.

    Parameters
    ----------
    parameters : dict
        l1channels, l2channels, l3channels : filters of each block
        orientation : "freq", "time" (1-D filters over the width, pooling halves the width) or
            "2D" (square filters, pooling halves both sides)
        in_channels, in_height, in_width : shape of the images that the classifier was made for;
            the blocks before the classifier take any width
        kernelsize : length of a filter, in positions
        n_classes : outputs of the classifier
    """

    def __init__(self, parameters: dict):
        super().__init__()
        check_cnn(parameters)
        flat, size = parameters["orientation"] != "2D", parameters["kernelsize"]
        kernel, pool = ((1, size), (1, 2)) if flat else ((size, size), (2, 2))
        channels = [parameters[name] for name in ("in_channels", "l1channels", "l2channels", "l3channels")]

        def block(before, after):
            conv = nn.Conv2d(before, after, kernel, padding="same")
            return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(pool))

        self.layer1, self.layer2, self.layer3 = itertools.starmap(block, itertools.pairwise(channels))
        height, width = parameters["in_height"] // pool[0] ** 3, parameters["in_width"] // 8
        self.fc = nn.Linear(channels[-1] * height * width, parameters["n_classes"])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Image [shape=(batch, in_channels, in_height, in_width)] to scores [shape=(batch, n_classes)]."""
        features = self.layer3(self.layer2(self.layer1(image)))
        return self.fc(features.flatten(1))


# 2. Losses ---------------------------------------------------------------------------------------


def rows_of(features: torch.Tensor) -> torch.Tensor:
    """Features [shape=(planes, channels, height, width)] as rows [shape=(planes * channels, positions)]."""
    return features.flatten(2).flatten(0, 1)


def gram_matrix(features: torch.Tensor) -> torch.Tensor:
    """Gram matrix of the channels [shape=(channels, channels)], divided by the number of positions.

    Gatys divides by the channels too, inside the loss; here StyleLoss takes the mean over the entries.
    """
    rows = rows_of(features)
    return (rows @ rows.T) / rows.shape[1]


class Loss:
    """The distance of features from a target. A loss of your own is a subclass, or any function of (features, target).

    A subclass says what it compares with: "style", "content" or None. An instance holds the loss's own parameters.

    Long images are compared segment by segment, and the values are averaged. A loss takes part if `segments` is True:
    a statistic compares each segment with the whole target, and a loss that compares frame by frame has a `cut`. A
    loss where `segments` is False sees the whole image at once, which takes more memory.
    """

    kind = "loss"  # the first word of the loss's name; the second is its layer
    compares = None
    segments = False
    overlap = 0  # frames that each feature sees beyond one; 0 where layers pad; set before `target` is called
    stride = 1.0  # frames from one position to the next; set before `target` is called
    loop = False  # whether the features are those of a circle; set before `target` is called

    def target(self, *sounds: torch.Tensor, blend: list[float]) -> object:
        """Return what `distance` gets as its target, from the features of the sounds that are compared."""
        return sounds[0] if sounds else None

    def cut(self, target: object, part: slice) -> object:
        """Return the target for a segment, the features from part.start to part.stop of the whole image."""
        return target

    def distance(self, features: torch.Tensor, target: object) -> torch.Tensor:
        """Return a number, with its gradient; the weight is multiplied later."""
        raise NotImplementedError(f"{type(self).__name__} has no distance(features, target); write one")


@dataclass
class FunctionLoss(Loss):
    """A function of (features, target) as a loss; the target is the features of the (first) style or of the content."""

    function: Callable
    compares: str | None = "style"

    @property
    def kind(self) -> str:
        """The function's name."""
        return getattr(self.function, "__name__", type(self.function).__name__).strip("<>").lower()

    def distance(self, features: torch.Tensor, target: object) -> torch.Tensor:
        """Call the function."""
        return self.function(features, target)


def blended(describe: Callable, styles: list[torch.Tensor], blend: list[float]) -> torch.Tensor:
    """Return the mean of what describe returns for each style, weighted by blend."""
    return sum(share * describe(style) for share, style in zip(blend, styles, strict=True))


class Gram(NamedTuple):
    """What StyleLoss keeps of a style: its Gram matrix, rows with rows rows' = gram, and |rows' rows|^2."""

    gram: torch.Tensor
    rows: torch.Tensor
    style_term: float


@dataclass
class StyleLoss(Loss):
    """Mean squared difference between the Gram matrices of the features and of the style.

    Gatys divides by 4 channels^2 positions^2; we divide by channels^2, with Gram matrices per position, so that the
    two sounds may differ in length. Several styles are blended: the target is the mean of their Gram matrices,
    weighted by blend. Computed by fast.GramDistance.
    """

    kind, compares, segments = "style", "style", True

    def target(self, *styles: torch.Tensor, blend: list[float]) -> Gram:
        """Describe the styles."""
        rows = [rows_of(style) for style in styles]
        rows = torch.cat([(b / each.shape[1]) ** 0.5 * each for b, each in zip(blend, rows, strict=True)], dim=1)
        exact = rows.cpu().double()  # on the CPU, because MPS has no float64
        exact = (exact.T @ exact if exact.shape[1] < len(exact) else exact @ exact.T).square().sum().item()
        return Gram(blended(gram_matrix, styles, blend), rows, exact)

    def distance(self, features: torch.Tensor, target: Gram) -> torch.Tensor:
        """Take features of any number of positions."""
        rows = rows_of(features)
        return fast.GramDistance.apply(rows, target.rows, target.gram, target.style_term) / len(rows) ** 2


class Quantiles(NamedTuple):
    """What DistributionLoss keeps of a style: sorted values of each channel by their number, and channels' scales."""

    by_number: dict
    scale: torch.Tensor


@dataclass
class DistributionLoss(Loss):
    """How far the distribution of each channel's values is from the style's: a sliced Wasserstein distance.

    Mean squared difference of sorted values, divided by the channel's variance in the style to the power of balance,
    and by the mean variance to the rest. A Gram matrix sees means and covariances; this loss sees the whole
    distribution of every channel: how often the channel is silent, how loud its rare events are (Heitz 2021).
    Several styles are blended by the mean of their quantiles, the Wasserstein barycentre.

    Parameters
    ----------
    balance : float from 0 to 1
        0: all channels are divided alike. With 0.65, quiet channels count nearly as much as loud ones, and textures
        copy less of their style; in a transfer, the content would have to be silent wherever the style is.
    """

    balance: float = 0.0
    kind, compares, segments = "style", "style", True

    def target(self, *styles: torch.Tensor, blend: list[float]) -> Quantiles:
        """Describe the styles."""
        number = min(rows_of(styles[0]).shape[1], N_QUANTILES)
        if number < 2:
            raise ValueError(
                "a layer gives one value for each channel, which has no variance; use a longer sound, or a layer "
                "before the one that takes the mean over all frames"
            )
        values = blended(lambda style: _quantiles(fast.sorted_rows(rows_of(style))[0], number), styles, blend)
        # torch.var takes seven times as long, a sixth of a draw's time.
        variance = (values - values.mean(dim=1, keepdim=True)).square().sum(dim=1, keepdim=True) / (number - 1)
        mean = variance.mean()
        scale = ((variance / mean).clamp_min(0.01) ** self.balance * mean).rsqrt()
        return Quantiles({number: values}, scale)

    def distance(self, features: torch.Tensor, target: Quantiles) -> torch.Tensor:
        """Take features of any number of positions."""
        rows = rows_of(features).contiguous()  # row by row in memory, otherwise sorting is slow
        number = rows.shape[1]
        if number not in target.by_number:  # of two lengths of segments at most
            target.by_number[number] = _quantiles(next(iter(target.by_number.values())), number)
        return fast.SortedDistance.apply(rows, target.by_number[number], target.scale) / rows.numel()


def _quantiles(values, number):  # of sorted values, as linear interpolation finds them
    return nn.functional.interpolate(values[None], size=number, mode="linear")[0]


STYLE_LOSSES = {
    "gram": StyleLoss(),
    "distribution": DistributionLoss(),
    "balanced": DistributionLoss(balance=0.65),
}  # by the name of the statistic


@dataclass
class ContentLoss(Loss):
    """Mean squared difference between the features and the content's."""

    kind, compares, segments = "content", "content", True

    def cut(self, target: torch.Tensor, part: slice) -> torch.Tensor:
        """Return the content's features in the same frames."""
        return target[..., part]

    def distance(self, features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Take features and target of one shape."""
        return (features - target).square().mean()


@dataclass
class BoundLoss(Loss):
    """Sum of the squared distances of an image's values from [0, 1], the soft bound of Huzaifah & Wyse."""

    kind, segments = "bound", True

    def distance(self, features: torch.Tensor, target: object) -> torch.Tensor:
        """Take the image itself."""
        return (features - features.clamp(0, 1)).square().sum()


# 3. The objective --------------------------------------------------------------------------------


class Term(NamedTuple):
    """One part of the sum that is minimised; a plain tuple (loss, layer, weight) means the same.

    loss : Loss, a subclass of Loss, functools.partial of one, or a function of (features, target)
    layer : a name of layers.named_layers; "input" for the image itself; "samples", which only the descent on
        samples has
    weight : 0 leaves the term out
    compares : "style", "content" or None, of a function; a Loss knows what it compares with
    """

    loss: object
    layer: str
    weight: float = 1.0
    compares: str | None = "style"


def made_term(loss: object, layer: str, weight: float = 1.0, compares: str | None = "style") -> Term:
    """Return a Term whose loss is an instance of Loss."""
    made = loss.func if isinstance(loss, functools.partial) else loss
    loss = loss() if isinstance(made, type) else loss
    if not isinstance(loss, Loss) and not callable(loss):
        raise TypeError(f"the loss {loss!r} at {layer!r} must be a Loss, or a function of (features, target)")
    check_number(f"the weight of the loss at {layer!r}", weight, 0)
    if compares is not None:
        check_choice("compares", compares, ("style", "content"))
    loss = loss if isinstance(loss, Loss) else FunctionLoss(loss, compares)
    return Term(loss, layer, weight, loss.compares)


class _Inserted(NamedTuple):
    # A loss with its target, inserted after a layer of one network.

    name: str
    full_name: str  # with its network
    loss: Loss
    layer: str
    weight: float
    target: object


class _Chain(NamedTuple):
    # The losses of one network that see an image in the same way.

    tap: Callable
    losses: list
    overlap: int | None  # frames that a segment needs beyond its own for the same features; None: whole images only
    whole: bool
    seen: Callable  # what the losses see of an image that begins at a frame


def _checked(name, value, with_gradient):
    alone = with_gradient and not getattr(value, "requires_grad", False)
    if not torch.is_tensor(value) or value.shape != () or alone:
        kind = f"a tensor of shape {tuple(value.shape)}" if torch.is_tensor(value) else f"a {type(value).__name__}"
        kind += ", without a gradient" if torch.is_tensor(value) and alone else ""
        raise ValueError(f"the loss {name!r} gives {kind}; its distance must be one number with a gradient")
    return value


class Objective:
    """The losses of an image, by name, and the gradient of their sum.

    Parameters
    ----------
    networks : nn.Module, or a function from the number of a draw to an nn.Module
        Networks side by side are an nn.ModuleDict. They stay unchanged.
    terms : list of Term or (loss, layer, weight)
    style, content : torch.Tensor [shape=(planes, channels, height, width)]
        The images whose features the losses compare with; style may be a list of images, or a function from the
        number of a draw to such a list. They may differ in length, unless the channels are time frames.
    blend : list of float > 0
        Shares of the styles; None: equal.
    segment : int or None [frames]
        An image longer than about 1.5 segments is compared segment by segment, each with all of the style, and the
        losses are means over the segments: where the loss allows it, and the network has no padding and no strides.
    loop : bool
        Whether images are circles: the last frame is the first one again.
    where : masks.Where or None
        Which frames and bins the losses see, of the image and of the recordings.
    """

    def __init__(
        self,
        networks: nn.Module | Callable | None,
        terms: list,
        *,
        style: torch.Tensor | list | Callable = (),
        content: torch.Tensor | None = None,
        blend: list | None = None,
        segment: int | None = None,
        loop: bool = False,
        where: object = None,
    ):
        self.all_terms = [made_term(*term) for term in terms]
        of_image = networks is not None  # terms at "samples" have an objective of their own, without a network
        self.terms = [term for term in self.all_terms if term.weight and not (of_image and term.layer == "samples")]
        if not self.terms:
            raise ValueError(
                "there is no loss with a weight above 0, so nothing to optimise; give a layer and a weight"
            )
        if segment is not None:
            check_positive_int(segment=segment)
        self.styles = style if callable(style) else None
        style = style(0) if callable(style) else style
        styles = [style] if isinstance(style, torch.Tensor) else list(style)
        for name, image in [("style", each) for each in styles] + [("content", content)] * (content is not None):
            _check_image(f"the {name}", image, [*styles, content][0])
        self.sounds = {"style": styles, "content": [] if content is None else [content], None: []}
        for term in self.terms:
            if term.compares and not self.sounds[term.compares]:
                raise ValueError(
                    f"the {term.loss.kind} loss at {term.layer!r} needs a {term.compares}; give one, or leave out its "
                    "layer"
                )
        self.blend, self.segment, self.loop, self.where = _shares(blend, len(styles)), segment, loop, where
        self.networks, self.drawn, self.network = networks, None, None
        self.taps, self.chains, self.at_input = {}, [], None
        self.draw(0)
        self.first_network = self.network

    def draw(self, number: int) -> None:
        """Take the networks of a draw, and compute the targets of all losses again."""
        if number == self.drawn and self.chains:  # an interrupt in a draw leaves no chains
            return
        if self.styles and self.drawn is not None:
            self.sounds["style"] = self.styles(number)
        self.network, self.chains = None, []  # they hold features of the styles, and the next ones come before they go
        fixed = self.networks is None or isinstance(self.networks, nn.Module)
        self.network, self.drawn = self.networks if fixed else self.networks(number), number
        self.chains = self._insert()

    @torch.no_grad()
    def _insert(self):
        tapped, known = [], {}
        for prefix, network in {} if self.network is None else side_by_side(self.network).items():
            tap = self.taps.get(prefix)
            found = tap.found if tap and tap.is_like(network) else Layers(network)
            layers = list(found.steps)
            here = [(term.layer.removeprefix(f"{prefix}."), term) for term in self.terms]
            here = sorted((pair for pair in here if pair[0] in layers), key=lambda pair: layers.index(pair[0]))
            known |= dict.fromkeys([*layers, *(full_name(prefix, layer) for layer in layers)])
            if here and not self._images():
                raise ValueError(
                    f"the {here[0][1].loss.kind} loss at {here[0][0]!r} compares with nothing, but its network has to "
                    "see an image; give a style or a content"
                )
            if here:
                if tap and found is tap.found:
                    tap.renew(network)
                else:
                    wanted = list(dict.fromkeys(layer for layer, _ in here))
                    tap = self.taps[prefix] = Tap(found, wanted, self._images()[0], closed=self.loop)
                    tap.find_overlap(self._images()[0])
                tapped.append((prefix, tap, here))
        for term in self.terms:
            if term.layer not in {*AS_GIVEN, *known}:
                raise ValueError(
                    f"{term.loss.kind} layers: there is no layer {term.layer!r}; choose among {', '.join(known)}; or "
                    "'input', the image itself"
                )
        at_input = [(term.layer, term) for term in self.terms if term.layer in AS_GIVEN]
        own = fast.is_own(term.loss for _, term in at_input)  # their targets may count the draws
        if self.at_input is None or self.styles or own:  # no network changes the others, a sixth of a draw's time
            self.at_input = self._chains_of("", _input, at_input)
        chains = []
        if tapped:
            longest = max(self._images(), key=lambda image: image.shape[3])
            apply = self._at_once([*self.network.modules(), *self._distances()], longest)
            apply = map if longest.shape[3] > LONG else apply
            chains = list(itertools.chain.from_iterable(apply(lambda each: self._chains_of(*each), tapped)))
        if len(tapped) == 1 and not tapped[0][0]:  # one network alone
            tapped[0][1].to(memory_format=torch.channels_last)
        return chains + self.at_input

    def _images(self):
        return self.sounds["style"] + self.sounds["content"]

    @torch.no_grad()
    def _chains_of(self, prefix, tap, here):
        # Losses that need the whole image get a chain of their own where others compare segments, and with masks
        # those that compare with the style, and with the content.
        if not here:
            return []
        features = whole = [tap(image) for image in self._images()]  # of the styles, then of the content
        overlap = tap.overlap if tap is not _input else None
        if self.where is not None:
            overlap = 0 if tap is _input else overlap
            features = [self._masked(tap, kind, each, overlap) for kind in self.sounds for each in self.sounds[kind]]
        n_styles, inserted = len(self.sounds["style"]), []
        for layer, term in here:
            loss = copy.copy(term.loss)
            loss.overlap, loss.loop = overlap or 0, self.loop
            loss.stride = self._images()[0].shape[3] / whole[0][layer].shape[3] if whole and overlap is None else 1.0
            given = {"style": features[:n_styles], "content": features[n_styles:], None: []}[loss.compares]
            target = loss.target(*(each[layer].detach() for each in given), blend=self.blend)
            names = f"{loss.kind} {term.layer}", f"{loss.kind} {full_name(prefix, layer)}"
            inserted.append(_Inserted(*names, loss, layer, term.weight, target))
        names = [f"{each.loss.kind} {each.layer}" for each in inserted]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two losses have one name among {', '.join(names)}; give one of them another kind, or a "
                "function another name: a line `def name(features, target)` in place of the lambda"
            )
        groups, in_parts = {}, self.segment is not None or self.where is not None
        for each in inserted:
            kind = None if self.where is None else each.loss.compares
            groups.setdefault((in_parts and not each.loss.segments, kind), []).append(each)
        return [_Chain(tap, groups[key], overlap, key[0], self._seen(key[1])) for key in sorted(groups, key=str)]

    def _seen(self, kind):
        return functools.partial(self.where.seen, kind) if kind else lambda image, first: image

    def _masked(self, tap, kind, image, overlap):  # features of the pieces of a recording that count
        pieces = [tap(piece) for piece in self.where.pieces(kind, image, overlap or 0)]
        return {layer: torch.cat([each[layer] for each in pieces], dim=3) for layer in pieces[0]}

    def __call__(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the losses of an image by name, with gradients; for long images, evaluate takes less memory.

        The losses are multiplied by their weights; `weights` has these, so that a loss / its weight is its distance.
        The name holds the kind, and the layer with its network: "style conv_1", or "style width_8.conv_1".
        """
        self._check(image)
        losses = {}
        for _, _, found in self._computed(self.chains, image, with_graph=True):
            for each, loss in found:
                losses[each.full_name] = losses.get(each.full_name, 0) + loss
        return losses

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each loss, by its full name."""
        return {each.full_name: each.weight for chain in self.chains for each in chain.losses}

    @torch.enable_grad()
    def evaluate(
        self, tensor: torch.Tensor, *, through: Callable | None = None, by_network: bool = False
    ) -> tuple[dict, torch.Tensor]:
        """Compute the weighted losses of a tensor, and the gradient of their sum.

        The networks are evaluated one after the other, so that only the features of one are in memory.

        Parameters
        ----------
        tensor : torch.Tensor
            An image; or with `through`, what this function turns into an image, such as samples.
        by_network : bool
            Whether networks side by side keep their own names: "style width_8.conv_1"; otherwise, the losses of
            "style conv_1" are added up.

        Returns
        -------
        losses : dict from str to torch.Tensor
        gradient : torch.Tensor, like the tensor
        """
        _check_precise("the tensor that is optimised", tensor)
        changed = tensor.detach().requires_grad_()
        image = changed if through is None else through(changed)
        self._check(image)
        seen = image.detach().contiguous()  # torch.stft's output lies frame by frame, and each network would copy it
        gradient, losses, taps = torch.zeros_like(seen), {}, {}
        for chain in self.chains:
            taps.setdefault(id(chain.tap), []).append(chain)  # a tap by hooks can't see two images at once
        compute, apply = functools.partial(self._computed, image=seen), self._at_once(self.parts(), image)
        for places, added, found in itertools.chain.from_iterable(apply(compute, [*taps.values()])):
            if isinstance(places, slice):
                gradient[..., places] += added
            else:
                gradient.index_add_(-1, places, added)
            for each, loss in found:
                name = each.full_name if by_network else each.name
                losses[name] = losses.get(name, 0) + loss
        return losses, torch.autograd.grad(image, changed, gradient)[0].contiguous()

    def _computed(self, chains, image, with_graph=False):
        # For each part of the image: its frames, the gradient there, and the losses. With a graph, the losses depend on
        # the image, and no gradient is computed.
        computed = []
        for chain in chains:
            places = self._places(chain, image.shape[3], image.device)
            parts = self._parts(chain, image.shape[3] if places is None else len(places))
            for part in parts:
                where, found = part if places is None else places[part], []
                piece = image[..., where] if with_graph else image[..., where].contiguous().requires_grad_()
                features = chain.tap(chain.seen(piece, part.start))
                for each in chain.losses:
                    here = features[each.layer]
                    target = each.loss.cut(each.target, slice(part.start, part.start + here.shape[3]))
                    distance = _checked(each.name, each.loss.distance(here, target), here.requires_grad)
                    found.append((each, each.weight / len(parts) * distance))
                if with_graph:
                    computed.append((where, None, found))
                else:
                    gradient = torch.autograd.grad(sum(loss for _, loss in found), piece)[0]
                    computed.append((where, gradient, [(each, loss.detach()) for each, loss in found]))
        return computed

    def _check(self, image):
        _check_image("the image", image, next(iter(self._images()), image))

    def _places(self, chain, n_frames, device):  # frames of a circle, the first ones again behind the last one
        if not self.loop:
            return None
        return torch.arange(n_frames - 1 + (chain.overlap or 0), device=device) % (n_frames - 1)

    def _parts(self, chain, n_frames):  # slices of the frames
        segment, overlap, parts = self.segment or n_frames, chain.overlap, []
        if overlap is None or chain.whole:
            return [slice(0, n_frames)]
        for first, last in [(0, n_frames - overlap)] if self.where is None else self.where.ranges(overlap):
            edges = np.linspace(first, last, max(1, round((last - first) / segment)) + 1).astype(int)
            parts += [slice(begin, end + overlap) for begin, end in itertools.pairwise(edges)]
        return parts

    def parts(self) -> list:
        """List the layers and the losses, see fast.recorded."""
        layers = [layer for chain in self.chains if isinstance(chain.tap, nn.Module) for layer in chain.tap.modules()]
        return layers + self._distances()

    def _distances(self):
        return [term.loss.function if isinstance(term.loss, FunctionLoss) else term.loss for term in self.terms]

    def _at_once(self, parts, image):  # prints of one's own parts keep their order
        return map if image.device.type != "cpu" or fast.is_own(parts) else fast.in_threads


def _check_image(name, image, like):
    _check_precise(name, image)
    if image.ndim != 4 or len(image) != len(like):
        raise ValueError(
            f"{name} has the shape {tuple(image.shape)}, but the sounds that are compared must have (planes, channels, "
            f"height, width) and {len(like)} planes, as the first of them; give each sound an Objective of its own, or "
            "load all with as many channels"
        )


def _check_precise(name, tensor):
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} is of {tensor.dtype}, whose squares become 0 or infinite; give its .float()")


def _input(image):  # the tap of terms at the image, or the samples, themselves
    return dict.fromkeys(AS_GIVEN, image)


def _shares(blend, n_styles):
    blend = [1.0] * n_styles if blend is None else list(blend)
    if len(blend) != n_styles or min(blend, default=1) <= 0:
        raise ValueError(f"blend={blend} must hold one positive share for each of the {n_styles} styles")
    return [share / sum(blend) for share in blend]


# 4. Optimisation ---------------------------------------------------------------------------------


def lbfgs(tensors: list, *, history_size: int | None = None) -> torch.optim.Optimizer:
    """Return L-BFGS with a strong-Wolfe line search, and without tolerances that stop small losses early.

    history_size : int or None
        Steps that are remembered; None: as many as fit in MEMORY, from 5 to HISTORY.
    """
    if history_size is not None:
        check_number("history_size", history_size, 1, most=10**6, whole=True)  # no run has more steps
    step = sum(2 * each.numel() * each.element_size() for each in tensors)  # the step, and the gradient's change
    return torch.optim.LBFGS(
        tensors,
        max_iter=1,
        max_eval=27,  # bounds the line search too; the default, 1.25 max_iter, would allow none
        history_size=history_size or min(max(int(MEMORY // step), 5), HISTORY),
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )


def optimise(
    tensor: torch.Tensor,
    objective: Objective | list,
    *,
    num_steps: int,
    through: Callable | None = None,
    optimizer: Callable = lbfgs,
    redraw: int = 0,
    done: int = 0,
    precondition: Callable | None = None,
    memory: dict | None = None,
) -> Descent:
    """Change an image, or samples, until the losses are small; give each step's losses by name, and "total".

    Parameters
    ----------
    tensor : torch.Tensor
        Changed in place, only by whole steps: after an interrupt it holds the last finished step.
    objective : Objective, or a list of (through, Objective) whose losses add up
    num_steps, done : int
        Steps (each of one or more evaluations) when all are done, and those that are done already.
    through : function or None
        From samples to the image of the objective, see Analysis.view.
    optimizer : function
        From a list of one tensor to a torch.optim.Optimizer, such as functools.partial(torch.optim.Adam, lr=0.01).
    redraw : int
        After so many steps, the objective draws new random networks; 0: never.
    precondition : function or None
        From the tensor to a symmetric linear map; the optimiser then moves another tensor, and this map of that is the
        change of the tensor. See Analysis.preconditioner.
    memory : dict or None
        Of an earlier Descent with the same arguments, to go on as if it had not ended, bit for bit. None, or where the
        tensor, the optimiser or the preconditioner is another one: the optimiser begins again.
    """
    pairs = objective if isinstance(objective, list) else [(through, objective)]
    return Descent(
        tensor,
        pairs,
        range(done, num_steps),
        make_optimizer=optimizer,
        redraw=redraw,
        first_draw=SAMPLES_DRAW if pairs[0][0] is not None else 0,
        precondition=precondition,
        memory=memory,
    )


def check_optimizers(*optimizers: Callable) -> None:
    """Raise TypeError unless each is a function from a list of tensors to an optimiser, before any step is done."""
    for each in optimizers:
        made_optimizer(each, torch.zeros(1, requires_grad=True))
