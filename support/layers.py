"""Layers of any network by name, and the features that they give.

A network is traced by torch.fx. A layer is called by its kind and its number within that kind: conv_1, batchnorm_1,
relu_1, pool_1, conv_2 ... Functions and additions count like modules, and a module that is used twice counts twice. A
network that can't be traced, because its control flow depends on data, is tapped by forward hooks: its layers then
have the submodules' own names, such as blocks.3.mlp.

Conventions
  network   nn.Module, or an nn.ModuleDict of networks side by side: "conv_1" is then this layer of every network, and
            "width_8.conv_1" that of one
  image     torch tensor [shape=(planes, channels, height, width)], the only argument that a network needs
  features  what a layer gives [shape=(planes, channels, height, width)]; features of three axes are taken as (planes,
            channels, positions), those of linear and attention layers as (planes, positions, channels)

Sources
  torchvision.models.feature_extraction, for names on the graph; captum, for names of submodules and hooks
"""

import collections
import contextlib
import copy
import inspect
import re
import warnings

import numpy as np
import torch
import torch.fx
from torch import nn

from support import fast
from support.checks import check_network

CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
NO_LAYERS = {"getattr", "getitem", "size", "dim", "len"}  # steps of a graph that give no features


# 1. Names ----------------------------------------------------------------------------------------


def side_by_side(network: nn.Module) -> dict[str, nn.Module]:
    """Return the networks of an nn.ModuleDict by name, or one network alone under the name ""; they are checked.

    Of a network in DataParallel or torch.compile, the network inside.
    """
    networks = dict(network.items()) if isinstance(network, nn.ModuleDict) else {"": network}
    for name, each in networks.items():
        while isinstance(each, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(each, "_orig_mod"):
            each = getattr(each, "_orig_mod", None) or each.module
        check_network(each)
        networks[name] = each
    return networks


def named_layers(network: nn.Module) -> dict[str, str]:
    """List the layers of a network in the order of its forward pass: dict from name to a description.

    Of networks side by side, the names have the network's name in front: width_8.conv_2.
    """
    return {
        full_name(prefix, name): text
        for prefix, each in side_by_side(network).items()
        for name, text in Layers(each).described().items()
    }


def full_name(prefix: str, name: str) -> str:
    """Return the name of a layer in one of several networks."""
    return f"{prefix}.{name}" if prefix else name


class _Whole(nn.Module):
    # Calls the network with an image alone, so that fx takes the defaults of the other arguments.
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return self.network(image)


class _Tracer(torch.fx.Tracer):
    # A module of one's own that has no modules in it is a layer.
    def is_leaf_module(self, module, name):
        return super().is_leaf_module(module, name) or not list(module.children())


class Layers:
    """The layers of one network: on its graph, or where the network can't be traced, its submodules.

    steps : dict from a layer's name to its node or module
    """

    def __init__(self, network: nn.Module):
        self.network, self.root, self.graph = network, _Whole(network), None
        try:
            with _evaluating(network):
                self.graph = _Tracer().trace(self.root)
        except Exception as error:  # fx raises nearly anything on control flow that depends on data
            self.steps = {name: each for name, each in network.named_modules() if name}
            self.reason = str(error).splitlines()[0]
            return
        counts, self.steps = collections.Counter(), {}
        for node in self.graph.nodes:
            if node.op.startswith("call") and (kind := self._kind(node)) not in NO_LAYERS:
                counts[kind] += 1
                node.meta["layer"] = f"{kind}_{counts[kind]}"
                self.steps[node.meta["layer"]] = node
        self._keep_features()

    def module(self, name):
        """Return the module of a layer, or None for a function."""
        step = self.steps[name]
        if isinstance(step, nn.Module):
            return step
        return self.root.get_submodule(step.target) if step.op == "call_module" else None

    def described(self) -> dict[str, str]:
        """List the layers: dict from name to a description."""
        return {name: str(self.module(name) or step.target) for name, step in self.steps.items()}

    def _kind(self, node):
        target = type(self.root.get_submodule(node.target)) if node.op == "call_module" else node.target
        name = target if isinstance(target, str) else target.__name__
        name = re.sub(r"[123]d$", "", name.lower().replace("_", ""))
        return next((kind for kind in ("conv", "batchnorm", "pool") if kind in name), name)

    def _keep_features(self):
        # A step that overwrites its input gets a copy of it, and all steps after it take what the step gives.
        nodes = list(self.graph.nodes)
        for number, node in enumerate(nodes):
            if self._is_in_place(node):
                before, later = node.all_input_nodes[0], set(nodes[number + 1 :])
                before.replace_all_uses_with(node, delete_user_cb=later.__contains__)
                if node.op != "call_module":  # see _frozen for modules
                    with self.graph.inserting_before(node):
                        node.replace_input_with(before, self.graph.call_method("clone", (before,)))

    def _is_in_place(self, node):
        if node.op == "call_module":
            return getattr(self.root.get_submodule(node.target), "inplace", False)
        if node.op == "call_method":
            return node.target.endswith("_")
        if node.op != "call_function":
            return False
        name = node.target.__name__
        if name.endswith("_") and node.target.__module__ != "_operator":  # torch.relu_, but not operator.and_
            return True
        try:
            return inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments.get("inplace", False)
        except (ValueError, TypeError):  # of functions in C
            return False


@contextlib.contextmanager
def _evaluating(network):
    # fx writes the mode into the graph, for example of a functional dropout.
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


# 2. Features -------------------------------------------------------------------------------------


class Tap(nn.Module):
    """A copy of a network, frozen and in eval mode, that gives the features of some layers [dict from name to tensor].

    What these layers don't need is not computed. On the CPU, convolutions become faster ones with the same output.

    Parameters
    ----------
    network : nn.Module, or its Layers, which take 2 ms to find
    layers : list of str
        Names as named_layers gives them, without the name of a network in front.
    image : torch.Tensor
        One of the images that the network will take. ValueError names the layer that can't take it.
    """

    def __init__(self, network: nn.Module | Layers, layers: list[str], image: torch.Tensor, *, closed: bool = False):
        super().__init__()
        found = network if isinstance(network, Layers) else Layers(network)
        for name in layers:
            if name not in found.steps:
                raise ValueError(f"there is no layer {name!r}; choose among {', '.join(found.steps)}")
        self.channels_last = {name: isinstance(found.module(name), CHANNELS_LAST) for name in layers}
        self.found, self.closed, self.dtype, self.inputs, self.overlap = found, closed, image.dtype, {}, None
        network = closed_network(found.network) if closed else found.network
        if found.graph is None:
            self.body = _Hooked(network, layers, image.dtype)
            warnings.warn(
                f"{type(network).__name__} can't be traced ({found.reason}); its layers are called by its submodules' "
                f"own names, such as {layers[0]}",
                stacklevel=2,
            )
        else:
            self.body = _cut(found, _Whole(network), layers, image.dtype)
            prepare = _Prepare(self.body)
            with torch.no_grad():
                prepare.run(image)
            self.inputs = prepare.inputs

    @torch.no_grad()
    def find_overlap(self, image: torch.Tensor) -> None:
        """Find how many frames fewer than an image its features have, if those of a cut image are the same."""
        self.overlap = _overlap(self, image)

    def is_like(self, network: nn.Module) -> bool:
        """Whether a network differs from this tap's in its weights alone, so that renew may take its modules.

        True only where PyTorch's own modules stand one after the other, without hooks between them.
        """
        if not self.inputs or self.found.graph is None:
            return False
        targets = [node.target for node in self.body.graph.nodes if node.op in ("call_module", "get_attr")]
        modules = list(network.modules())
        hooked = any(each._forward_hooks or each._forward_pre_hooks for each in modules if [*each.children()])
        changed = any("forward" in vars(each) or isinstance(each, torch.fx.GraphModule) for each in modules)
        own = hooked or changed or fast.is_own(modules)
        return targets == [*self.inputs] and not own and str(network) == str(self.found.network)

    def renew(self, network: nn.Module) -> None:
        """Take the modules of a network that is_like this one; a tap from the beginning takes three times as long."""
        root = _Whole(closed_network(network) if self.closed else network)
        for target, seen in self.inputs.items():
            parent, _, name = target.rpartition(".")
            part = _frozen(getattr(root.get_submodule(parent), name), self.dtype)
            setattr(self.body.get_submodule(parent), name, fast.faster(part, seen))

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the features of an image by the layer's name."""
        try:
            found = self.body(image)
        except RuntimeError:
            if isinstance(self.body, torch.fx.GraphModule):
                _Prepare(self.body).run(image)  # names the layer
            raise
        return {name: _four_axes(name, found.get(name), last) for name, last in self.channels_last.items()}


def features(network: nn.Module, image: torch.Tensor, layers: list[str]) -> dict[str, torch.Tensor]:
    """Return the features of an image at layers by name, with gradients: for a picture, a classifier, an inversion.

    Raises ValueError for a layer that is not there, and names those that are.
    """
    found = {}
    for prefix, each in side_by_side(network).items():
        known, names = Layers(each).steps, [name.removeprefix(f"{prefix}.") for name in layers]
        own = [name for name in dict.fromkeys(names) if name in known]
        found |= {full_name(prefix, name): value for name, value in Tap(each, own, image)(image).items()} if own else {}
    missing = [name for name in layers if not any(full == name or full.endswith(f".{name}") for full in found)]
    if missing:
        raise ValueError(f"there is no layer {missing[0]!r}; choose among {', '.join(named_layers(network))}")
    return found


def _cut(found, root, layers, dtype):
    # The graph as far as the layers, with copies of the modules of root that it needs.
    graph, copied = torch.fx.Graph(), {}
    needed, todo = set(), [found.steps[name] for name in layers]
    while todo:
        needed.add(step := todo.pop())
        todo += set(step.all_input_nodes) - needed
    for node in found.graph.nodes:
        if node in needed or node.op == "placeholder":
            copied[node] = graph.node_copy(node, copied.get)
    graph.output({name: copied[found.steps[name]] for name in layers})
    parts = {}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            parent, _, name = node.target.rpartition(".")
            parts[node.target] = _frozen(getattr(root.get_submodule(parent), name), dtype)
    return torch.fx.GraphModule(parts, graph)


def _frozen(part, dtype):  # in the precision of the image: weights of half precision lose quiet sounds
    if isinstance(part, torch.Tensor):
        return nn.Parameter(part.detach().to(dtype), requires_grad=False) if part.is_floating_point() else part
    part = _copied(part).requires_grad_(False).eval()
    part = part.double() if dtype == torch.float64 else part.float()  # complex weights stay complex
    for module in part.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    return part


def _copied(network):  # a weight norm leaves a weight that was computed, which deepcopy refuses
    made = [value for module in network.modules() for value in vars(module).values() if torch.is_tensor(value)]
    return copy.deepcopy(network, {id(value): value.detach().clone() for value in made})


class _Prepare(torch.fx.Interpreter):
    # Runs a graph once: puts faster layers in place of others, notes shapes, and names the layer that fails.

    def __init__(self, body):
        super().__init__(body)
        self.extra_traceback, self.shapes, self.inputs = False, {}, {}

    def run_node(self, node):
        try:
            values = super().run_node(node)
            if torch.is_tensor(values) and "layer" in node.meta:
                self.shapes[node.meta["layer"]] = tuple(values.shape)
            return values
        except (RuntimeError, IndexError, TypeError) as error:
            given = [tuple(each.shape) for each in self.map_nodes_to_values(node.args, node) if torch.is_tensor(each)]
            layer = self.fetch_attr(node.target) if node.op == "call_module" else node.target
            raise ValueError(
                f"layer {node.meta.get('layer', node.name)}, {layer}, can't take features of shape "
                f"{', '.join(map(str, given))}: {str(error).splitlines()[0]}; change the network, or use a longer sound"
            ) from error

    def call_module(self, target, args, kwargs):
        layer = self.fetch_attr(target)
        if sum(node.target == target for node in self.module.graph.nodes) == 1 and torch.is_tensor(args[0]):
            self.inputs[target] = args[0][..., :1].clone()
            layer = fast.faster(layer, args[0])
            parent, _, name = target.rpartition(".")
            setattr(self.module.get_submodule(parent), name, layer)
        return layer(*args, **kwargs)


class _Hooked(nn.Module):
    # A network that stops as soon as the layers have given their features.

    def __init__(self, network, layers, dtype):
        super().__init__()
        self.network, self.layers, self.found = _frozen(network, dtype), layers, {}
        for name in layers:
            self.network.get_submodule(name).register_forward_hook(self._hook(name))

    def _hook(self, name):
        def keep(module, inputs, output):
            output = output[0] if isinstance(output, tuple) else output
            if torch.is_tensor(output):
                self.found.setdefault(name, output.clone())  # a later step may overwrite it in place
            if len(self.found) == len(self.layers):
                raise _Complete

        return keep

    def forward(self, image):
        self.found = {}
        with contextlib.suppress(_Complete):
            self.network(image.clone())  # which the network may overwrite in place
        found, self.found = self.found, {}
        return found


class _Complete(Exception):
    pass


def _overlap(tap, image):
    # How many frames fewer the features have, if those of a cut image are the same; None where layers pad, stride, or
    # see all frames at once.
    features = tap(image)
    overlap = max(image.shape[3] - each.shape[3] for each in features.values())
    first, last = image.shape[3] // 4, image.shape[3] // 4 + overlap + 8
    if overlap < 0 or last > image.shape[3]:
        first, last = 1, image.shape[3]
    if not 0 <= overlap < last - first:
        return None
    for name, part in tap(image[..., first:last].contiguous()).items():
        whole = features[name][..., first:][..., : part.shape[3]]
        if part.shape != whole.shape or part.shape[3] + overlap < last - first:
            return None
        if (part - whole).abs().max() > 1e-3 * whole.abs().max():
            return None
    return overlap


def _four_axes(name, values, channels_last):
    values = values[0] if isinstance(values, tuple | list) else values
    if not torch.is_tensor(values) or values.ndim not in (2, 3, 4):
        shape = tuple(getattr(values, "shape", ()))
        raise ValueError(
            f"layer {name!r} gives {type(values).__name__} of shape {shape}; choose a layer of 2 to 4 axes, which the "
            "network calls"
        )
    if values.ndim == 4:
        return values
    if values.ndim == 3:
        return (values.mT if channels_last else values)[:, :, None]  # (planes, channels, 1, positions)
    return values[:, :, None, None]


# 3. Shapes and receptive fields ------------------------------------------------------------------


@torch.no_grad()
def layer_shapes(network: nn.Module, image: torch.Tensor) -> dict[str, tuple]:
    """Shape of what each layer gives, by name; nothing is computed, but for networks that can't be traced.

    The list ends at a layer that can't take the image, such as a classifier for sounds of another length. ValueError
    where this is the first one.
    """
    shapes = {}
    for prefix, each in side_by_side(network).items():
        found = Layers(each)
        if found.graph is None:
            values = _Hooked(each, list(found.steps), image.dtype)(image)  # their control flow may depend on numbers
            own = {name: tuple(value.shape) for name, value in values.items()}
        else:
            run = _Prepare(_cut(found, found.root, list(found.steps), image.dtype).to("meta"))
            try:
                run.run(image.to("meta"))
            except ValueError:
                if not run.shapes:
                    raise
            own = run.shapes
        shapes |= {full_name(prefix, name): shape for name, shape in own.items()}
    return shapes


def receptive_fields(network: nn.Module) -> dict[str, int]:
    """Positions of the image's width that one position after each layer covers, of the layers that are modules.

    Functions are taken to see one position; of networks that can't be traced, nothing is known.
    """
    fields = {}
    for prefix, each in side_by_side(network).items():
        found, seen = Layers(each), {}
        for node in found.graph.nodes if found.graph else ():
            field, step = (max(pair) for pair in zip((1, 1), *map(seen.get, node.all_input_nodes), strict=True))
            if node.op == "call_module":
                layer = found.root.get_submodule(node.target)
                sides = ("kernel_size", "stride", "dilation")  # numbers, or one for height and one for width
                kernel, stride, dilation = (int(np.ravel(getattr(layer, side, 1))[-1]) for side in sides)
                field, step = field + (kernel - 1) * dilation * step, step * stride
            seen[node] = (field, step)
        steps = found.steps.items() if found.graph else ()
        fields |= {full_name(prefix, name): seen[step][0] for name, step in steps if step.op == "call_module"}
    return fields


def closed_network(network: nn.Module) -> nn.Module:
    """Return a copy of a network whose padded convolutions see the other end of an image in place of zeros.

    Square filters see the lowest bins beside the highest ones as well.
    """
    network = _copied(network)
    for layer in network.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.padding not in ("valid", (0,), (0, 0)):
            layer.padding_mode = "circular"
    return network
