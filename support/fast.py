"""The same numbers sooner: sorting, the distance of Gram matrices, convolutions, the calls of a GPU.

Everything here has a plain equivalent in PyTorch, which its docstring names with the gain and with the test
that holds both to the same numbers. The seconds are of two CPU cores; `python benchmarks/speed.py` measures them,
except for StackedConv, ScaledChannels, BandedConv and in_threads, which were measured by hand, and recorded, which
`python benchmarks/gpu.py` measures.

Conventions
  rows   torch tensor [shape=(channels, positions)], the features of one layer
  image  torch tensor [shape=(planes, channels, height, width)]
"""

import concurrent.futures
import functools
import warnings

import numpy as np
import torch
from torch import nn


class GramDistance(torch.autograd.Function):
    """Sum of squared differences between two Gram matrices, |F F' - S S'|^2, without forming them where that is slow.

    With more channels than positions, |F F' - S S'|^2 = |F' F|^2 - 2 |F' S|^2 + |S' S|^2 needs only products as
    small as the number of positions. Near the optimum the three terms cancel, so they are summed in float64, and
    the products are taken in float64 too when float32 would lose 1e-3 of the sum.

    Plain equivalent: `(rows @ rows.T / rows.shape[1] - gram).square().sum()`.
    Gain: 4096 filters, 10 s of sound: an evaluation takes 0.66 s instead of 1.07 s.
    Test: test_style_loss_in_float32_and_near_the_optimum.
    """

    @staticmethod
    def forward(ctx, rows, style, gram, style_term):
        """Take F (channels, n), S with S S' = gram (channels, m), the style's Gram matrix, and |S' S|^2."""
        n_positions = rows.shape[1]
        # On a GPU the products cost less than a look at the distance, and MPS has no float64.
        if rows.device.type != "cpu" or 2 * (n_positions + style.shape[1]) >= len(rows):
            left, right = (rows @ rows.T) / n_positions - gram, rows
            distance, ctx.scale = left.square().sum(), 4 / n_positions
        else:
            for dtype in (rows.dtype, torch.float64):
                left = torch.cat([rows / n_positions**0.5, style], dim=1).to(dtype)
                right = left.T @ left[:, :n_positions]
                own, cross = right[:n_positions], right[n_positions:].neg_()
                distance = own.double().square().sum() - 2 * cross.double().square().sum() + style_term
                if distance > 1e-5 * style_term:
                    break
            ctx.scale = 4 / n_positions**0.5
        ctx.save_for_backward(left, right)
        return distance

    @staticmethod
    def backward(ctx, grad):
        """Return the gradient, (F F' - S S') F or F (F' F) - S (S' F): one product, taken late to save memory."""
        left, right = ctx.saved_tensors
        left = ctx.scale * grad * left
        product = (right.T @ left.T).T if right.stride(0) == 1 else left @ right  # in the memory order of the rows
        return product, None, None, None


class SortedDistance(torch.autograd.Function):
    """Sum of squared differences between every row's sorted values and a target, each row's multiplied by a scale.

    On the CPU, NumPy sorts float64 by vector instructions. Values that come from float32 leave the last 29 bits of a
    float64 empty: the indices travel there.

    Plain equivalent: `(scale * (rows.sort(dim=1).values - target)).square().sum()`.
    Gain: an evaluation of the default recipe is 1.8 times as fast for 5 s of sound.
    Test: test_distribution_loss_is_the_distance_of_quantiles.
    """

    @staticmethod
    def forward(ctx, rows, target, scale):
        """Take rows, target [both shape=(channels, positions)] and scale [(channels, 1)]; rows lie row by row."""
        values, order = sorted_rows(rows)
        difference = (values - target).mul_(scale)
        ctx.save_for_backward(order, difference, scale)
        return difference.square().sum()

    @staticmethod
    def backward(ctx, grad):
        """Bring each value's gradient back to the value's place."""
        order, difference, scale = ctx.saved_tensors
        return torch.empty_like(difference).scatter_(1, order, 2 * grad * scale * difference), None, None


def sorted_rows(rows):
    """Return every row's values in ascending order, and where the values stood, see SortedDistance."""
    if rows.device.type == "cpu" and rows.dtype == torch.float32:
        keys = rows.double()
        order = keys.view(torch.int64)
        order |= torch.arange(rows.shape[1])
        keys.numpy().sort(axis=1)
        if not keys[:, -1].isnan().any():  # an infinite value with an index in its last bits is a NaN
            return keys.float(), order.bitwise_and_(2**29 - 1)
    return rows.sort(dim=1)


class OverlapSaveConv(nn.Module):
    """A convolution along the width of an image of height 1, by short FFTs that are written as real matrix products.

    Blocks and filters are transformed and multiplied bin by bin, each complex product by three real products.

    Plain equivalent: the nn.Conv2d that it is made from.
    Gain: 4096 filters, 10 s of sound: an evaluation takes 0.31 s instead of 0.66 s; 0.25 s instead of 0.33 s on
    another machine.
    Test: test_convolutions_stay_what_they_are.
    """

    def __init__(self, conv):
        super().__init__()
        taps = conv.kernel_size[1]
        self.size, self.before = 2 * (3 * taps // 2), (taps - 1) // 2
        dft = np.fft.rfft(np.eye(self.size), axis=0)
        real, imaginary = (np.fft.irfft(unit * np.eye(len(dft)), self.size, axis=0) for unit in (1, 1j))
        analysis = self._three(dft)  # (products, size)
        synthesis = np.hstack([real - imaginary, -real - imaginary, imaginary])[: self.size - taps + 1]
        used = analysis.any(axis=1) & synthesis.any(axis=0)  # the first and the last bin are real: one product each
        self.register_buffer("analysis", torch.from_numpy(analysis[used]).float())
        self.register_buffer("synthesis", torch.from_numpy(synthesis[:, used]).float())  # (step, products)
        filters = torch.from_numpy(self._three(dft[:, :taps].conj())[used]).float()
        self.register_buffer("filters", torch.einsum("pt,oit->poi", filters, conv.weight[:, :, 0]).contiguous())
        self.register_buffer("bias", torch.zeros(1) if conv.bias is None else conv.bias.detach()[:, None])

    @staticmethod
    def _three(spectra):
        return np.concatenate([spectra.real, spectra.imag, spectra.real + spectra.imag])

    def forward(self, image):
        """Take an image (1, channels, 1, width), return (1, filters, 1, width)."""
        width, step = image.shape[3], len(self.synthesis)
        n_blocks = -(-width // step)
        after = n_blocks * step - width + self.size - step - self.before
        rows = nn.functional.pad(image[0, :, 0], (self.before, after))
        blocks = rows.unfold(1, self.size, step) @ self.analysis.T  # (channels, n_blocks, products)
        products = self.filters @ blocks.permute(2, 0, 1)  # (products, filters, n_blocks)
        rows = (self.synthesis @ products.flatten(1)).view(step, -1, n_blocks)
        return (rows.permute(1, 2, 0).flatten(1)[:, :width] + self.bias)[None, :, None]


class StackedConv(nn.Module):
    """A convolution of an image with one channel, whose rows are shifted and stacked as channels first.

    PyTorch's gradient of a convolution with a single input channel is slow.

    Plain equivalent: the nn.Conv2d that it is made from.
    Gain: convolution and gradient of 512 filters of 11 x 11 over 5 s of sound: 0.28 s instead of 1.41 s.
    Test: test_square_filters_stay_what_they_are.
    """

    def __init__(self, conv):
        super().__init__()
        self.register_buffer("weight", conv.weight.detach().transpose(1, 2))  # (filters, height, 1, width)
        self.register_buffer("bias", conv.bias)

    def forward(self, image):
        """Take an image (planes, 1, n_bins, n_frames), return (planes, filters, n_bins, n_frames)."""
        height = self.weight.shape[1]
        image = nn.functional.pad(image[:, 0], (0, 0, (height - 1) // 2, height // 2))
        stack = image.unfold(1, height, 1).permute(0, 3, 1, 2)  # (planes, height, n_bins, n_frames)
        return nn.functional.conv2d(stack, self.weight, self.bias, padding="same")


class ScaledChannels(nn.Module):
    """A convolution that multiplies each channel by a number; PyTorch calls itself once for each of these channels.

    Plain equivalent: the nn.Conv2d that it is made from, with filters of one position and as many groups as channels.
    Gain: an evaluation of the default takes 0.029 s instead of 0.034 s, together with targets that are kept by length.
    Test: test_convolutions_stay_what_they_are.
    """

    def __init__(self, conv):
        super().__init__()
        self.register_buffer("weight", conv.weight.detach().reshape(-1, 1, 1))

    def forward(self, image):
        """Take an image (planes, channels, height, width), return one of the same shape."""
        return image * self.weight


class BandedConv(nn.Module):
    """A convolution of one position whose filters see a band of the channels: products of blocks without most zeros.

    Plain equivalent: the nn.Conv2d that it is made from.
    Gain: filters of the default and their gradient take 1.0 ms instead of 1.4 ms in one thread, for 5 s of sound.
    Test: test_banded_filters_stay_what_they_are.
    """

    # Filters of a block: 16 are as fast in one thread and slower in two, 64 not faster than the plain product.
    ROWS = 32

    def __init__(self, conv):
        super().__init__()
        weight = conv.weight.detach().flatten(1)  # (filters, channels)
        seen = weight.numpy() != 0
        first, last = seen.argmax(axis=1), seen.shape[1] - seen[:, ::-1].argmax(axis=1)
        self.n_filters, self.blocks = len(weight), []  # (filters, channels, weights)
        for begin in range(0, len(weight), self.ROWS):
            rows = slice(begin, begin + self.ROWS)
            band = slice(int(first[rows].min()), int(last[rows].max()))
            self.blocks.append((rows, band, weight[rows, band].contiguous()))
        self.share = sum(block.numel() for *_, block in self.blocks) / weight.numel()  # of the products that are left

    def forward(self, image):
        """Take an image (1, channels, height, width), return (1, filters, height, width)."""
        rows = _BandedProduct.apply(image.flatten(2)[0], self.blocks, self.n_filters)
        return rows.view(1, self.n_filters, *image.shape[2:])


class _BandedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, channels, blocks, n_filters):
        ctx.blocks, ctx.shape = blocks, channels.shape
        product = channels.new_empty(n_filters, channels.shape[1])
        for rows, band, block in blocks:
            torch.mm(block, channels[band], out=product[rows])
        return product

    @staticmethod
    def backward(ctx, grad):
        channels = grad.new_zeros(ctx.shape)
        for rows, band, block in ctx.blocks:
            channels[band].addmm_(block.T, grad[rows])
        return channels, None, None


def in_threads(function, items):
    """Return what a function gives for each item, in their order; as many at once as PyTorch has threads.

    One after the other, each small operation leaves all cores but one idle, and so does NumPy's sort. The last item,
    which is the longest one in an objective (the losses at the input), begins first: otherwise a core would wait for
    its end. The functions must not change what they share, see is_own.

    Plain equivalent: `list(map(function, items))`.
    Gain: 5 s of the default take 8.7 to 9.7 s instead of 10.2 to 10.7 s on two cores, and 0.82 of the processor time;
    the networks and the losses at the input take 10.4 ms instead of 12.2 ms where the last item begins first.
    Test: test_networks_at_once_give_what_they_give_one_by_one.
    """
    number = torch.get_num_threads()
    if number == 1 or len(items) == 1:
        return list(map(function, items))
    torch.set_num_threads(1)  # MKL takes the last number that any thread has set
    try:
        return list(_pool(number).map(function, items[::-1]))[::-1]
    finally:
        torch.set_num_threads(number)


@functools.cache
def _pool(number):
    return concurrent.futures.ThreadPoolExecutor(number, initializer=torch.set_num_threads, initargs=(1,))


def recorded(objective, parts, image):
    """Record the calls of a CUDA GPU in an objective, and play them back as one; elsewhere, return the objective.

    A recording repeats neither a printed line nor an `if`. Therefore an objective is not recorded if one of its parts,
    a layer or a loss, is neither PyTorch's nor of this project, nor is an objective that looks at a number on the GPU.

    Plain equivalent: the objective.
    Gain: a step of the default takes 6 to 7 ms instead of 12 ms, 30 s of sound 4.5 s instead of 10.1 s (NVIDIA H200).
    Test: test_a_recorded_objective_stays_what_it_is.
    """
    if image.device.type != "cuda" or is_own(parts):
        return objective
    with torch.cuda.device(image.device):
        seen, stream, graph = image.detach().clone(), torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            objective(seen)  # whatever is made once has to be made before
            if _looks_at_numbers(objective, seen):
                return objective
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            losses, gradient = objective(seen)

    def play(image):
        seen.copy_(image)
        graph.replay()
        return {name: loss.clone() for name, loss in losses.items()}, gradient.clone()

    return play


def is_own(parts):
    """Whether one of the parts, layers or losses, is neither PyTorch's nor of this project."""
    return bool({type(part).__module__.partition(".")[0] for part in parts} - {"torch", "audiocnn", "support"})


def _looks_at_numbers(objective, image):  # of the GPU, for example in an `if`
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls this mode a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            objective(image)
        except RuntimeError:
            return True
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return False


def faster(layer, image):
    """Return a faster layer with the same output for images like this one, or the layer itself."""
    if type(layer) is not nn.Conv2d or image.device.type != "cpu" or image.dtype != torch.float32 or image.ndim != 4:
        return layer
    if layer._forward_pre_hooks:  # of a weight norm or a spectral norm, which make the weight when they are called
        return layer
    if layer.bias is None and (layer.kernel_size, layer.stride, layer.padding) == ((1, 1), (1, 1), (0, 0)):
        if layer.groups == layer.in_channels == layer.out_channels:
            return ScaledChannels(layer)
        if layer.groups == len(image) == 1:
            banded = BandedConv(layer)
            return banded if banded.share < 0.8 else layer
        return layer
    if (layer.padding, layer.dilation, layer.groups, layer.padding_mode) != ("same", (1, 1), 1, "zeros"):
        return layer
    if layer.in_channels == 1 and layer.kernel_size[0] > 1:
        return StackedConv(layer)
    flat = layer.kernel_size[0] == image.shape[2] == image.shape[0] == 1 and layer.kernel_size[1] > 3
    # The transformed filters take over four times the memory of the filters.
    return OverlapSaveConv(layer) if flat and layer.weight.numel() < 1e8 else layer
