"""Where a network can be cut in two, and the two halves.

A module is traced into a graph of operations in the order in which they run. It can be cut after an operation if
exactly one tensor goes on: parameters do not count, since each half has its own.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from mec_jax.files import did_you_mean

__all__ = ["CutGraph", "CutPoint", "split"]


@dataclass(frozen=True)
class CutPoint:
    """A place where one tensor goes on. The first sends the input; at the last, "local", nothing is left to send."""

    index: int
    name: str  # "input", the layer or operation that the cut follows, "local"
    shape: tuple[int, ...]  # of the tensor that crosses, for the example; () at the last
    dtype: torch.dtype | None  # of that tensor; None at the last
    activation_bytes: int  # largest sum of tensors alive at once up to here, for the example
    parameter_bytes: int  # parameters and buffers of the layers up to here

    @property
    def elements(self) -> int:
        """Elements of the tensor that crosses; 0 at the last point."""
        return 0 if self.dtype is None else math.prod(self.shape)


class CutGraph:
    """A module's graph and its legal cut points.

    Points are named as torchvision names the nodes of its graphs: by the path of the layer, e.g. "layer2.0.relu", or
    by the path of the module and the function in it, "layer2.0.add"; the second of a name ends in "_1".

    Args:
        module: In evaluation mode, from one tensor to anything. It stays as it is; the halves share its parameters.
        example: An input, for the shapes. It is traced by torch.fx, and by torch.export if torch.fx cannot; the latter
            fixes the batch size, and the halves then compute with PyTorch's basic operations instead of layers.

    Attributes:
        points: The cut points in order.

    Raises:
        ValueError: If the module is in training mode, or can't be traced or run on the example.
    """

    def __init__(self, module: nn.Module, example: torch.Tensor) -> None:
        if any(part.training for part in module.modules()):
            raise ValueError("the module is in training mode: call its eval() first, or layers like dropout are random")
        if not isinstance(example, torch.Tensor):
            raise ValueError(f"the example is a {type(example).__name__}: give one tensor, an input of the module")
        self.module = module
        try:
            with torch.no_grad():
                module(example.clone())
        except Exception as error:
            raise ValueError(
                f"the module does not run on an example of shape {list(example.shape)} ({_first_line(error)}): "
                "give an example of its input; a module with several inputs needs a wrapper with one"
            ) from None
        self._root, graph = _trace(module, example)
        *self._nodes, self._output = graph.nodes
        self._names = _names(self._nodes, self._root)
        recorder = _Recorder(fx.GraphModule(self._root, graph))
        with torch.no_grad():
            recorder.run(example.clone())
        self._positions: list[int] = []  # of each cut: the number of nodes before it; the last of them crosses
        self.points: tuple[CutPoint, ...] = self._find(recorder)

    def _find(self, recorder: "_Recorder") -> tuple[CutPoint, ...]:
        last_use = {node: position for position, node in enumerate(self._nodes)}
        for position, node in enumerate([*self._nodes, self._output]):
            for used in node.all_input_nodes:
                last_use[used] = position
        points: list[CutPoint] = []
        alive: set[fx.Node] = set()
        activations, parameters = 0, _Parameters(self._root)
        for position, node in enumerate(self._nodes):
            activations = max(activations, recorder.alive_bytes[node.name])
            parameters.add(node)
            alive = {other for other in (*alive, node) if other.op != "get_attr" and last_use[other] > position}
            local = position == len(self._nodes) - 1
            # Where it is another node's tensor that crosses, `node` does nothing that counts.
            if not local and (alive != {node} or node.name not in recorder.tensors):
                continue
            tensor = None if local else recorder.tensors[node.name]
            self._positions.append(position + 1)
            points.append(
                CutPoint(
                    index=len(points),
                    name="local" if local else self._names.get(node, "input"),
                    shape=() if tensor is None else tensor[0],
                    dtype=None if tensor is None else tensor[1],
                    activation_bytes=activations,
                    parameter_bytes=parameters.bytes,
                )
            )
        return tuple(points)

    def point(self, cut: int | str) -> CutPoint:
        """The cut point of this index, of this name, or after the module of this path.

        Raises:
            ValueError: If there is none, or several tensors cross there.
        """
        if isinstance(cut, int):
            if not 0 <= cut < len(self.points):
                raise ValueError(f"there is no cut {cut}: give 0 (send the input) to {len(self.points) - 1} (local)")
            return self.points[cut]
        for point in self.points:
            if point.name == cut:
                return point
        inside = [
            position
            for position, node in enumerate(self._nodes)
            if self._names.get(node, "") == cut or cut in _scopes(node)
        ]
        if not inside:
            hint = did_you_mean(cut, [point.name for point in self.points])
            raise ValueError(f"there is no layer {cut!r} to cut after, {hint}give one of {self._show(self.points)}")
        if inside[-1] + 1 not in self._positions:
            before = [point for point in self.points if self._positions[point.index] <= inside[-1]][-2:]
            after = [point for point in self.points if self._positions[point.index] > inside[-1]][:2]
            raise ValueError(f"more than one tensor crosses after {cut!r}: cut at {self._show([*before, *after])}")
        return self.points[self._positions.index(inside[-1] + 1)]

    def _show(self, points: Sequence[CutPoint]) -> str:
        names = [repr(point.name) for point in points]
        return ", ".join(names if len(names) <= 12 else [*names[:6], "...", *names[-5:]])

    def split(self, cut: int | str) -> tuple[nn.Module, nn.Module]:
        """Prefix and suffix at a cut; `suffix(prefix(x))` is bit-equal to `module(x)`.

        As in the module itself, a layer that works in place may overwrite what it is given: here, the feature.

        Raises:
            ValueError: If there is no such cut.
        """
        return self.segment(0, cut), self.segment(cut, len(self.points) - 1)

    def halves(self, cuts: Sequence[int | str]) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """Prefix and suffix at each of a policy's cuts, so that its choices drive this network and no other.

        Args:
            cuts: By choice, as `mec_jax.policy.Policy.cuts` has them.

        Raises:
            ValueError: If the network cannot be cut at one of them, or they come in another order.
        """
        places = [self.point(cut).index for cut in cuts]
        for i in range(1, len(cuts)):
            if places[i] < places[i - 1]:
                raise ValueError(f"cut {cuts[i]!r} comes before {cuts[i - 1]!r} in this network: it is another one")
        return tuple(map(self.split, places))

    def segment(self, start: int | str, stop: int | str) -> nn.Module:
        """What the network does from one cut to another; nothing if they are the same.

        Raises:
            ValueError: If there is no such cut, or `stop` comes before `start`.
        """
        first, last = self.point(start), self.point(stop)
        if first.index > last.index:
            raise ValueError(f"cut {stop!r} comes before {start!r}: give the earlier one first")
        if first.index == last.index:
            return nn.Identity()
        if first.index == 0 and last.dtype is None:
            return self.module
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}

        def copy(node: fx.Node) -> fx.Node:  # a parameter that both halves use is named before the cut alone
            if node not in copies:
                copies[node] = graph.node_copy(node, copy)
            return copies[node]

        begin, end = self._positions[first.index], self._positions[last.index]
        copies[self._nodes[begin - 1]] = graph.placeholder("feature")
        for node in self._nodes[begin:end]:
            copy(node)
        result = self._output.args[0] if last.dtype is None else self._nodes[end - 1]
        graph.output(fx.node.map_arg(result, copy))
        return fx.GraphModule(self._root, graph).eval()


def split(module: nn.Module, cut: int | str, example: torch.Tensor) -> tuple[nn.Module, nn.Module]:
    """Prefix and suffix of a module: `suffix(prefix(x))` is bit-equal to `module(x)`.

    Args:
        module: As for `CutGraph`.
        cut: Index of a cut point, 0 sends the input and the last one computes everything in the prefix; or its name.
        example: An input of the module.

    Raises:
        ValueError: If there is no such cut, or as for `CutGraph`.
    """
    return CutGraph(module, example).split(cut)


# Tracing.


def _trace(module: nn.Module, example: torch.Tensor) -> tuple[nn.Module, fx.Graph]:
    """The module that holds the parameters, and a graph with one placeholder whose output is args[0] of the last."""
    try:
        graph = fx.Tracer().trace(module)
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        if len(placeholders) == 1:
            return module, graph
        reason = f"it has {len(placeholders)} inputs"
    except Exception as error:  # whatever the module's own code makes of a proxy
        reason = _first_line(error)
    try:
        root = torch.export.export(module, (example.clone(),)).module(check_guards=False)
    except Exception as error:
        raise ValueError(
            f"the module can be traced neither by torch.fx ({reason}) nor by torch.export ({_first_line(error)}): "
            "take out what depends on the values of its input"
        ) from None
    output = next(node for node in root.graph.nodes if node.op == "output")
    results = output.args[0]
    if len(results) != 1:
        raise ValueError(f"the module gives {len(results)} tensors: wrap it in one that gives one")
    output.args = (results[0],)
    return root, root.graph


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return line if len(line) <= 160 else f"{line[:157]}..."


def _scopes(node: fx.Node) -> list[str]:
    """Paths of the modules that the node is in, from the outermost; of a layer, its own is the last."""
    return [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path]


def _names(nodes: Sequence[fx.Node], root: nn.Module) -> dict[fx.Node, str]:
    seen = Counter(("input", "local"))
    names = {}
    for node in nodes:
        if node.op in ("placeholder", "get_attr"):
            continue
        scope = (_scopes(node) or [""])[-1]
        if node.op == "call_module":
            name = node.target
        else:
            # "add" of the built-in function, "add" of aten.add_.Tensor
            function = getattr(node.target, "_opname", None) or getattr(node.target, "__name__", node.target)
            name = ".".join(filter(None, (scope, str(function).strip("_"))))
        seen[name] += 1
        names[node] = name if seen[name] == 1 else f"{name}_{seen[name] - 1}"
    return names


class _Recorder(fx.Interpreter):
    """Runs a graph and notes what each node gives and how many bytes are alive while it runs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.tensors: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        self.alive_bytes: dict[str, int] = {}

    def run_node(self, node: fx.Node) -> object:
        result = super().run_node(node)
        if isinstance(result, torch.Tensor):
            self.tensors[node.name] = tuple(result.shape), result.dtype
        storages: dict[int, int] = {}  # a view, and a result in place, has the storage of another

        def note(value: object) -> object:
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
            return value

        alive = [value for other, value in self.env.items() if other.op != "get_attr"]
        fx.node.map_aggregate([*alive, result] if node.op != "get_attr" else alive, note)
        self.alive_bytes[node.name] = sum(storages.values())
        return result


class _Parameters:
    """Bytes of the parameters and buffers that nodes use, each counted once."""

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._sizes: dict[int, int] = {}

    def add(self, node: fx.Node) -> None:
        used: list[torch.Tensor] = []
        if node.op == "call_module":
            layer = self._root.get_submodule(node.target)
            used = [*layer.parameters(), *layer.buffers()]
        elif node.op == "get_attr":
            path, _, name = node.target.rpartition(".")
            value = getattr(self._root.get_submodule(path), name)
            used = [value] if isinstance(value, torch.Tensor) else []
        self._sizes.update({id(tensor): tensor.nbytes for tensor in used})

    @property
    def bytes(self) -> int:
        return sum(self._sizes.values())
