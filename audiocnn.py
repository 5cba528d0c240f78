"""Gatys' algorithm on spectrograms: networks, layers and losses, the start, the optimisation.

A network turns the spectrogram of a sound into features. Losses after named layers compare the features with those
of a style and of a content. L-BFGS changes an image until the weighted sum of the losses is small. This file reads
in that order; what surrounds it, from sound files to pictures, is in support/.

Conventions
  spectrogram  compressed magnitudes of a sound [shape=(n_bins, n_frames)], see support/transforms.py
  image        torch tensor [shape=(1, channels, height, width)], a spectrogram as a network takes it:
               "freq" (1, n_bins, 1, n_frames), "time" (1, n_frames, 1, n_bins), "2D" (1, 1, n_bins, n_frames);
               in stereo with 4 planes instead of 1, see support/stereo.py
  features     the output of a layer for an image [shape=(planes, channels, height, width)]
  rows         features as a matrix [shape=(planes * channels, positions)]
  model        nn.ModuleDict of LossChains, a network with losses inserted, as insert_losses returns it

Sources
  Gatys, Ecker, Bethge 2015, A Neural Algorithm of Artistic Style, arXiv:1508.06576
  Ulyanov, Lebedev 2016, Audio texture synthesis and style transfer (blog post)
  Huzaifah, Wyse 2019, Applying visual domain style transfer and texture synthesis techniques to audio, arXiv:1901.10240
  Antognini, Hoffman, Weiss 2019, Audio texture synthesis with random neural networks, arXiv:1806.08002
  Heitz, Vanhoey, Chambon, Belcour 2021, A sliced Wasserstein loss for neural texture synthesis
"""

import copy
import itertools
import re

import numpy as np
import scipy  # loads scipy.signal where it is used: that takes a second
import torch
import torch.fx
from torch import nn

from support import fast
from support.values import check_choice, check_number, check_positive_int

ORIENTATIONS = ("freq", "time", "2D")
STARTS = ("samples", "rand", "randn", "content", "noise")
N_QUANTILES = 4096  # that are kept of a style's features: of up to 24 s all, of longer styles enough


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

    def __init__(self, parameters):
        super().__init__()
        check_parameters(parameters)
        flat, size = parameters["orientation"] != "2D", parameters["kernelsize"]
        kernel, pool = ((1, size), (1, 2)) if flat else ((size, size), (2, 2))
        channels = [parameters[name] for name in ("in_channels", "l1channels", "l2channels", "l3channels")]

        def block(before, after):
            conv = nn.Conv2d(before, after, kernel, padding="same")
            return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(pool))

        self.layer1, self.layer2, self.layer3 = itertools.starmap(block, itertools.pairwise(channels))
        height, width = parameters["in_height"] // pool[0] ** 3, parameters["in_width"] // 8
        self.fc = nn.Linear(channels[-1] * height * width, parameters["n_classes"])

    def forward(self, image):
        """Image [shape=(batch, in_channels, in_height, in_width)] to scores [shape=(batch, n_classes)]."""
        features = self.layer3(self.layer2(self.layer1(image)))
        return self.fc(features.flatten(1))


def check_parameters(parameters):
    """Raise ValueError unless a dict holds the parameters of a CNN, see there."""
    numbers = ("l1channels", "l2channels", "l3channels", "in_channels", "in_height", "in_width")
    numbers = (*numbers, "kernelsize", "n_classes")
    missing = [name for name in (*numbers, "orientation") if name not in parameters]
    if missing:
        raise ValueError(f"the network's parameters lack {', '.join(missing)}; they hold {', '.join(parameters)}")
    check_positive_int(**{name: parameters[name] for name in numbers})
    check_choice("orientation", parameters["orientation"], ORIENTATIONS)
    pooled = ("in_width",) if parameters["orientation"] != "2D" else ("in_height", "in_width")
    for name in pooled:
        if parameters[name] < 8:
            raise ValueError(f"{name}={parameters[name]} must be at least 8, because three max-pools halve this side")


def band_networks(frequencies, *, widths, filters, pattern_share=0.0, dilation=1, seed=0):
    """Random networks side by side that see a texture in bands, at several time scales.

    Each has two layers: conv_1 adds up neighbouring bins, to smooth bands or by random patterns; conv_2 filters every
    sum over time by a random filter of its own. Separate widths follow Antognini 2019. Random sums of hundreds of
    bins are Gaussian for any sound and tell nothing; sums over a few ERB tell harmonics, which smooth bands blur.

    Parameters
    ----------
    frequencies : np.ndarray [shape=(n_bins,), Hz]
        Of the transform; the images have the orientation "freq".
    widths : list of int > 0 [frames]
        Lengths of the filters over time, one network each; a width that stands twice gives two networks.
    filters, dilation : int > 0
        Filters of each network, and frames between their taps over time.
    pattern_share : float from 0 to 1
        Share of the filters that see a random pattern; the others see a smooth band.

    Returns
    -------
    networks : nn.ModuleDict of nn.Sequential, called width_1, width_2 ..., and width_1_2 for the second of width 1
    """
    check_positive_int(filters=filters, dilation=dilation, **{f"width {width}": width for width in widths})
    check_number("pattern_share", pattern_share, 0, most=1)
    generator = torch.Generator().manual_seed(seed)
    erb = torch.from_numpy(9.265 * np.log1p(np.asarray(frequencies) / 228.8)).float()  # Glasberg & Moore 1990
    n_patterns, networks = round(pattern_share * filters), nn.ModuleDict()
    for number, width in enumerate(widths):
        parts = [_smooth_bands, filters - n_patterns], [_patterns, n_patterns]
        sums = torch.cat([make(erb, count, generator) for make, count in parts if count])  # (filters, n_bins)
        taps = nn.functional.normalize(torch.randn(filters, width, generator=generator))
        conv_1 = nn.Conv2d(len(erb), filters, 1, bias=False)
        conv_2 = nn.Conv2d(filters, filters, (1, width), dilation=(1, dilation), groups=filters, bias=False)
        conv_1.weight.data, conv_2.weight.data = sums[:, :, None, None], taps[:, None, None]
        earlier = list(widths[:number]).count(width)
        networks[f"width_{width}" + (f"_{earlier + 1}" if earlier else "")] = nn.Sequential(conv_1, conv_2)
    return networks.requires_grad_(False).eval()


def _smooth_bands(erb, count, generator):  # (count, n_bins), from 1 to 2 erb[-1] ERB wide
    return nn.functional.normalize(_neighbourhoods(erb, (2 * erb[-1]) ** torch.rand(count, 1, generator=generator) / 2))


def _patterns(erb, count, generator):  # (count, n_bins), from 1 to 8 ERB wide
    spread = 8 ** torch.rand(count, 1, generator=generator) / 2
    return nn.functional.normalize(torch.randn(count, len(erb), generator=generator) * _neighbourhoods(erb, spread))


def _neighbourhoods(erb, spread):  # Gaussians around centres that lie evenly on the ERB scale
    # The outermost centres lie half an ERB outside: otherwise the outermost bins would hardly count.
    centres = torch.linspace(erb[0] - 0.5, erb[-1] + 0.5, len(spread))[:, None]
    weights = torch.exp(-0.5 * ((erb - centres) / spread) ** 2)
    return torch.where(weights < 1e-3, 0, weights)


# 2. Layers by name -------------------------------------------------------------------------------


def named_layers(network):
    """List the layers of a network in the order of its forward pass.

    A layer is called by its kind and its number within that kind: conv_1, batchnorm_1, relu_1, pool_1, conv_2 ...
    A layer that the network uses twice counts twice. The list ends at the first step that is no layer (a flatten, a
    sum of branches), because the steps after it can't be rebuilt as a chain.

    Returns
    -------
    layers : dict from str to nn.Module
    """
    try:
        nodes = torch.fx.symbolic_trace(network).graph.nodes
    except Exception as error:  # fx raises nearly anything on control flow that depends on data
        raise ValueError(f"{type(network).__name__} is not a chain of layers: {error}; use an nn.Sequential") from error
    layers, counts = {}, {}
    for previous, node in itertools.pairwise(nodes):
        if node.op != "call_module" or node.args != (previous,):
            break
        layer = network.get_submodule(node.target)
        name = re.sub(r"[123]d$", "", type(layer).__name__.lower())
        kind = next((kind for kind in ("conv", "batchnorm", "pool") if kind in name), name)
        counts[kind] = counts.get(kind, 0) + 1
        layers[f"{kind}_{counts[kind]}"] = layer
    return layers


def side_by_side(network):
    """Return the networks of an nn.ModuleDict by name, or one network alone under the name ""."""
    return dict(network.items()) if isinstance(network, nn.ModuleDict) else {"": network}


@torch.no_grad()
def layer_shapes(network, image):
    """Feature shape after each layer: dict from layer name to (1, channels, height, width); nothing is computed."""
    shapes = {}
    for prefix, chain in side_by_side(network).items():
        features = image.to("meta")
        for name, layer in named_layers(chain).items():
            features = _apply(name, copy.deepcopy(layer).to("meta"), features)
            shapes[f"{prefix} {name}".strip()] = tuple(features.shape)
    return shapes


def _apply(name, layer, features):
    try:
        return layer(features)
    except RuntimeError as error:
        raise ValueError(
            f"layer {name}, {layer}, can't take features of shape {tuple(features.shape)}: {error}; "
            "change the network, or use a longer sound"
        ) from error


def receptive_fields(network):
    """Positions of the image's width that one position after each layer covers: dict from layer name to int."""
    fields = {}
    for prefix, chain in side_by_side(network).items():
        field, step = 1, 1
        for name, layer in named_layers(chain).items():
            sides = ("kernel_size", "stride", "dilation")  # numbers, or one for height and one for width
            kernel, stride, dilation = (int(np.ravel(getattr(layer, side, 1))[-1]) for side in sides)
            field, step = field + (kernel - 1) * dilation * step, step * stride
            fields[f"{prefix} {name}".strip()] = field
    return fields


# 3. Losses ---------------------------------------------------------------------------------------


def rows_of(features):
    """Features [shape=(planes, channels, height, width)] as rows [shape=(planes * channels, positions)]."""
    return features.flatten(2).flatten(0, 1)


def gram_matrix(features):
    """Gram matrix of the channels [shape=(channels, channels)], divided by the number of positions.

    Gatys divides by the channels too, inside the loss; here StyleLoss takes the mean over the entries.
    """
    rows = rows_of(features)
    return (rows @ rows.T) / rows.shape[1]


class Loss(nn.Module):
    """A transparent layer: it returns the features as they are, and keeps its weighted distance in `loss`.

    A loss owns its name, its weight and its target. A subclass says what it compares with ("style", "content" or
    nothing), takes this target in its constructor, and computes the `distance` of features [a number].
    """

    kind = "loss"  # the first word of the loss's name; the second is its layer
    compares = None
    name, weight, loss = "loss", 1.0, None
    first_frame = 0  # of the whole image, where these features begin

    def forward(self, features):
        """Compute the loss, return the features."""
        self.loss = self.weight * self.distance(features)
        return features


def blended(describe, styles, blend):
    """Return the mean of what describe returns for each style, weighted by blend."""
    return sum(share * describe(style.detach()) for share, style in zip(blend, styles, strict=True))


class StyleLoss(Loss):
    """Mean squared difference between the Gram matrices of the features and of the style.

    Gatys divides by 4 channels^2 positions^2; we divide by channels^2, with Gram matrices per position, so that the
    two sounds may differ in length. Several styles are blended: the target is the mean of their Gram matrices,
    weighted by blend. Computed by fast.GramDistance.
    """

    kind, compares = "style", "style"

    def __init__(self, *styles, blend=(1.0,)):
        super().__init__()
        self.gram = blended(gram_matrix, styles, blend)
        rows = [rows_of(style.detach()) for style in styles]
        rows = [(share / each.shape[1]) ** 0.5 * each for share, each in zip(blend, rows, strict=True)]
        self.rows = torch.cat(rows, dim=1)  # rows rows' is gram
        rows = self.rows.cpu().double()  # on the CPU, because MPS has no float64
        self.style_term = (rows.T @ rows if rows.shape[1] < len(rows) else rows @ rows.T).square().sum().item()

    def distance(self, features):
        """Take features of any number of positions."""
        rows = rows_of(features)
        return fast.GramDistance.apply(rows, self.rows, self.gram, self.style_term) / len(rows) ** 2


class DistributionLoss(Loss):
    """How far the distribution of each channel's values is from the style's: a sliced Wasserstein distance.

    Mean squared difference of sorted values, divided by the channel's variance in the style to the power of balance,
    and by the mean variance to the rest. A Gram matrix sees means and covariances; this loss sees the whole
    distribution of every channel: how often the channel is silent, how loud its rare events are (Heitz 2021).
    Several styles are blended by the mean of their quantiles, the Wasserstein barycentre.
    """

    kind, compares = "style", "style"
    balance = 0.0  # all channels are divided alike

    def __init__(self, *styles, blend=(1.0,)):
        super().__init__()
        n_quantiles = min(rows_of(styles[0]).shape[1], N_QUANTILES)
        target = blended(lambda style: _quantiles(rows_of(style).sort(dim=1).values, n_quantiles), styles, blend)
        self.targets = {n_quantiles: target}  # by the number of positions
        variance = target.var(dim=1, keepdim=True)  # (channels, 1)
        mean = variance.mean()
        self.scale = ((variance / mean).clamp_min(0.01) ** self.balance * mean).rsqrt()

    def distance(self, features):
        """Take features of any number of positions."""
        rows = rows_of(features).contiguous()  # row by row in memory, otherwise sorting is slow
        n_positions = rows.shape[1]
        if n_positions not in self.targets:  # of two lengths of segments at most
            self.targets[n_positions] = _quantiles(next(iter(self.targets.values())), n_positions)
        return fast.SortedDistance.apply(rows, self.targets[n_positions], self.scale) / rows.numel()


def _quantiles(values, n_quantiles):  # of sorted values, as linear interpolation finds them
    return nn.functional.interpolate(values[None], size=n_quantiles, mode="linear")[0]


class BalancedLoss(DistributionLoss):
    """DistributionLoss where quiet channels count nearly as much as loud ones: textures copy less of their style."""

    balance = 0.65  # in transfers, the content would have to be silent wherever the style is


STYLE_LOSSES = {
    "gram": StyleLoss,
    "distribution": DistributionLoss,
    "balanced": BalancedLoss,
}  # by the name of the statistic


class ContentLoss(Loss):
    """Mean squared difference between the features and the content's."""

    kind, compares = "content", "content"

    def __init__(self, content):
        super().__init__()
        self.target = content.detach()

    def distance(self, features):
        """Take the features of the whole image, or of a segment of its frames."""
        return (features - self.target[..., self.first_frame :][..., : features.shape[3]]).square().mean()


class BoundLoss(Loss):
    """Sum of the squared distances of an image's values from [0, 1], the soft bound of Huzaifah & Wyse."""

    kind = "bound"

    def distance(self, features):
        """Take the image itself."""
        return (features - features.clamp(0, 1)).square().sum()


# 4. Losses inserted into a network ---------------------------------------------------------------


class LossChain(nn.Sequential):
    """Layers of one network as far as its last loss, with losses after some of them.

    `overlap` is the number of frames that a segment needs beyond its own for the same features; None where layers
    pad or stride and would see the segment's ends, so that the chain takes whole images only.
    """

    overlap, n_frames = None, float("inf")  # the chain looks at the first n_frames of an image

    def losses(self, image, *, first_frame=0):
        """Return the weighted losses of an image by name [dict from str to torch.Tensor, with gradients]."""
        losses = [layer for layer in self.children() if isinstance(layer, Loss)]
        for layer in losses:
            layer.first_frame = first_frame
        self(image)
        values = {layer.name: layer.loss for layer in losses}
        for layer in losses:
            layer.loss = layer.loss.detach()  # a loss that keeps its graph keeps all features in memory
        return values


def insert_losses(network, terms, *, style, content=None, blend=None):
    """Return a network as an nn.ModuleDict of LossChains: as far as the last layer with a loss, losses inserted.

    Parameters
    ----------
    network : nn.Module
        A CNN, any chain of layers, or an nn.ModuleDict of chains side by side; stays unchanged.
    terms : list of (Loss subclass, layer name, weight)
        The sum that is minimised. Layers as named_layers gives them, or "input" for the image itself; terms of
        weight 0 are left out. The term (StyleLoss, "relu_1", 10.0) becomes the loss "style relu_1".
    style, content : torch.Tensor [shape=(1, channels, height, width)]
        The images whose features the losses compare with; style may be a list of images. They may differ in length,
        unless the channels are time frames.
    blend : list of float > 0
        Shares of the styles; None: equal.
    """
    styles = [style] if isinstance(style, torch.Tensor) else list(style)
    blend = _shares(blend, len(styles))
    terms = [term for term in terms if term[2]]
    if not terms:
        raise ValueError("there is no loss with a weight above 0, so nothing to optimise; give a layer and a weight")
    model, at_input = nn.ModuleDict(), [term for term in terms if term[1] == "input"]
    for name, chain in side_by_side(network).items():
        if len(terms) > len(at_input):
            model[name or "network"] = _insert(chain, [t for t in terms if t not in at_input], styles, content, blend)
    if at_input:
        model["input"] = LossChain()
        for term in at_input:
            _add_loss(model["input"], term, styles, content, blend)
    return model if isinstance(network, nn.ModuleDict) else model.to(memory_format=torch.channels_last)


def _shares(blend, n_styles):
    blend = [1.0] * n_styles if blend is None else list(blend)
    if len(blend) != n_styles or min(blend) <= 0:
        raise ValueError(f"blend={blend} must hold one positive share for each of the {n_styles} styles")
    return [share / sum(blend) for share in blend]


@torch.no_grad()
def _insert(network, terms, styles, content, blend):
    layers = named_layers(network)
    for loss, tapped, _ in terms:
        if tapped not in layers:
            raise ValueError(f"{loss.kind} layers: there is no layer {tapped!r}; choose among {', '.join(layers)}")
    last = max(list(layers).index(tapped) for _, tapped, _ in terms)
    chain, n_frames = LossChain(), styles[0].shape[3]
    for name, layer in itertools.islice(layers.items(), last + 1):
        layer = fast.faster(copy.deepcopy(layer).requires_grad_(False).eval(), styles[0])
        layer.inplace = False  # an in-place ReLU would overwrite the features that a loss has seen
        chain.add_module(name, layer)
        styles = [_apply(name, layer, style) for style in styles]
        content = None if content is None else _apply(name, layer, content)
        for term in terms:
            if term[1] == name:
                _add_loss(chain, term, styles, content, blend)
    overlap = receptive_fields(network)[list(layers)[last]] - 1
    chain.overlap = overlap if n_frames - styles[0].shape[3] == overlap else None
    return chain


def _add_loss(chain, term, styles, content, blend):
    make, tapped, weight = term
    if make.compares == "content" and content is None:
        raise ValueError(f"the {make.kind} loss at {tapped!r} needs a content; give one, or leave out its layer")
    targets = {"style": styles, "content": [content], None: []}[make.compares]
    loss = make(*targets, blend=blend) if make.compares == "style" else make(*targets)
    loss.name, loss.weight = f"{make.kind} {tapped}", weight
    if loss.name in dict(chain.named_children()):
        raise ValueError(f"two losses are called {loss.name!r}; leave one out, or give one's class another kind")
    chain.add_module(loss.name, loss)


# 5. The start ------------------------------------------------------------------------------------


def matched_noise(samples, *, length, seed=0):
    """Stationary noise [shape=(length,)] with the level and the average spectrum of samples [shape=(n,)].

    The best start for a texture: its spectrogram belongs to a sound, so that a phase can be found again in the end.
    The spectrogram of independent random values belongs to none.
    """
    n_fft = min(2048, len(samples))
    frequencies, power = scipy.signal.welch(samples, nperseg=n_fft)
    noise = np.fft.rfft(np.random.default_rng(seed).standard_normal(length))
    noise = np.fft.irfft(noise * np.interp(np.fft.rfftfreq(length), frequencies, np.sqrt(power)), length)
    return (noise * np.sqrt(np.mean(np.square(samples)) / np.mean(np.square(noise)))).astype(np.float32)


def start_image(start, *, like, seed=0, lower=0.0, upper=1.0, mu=0.5, sigma=0.25, content=None, noise=None):
    """Make the image that the optimisation starts from.

    Parameters
    ----------
    start : str
        "samples": truncated normal (mu, sigma) between lower and upper; "rand": uniform 0 to 0.1;
        "randn": normal around 0; "content", "noise": a copy of these images.
    like : torch.Tensor
        An image with the shape and the device to use; for a shape, the same seed gives the same image.
    content, noise : torch.Tensor
        Images of the content, and of matched_noise.
    """
    check_choice("start", start, STARTS)
    if start in ("content", "noise"):
        image = content if start == "content" else noise
        if image is None or image.shape != like.shape:
            raise ValueError(
                f"the start {start!r} needs a {start} image of the result's shape, {tuple(like.shape)}, "
                f"not {None if image is None else tuple(image.shape)}; give one, or choose samples, rand or randn"
            )
        return image.detach().clone()
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device starts alike
    values = torch.empty(like.shape)
    if start == "samples":
        if not (lower < upper and sigma > 0):
            raise ValueError(f"{lower=} must be below {upper=}, and {sigma=} positive")
        nn.init.trunc_normal_(values, mu, sigma, lower, upper, generator=generator)
    elif start == "rand":
        values.uniform_(0, 0.1, generator=generator)
    else:
        values.normal_(0, 1, generator=generator)
    return values.to(like.device)


# 6. Optimisation ---------------------------------------------------------------------------------


def evaluate(image, model, *, segment=None, view=None):
    """Compute the losses of an image and the gradient of their sum.

    Parameters
    ----------
    image : torch.Tensor [shape=(1, channels, height, width)]
    model : nn.ModuleDict of LossChain
        The chains are evaluated one after the other, so that only the features of one are in memory.
    segment : int or None [frames]
        An image longer than about 1.5 segments is compared segment by segment, each with all of the style, and the
        losses are means over the segments; only in chains without padding and strides, see LossChain.
    view : function or None
        Makes the image of a tensor of another kind, such as samples; the gradient is then that of this tensor.

    Returns
    -------
    losses : dict from str to torch.Tensor
        The weighted losses by name; networks side by side share names, and add up.
    gradient : torch.Tensor
    """
    changed = image.detach().requires_grad_()
    image = changed if view is None else view(changed)
    values, gradient, losses = image.detach(), torch.zeros_like(image), {}
    for chain in model.values():
        segments = _segments(chain, image.shape[3], segment)
        for part in segments:
            piece = values[..., part].contiguous().requires_grad_()  # torch.stft's output lies frame by frame
            found = chain.losses(piece, first_frame=part.start)
            gradient[..., part] += torch.autograd.grad(sum(found.values()), piece)[0] / len(segments)
            for name, loss in found.items():
                losses[name] = losses.get(name, 0) + loss.detach() / len(segments)
    return losses, torch.autograd.grad(image, changed, gradient)[0].contiguous()


def _segments(chain, n_frames, segment):
    if segment is not None:
        check_positive_int(segment=segment)
    n_frames = min(n_frames, chain.n_frames)
    if segment is None or chain.overlap is None:
        return [slice(0, n_frames)]
    n_segments = max(1, round((n_frames - chain.overlap) / segment))
    edges = np.linspace(0, n_frames - chain.overlap, n_segments + 1).astype(int)
    return [slice(first, last + chain.overlap) for first, last in itertools.pairwise(edges)]


def optimise(image, objective, *, num_steps, history_size=50, precondition=torch.clone):
    """Change an image by L-BFGS with a strong-Wolfe line search; yield each step's losses by name, and "total".

    Parameters
    ----------
    image : torch.Tensor
        Changed in place, only by whole steps: after an interrupt it holds the last finished step, and calling
        optimise again goes on from there.
    objective : function
        From an image to its losses by name and the gradient of their sum; see evaluate.
    num_steps, history_size : int
        Steps (each of one or more evaluations), and how many of them L-BFGS remembers.
    precondition : function
        Symmetric linear map from L-BFGS's tensor to the change of the image; see support/preconditioning.py.
    """
    begin, point, seen = image.detach().clone(), torch.zeros_like(image).requires_grad_(), None

    def closure():
        nonlocal seen, losses, changed
        if seen is None or not torch.equal(seen, point):  # a step begins with the point where the last one ended
            changed = begin + precondition(point.detach())
            losses, gradient = objective(changed)
            for name, loss in losses.items():
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"the loss {name!r} is {loss}; lower its weight or change the start")
            point.grad = precondition(gradient).contiguous()  # a symmetric map is its own gradient
            losses["total"] = sum(losses.values())
            seen = point.detach().clone()
        return losses["total"]

    losses, changed, optimizer = {}, None, lbfgs(point, max_iter=1, history_size=history_size)
    for step in range(1, num_steps + 1):
        try:
            optimizer.step(closure)
            closure()  # of the point that the line search chose
        except FloatingPointError as error:
            raise FloatingPointError(f"step {step}: {error}; the image keeps step {step - 1}") from None
        values = {name: float(loss) for name, loss in losses.items()}
        image.copy_(changed)  # last: after an interrupt, image and losses are of the same step
        yield values
    optimizer.state.clear()  # Python may find the first optimizer late: for 5 minutes, 5 steps of 0.1 GB each


def lbfgs(tensor, *, max_iter, history_size):
    """Return PyTorch's L-BFGS with a strong-Wolfe line search, and without tolerances that stop small losses early."""
    # max_eval bounds the line search too; the default, 1.25 max_iter, would allow none.
    steps = dict(max_iter=max_iter, max_eval=25 + 2 * max_iter, history_size=history_size)
    return torch.optim.LBFGS([tensor], **steps, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe")
