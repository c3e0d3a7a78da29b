"""Programs of torch.export that can be edited: one flat graph, its weights by name, and what callers see of it.

A `Flat` is a program taken apart and put together again. It is functional (nothing is changed in place, so nodes may
change places), and modules of the original are not in it.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import operator
import warnings
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import fx
from torch.export import ExportedProgram, ModuleCallEntry
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputSpec,
    TensorArgument,
)
from torch.utils import _pytree as pytree

from vambrace.core.reason import reason
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from torch import Tensor

__all__ = ["Flat", "WEIGHTS", "is_tensor", "program_digest", "schema_arguments", "values_of"]

WEIGHTS = frozenset({InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR})
"""Inputs that the program itself holds."""
_KEPT = ("val", "tensor_meta")


@dataclasses.dataclass(slots=True, eq=False)
class Flat:
    """A program taken apart.

    Attributes:
        graph: torch.fx.Graph of its own.
        modules: graphs that operators of control flow hold, by attribute name.
        inputs: one spec for each placeholder, in order.
        outputs: specs of what the graph gives.
        state: parameters and persistent buffers by name; tensors of their own.
        constants: other tensors and objects by name.
        rest: what goes back as it was: ranges of sizes, the calling convention, dialects.
    """

    graph: fx.Graph
    modules: dict[str, fx.GraphModule]
    inputs: list[InputSpec]
    outputs: list[OutputSpec]
    state: dict[str, Tensor]
    constants: dict[str, Any]
    rest: dict[str, Any]

    @classmethod
    def of(cls, program: ExportedProgram, *, functional: bool = False) -> Flat:
        """Take a program apart; it is not changed.

        Args:
            program: any.
            functional: whether it is so already, as one that `program` gave; else torch makes it so, and new names.

        Raises:
            ConfigError: E850, where torch cannot make it functional, or it changes what it is given.
        """
        made = program if functional else _functional(program)
        if made.graph_signature.user_inputs_to_mutate:
            raise ConfigError(
                "E850",
                seen="a program that changes its inputs in place",
                expected="a program that only gives outputs",
                fix="clone the inputs first in the module's forward, and export it again",
            )
        signature = made.graph_signature
        owned: dict[Any, Tensor] = {}
        return cls(
            graph=_copied(made.graph),
            modules={
                name: copy.deepcopy(module)
                for name, module in made.graph_module.named_children()
                if isinstance(module, fx.GraphModule)
            },
            inputs=copy.deepcopy(signature.input_specs),
            outputs=copy.deepcopy(signature.output_specs),
            state={name: _own(tensor, owned) for name, tensor in made.state_dict.items()},
            constants={
                name: _own(each, owned) if isinstance(each, torch.Tensor) else each
                for name, each in made.constants.items()
            },
            rest={
                "range_constraints": made.range_constraints,
                "call": made.module_call_graph[0],
                "arguments": _argument_names(made),
                "example_inputs": None,
                "verifiers": made.verifiers,
            },
        )

    def program(self) -> ExportedProgram:
        """Put together; nothing of the original is in it but what this holds."""
        call: ModuleCallEntry = self.rest["call"]
        if call.signature is not None:
            signature = dataclasses.replace(call.signature, forward_arg_names=self.rest["arguments"])
            call = ModuleCallEntry("", signature)
        return ExportedProgram(
            root={name: copy.deepcopy(module) for name, module in self.modules.items()},
            graph=_copied(self.graph),
            graph_signature=ExportGraphSignature(copy.deepcopy(self.inputs), copy.deepcopy(self.outputs)),
            state_dict=dict(self.state),
            range_constraints=self.rest["range_constraints"],
            module_call_graph=[call],
            constants=dict(self.constants),
            verifiers=self.rest["verifiers"],
        )

    def placeholders(self) -> list[fx.Node]:
        """The nodes that `inputs` are about, in order."""
        return [node for node in self.graph.nodes if node.op == "placeholder"]

    def weights(self) -> Iterator[tuple[fx.Node, str]]:
        """Placeholders of what the program holds, each with its name there."""
        for node, spec in zip(self.placeholders(), self.inputs, strict=True):
            if spec.kind in WEIGHTS and spec.target is not None:
                yield node, spec.target

    def tensor(self, target: str) -> Tensor:
        """A weight by its name."""
        return self.state[target] if target in self.state else self.constants[target]

    def replace(self, target: str, values: Tensor) -> None:
        """Give a weight other values of the same kind and shape, under all its names."""
        old = self.tensor(target)
        # Elements lie in memory as they did, since operators choose their kernels by that.
        new = torch.empty_like(old, requires_grad=False).copy_(values.reshape(old.shape))
        if isinstance(old, torch.nn.Parameter):
            new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
        for held in (self.state, self.constants):
            # Several names may share a tensor.
            held.update({name: new for name, each in held.items() if each is old})

    def add_buffer(self, name: str, values: Tensor) -> fx.Node:
        """A new buffer, and the placeholder for it."""
        first = next(iter(self.graph.nodes))
        with self.graph.inserting_before(first):
            node = self.graph.create_node("placeholder", name, name=name)
        node.name = name
        example = next(each.meta["val"] for each in self.graph.nodes if is_tensor(each) and each is not node)
        node.meta["val"] = example.fake_mode.from_tensor(values, static_shapes=True)
        self.state[name] = values
        spec = InputSpec(InputKind.BUFFER, TensorArgument(node.name), name, persistent=True)
        self.inputs.insert(0, spec)
        return node

    def drop_buffer(self, node: fx.Node) -> None:
        """Take a buffer out that nothing reads any more."""
        place = self.placeholders().index(node)
        target = self.inputs.pop(place).target
        assert target is not None
        del self.state[target]
        self.graph.erase_node(node)

    def rearrange(self, order: Sequence[fx.Node], names: Mapping[str, str], targets: Mapping[str, str]) -> None:
        """Another order, and other names.

        Args:
            order: all nodes but the output, each after those that it reads; placeholders first.
            names: of nodes, new by old; those left out keep theirs.
            targets: of weights and graphs, new by old, likewise.
        """
        specs = dict(zip(self.placeholders(), self.inputs, strict=True))
        graph, made = fx.Graph(), dict[fx.Node, fx.Node]()
        for node in order:
            name = names.get(node.name, node.name)
            args, kwargs = (fx.map_arg(each, made.__getitem__) for each in (node.args, node.kwargs))
            target = node.target
            if node.op == "placeholder":
                target, args = name, ()
            elif node.op == "get_attr":
                target = targets.get(str(target), target)
            new = graph.create_node(node.op, target, args, kwargs, name=name)  # pyright: ignore[reportArgumentType]
            # As torch.export does itself: a graph would turn words of Python ("input") into others.
            new.name = name
            new.meta = dict(node.meta)
            made[node] = new
        (last,) = (node for node in self.graph.nodes if node.op == "output")
        graph.output(fx.map_arg(last.args[0], made.__getitem__))
        self.graph = graph
        self.inputs = [specs[node] for node in order if node.op == "placeholder"]
        for spec in (*self.inputs, *self.outputs):
            if hasattr(spec.arg, "name"):
                spec.arg.name = names.get(spec.arg.name, spec.arg.name)
            if spec.target is not None:
                spec.target = targets.get(spec.target, spec.target)
        # The order of weights is the order of the code, so it goes with that of the placeholders.
        found = {targets.get(name, name): tensor for name, tensor in self.state.items()}
        listed = [spec.target for spec in self.inputs if spec.target is not None and spec.target in found]
        self.state = {name: found[name] for name in dict.fromkeys([*listed, *found])}
        self.constants = {targets.get(name, name): each for name, each in self.constants.items()}
        self.modules = {targets.get(name, name): module for name, module in self.modules.items()}

    def strip(self) -> int:
        """Remove all that nodes say about where they come from; how many entries."""
        graphs = [self.graph, *(module.graph for module in self.modules.values())]
        found = sum(_stripped(graph) for graph in graphs)
        for module in self.modules.values():
            found += sum(_stripped(inner.graph) for inner in module.modules() if isinstance(inner, fx.GraphModule))
            module.meta = {}
        return found


def program_digest(program: ExportedProgram | Flat) -> str:
    """SHA-256 over the graph and the weights of a program, 64 hexadecimal digits; order and metadata do not count.

    Nor do names inside the graphs that operators of control flow hold, and whether arguments stand in a list or a
    tuple, which archives do not keep.
    """
    flat = program if isinstance(program, Flat) else Flat.of(program, functional=True)
    digest = hashlib.sha256()
    for node in sorted(flat.graph.nodes, key=lambda node: node.name):
        # The names of what comes out stand in a tuple everywhere.
        args = tuple(map(_listed, node.args)) if node.op == "call_function" else node.args
        digest.update(f"{node.op} {node.name} {node.target} {args} {_listed(node.kwargs)}\n".encode())
    for target, module in sorted(flat.modules.items()):
        digest.update(f"{target} {_held(module)}\n".encode())
    for node, target in sorted(flat.weights(), key=lambda weight: weight[1]):
        tensor = flat.tensor(target)
        digest.update(f"{node.name} {target} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_raw(tensor))
    return digest.hexdigest()


def values_of(flat: Flat, call: tuple[Any, ...], names: Collection[str]) -> dict[str, Tensor]:
    """What some nodes of a program make of the positional arguments of a call, in the order in which they run."""
    given = iter(pytree.tree_leaves((call, {})))
    found: dict[str, Tensor] = {}

    class Watched(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
            made = super().run_node(n)
            if n.name in names:
                found[n.name] = made
            return made

    arguments = [
        flat.tensor(spec.target) if spec.kind in WEIGHTS and spec.target is not None else next(given)
        for spec in flat.inputs
    ]
    with torch.no_grad():
        Watched(fx.GraphModule(dict(flat.modules), flat.graph)).run(*arguments)
    return found


def is_tensor(node: fx.Node) -> bool:
    """Whether a node makes one tensor."""
    return isinstance(node.meta.get("val"), torch.Tensor)


def schema_arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a node that calls an operator, by name, with defaults for those that are left out."""
    schema: Any = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    found = {each.name: each.default_value for each in schema.arguments if each.has_default_value()}
    found.update(zip((each.name for each in schema.arguments), node.args, strict=False))
    return found | dict(node.kwargs)


def _held(module: fx.GraphModule) -> str:
    """What a graph of control flow computes: its nodes by their places, and the graphs in it in theirs."""
    lines: list[str] = []
    known: dict[fx.Node, str] = {}
    for node in module.graph.nodes:
        if _spare(node):
            continue
        if node.op == "get_attr":  # an archive puts it elsewhere
            inner = getattr(module, str(node.target))
            known[node] = _held(inner) if isinstance(inner, fx.GraphModule) else f"{inner} {_raw(inner).hex()}"
            continue
        known[node] = f"%{len(lines)}"
        target = node.target if node.op == "call_function" else ""
        lines.append(f"{node.op} {target} {_listed(fx.map_arg((node.args, node.kwargs), known.__getitem__))}")
    return "\n".join(lines)


def _raw(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _listed(value: Any) -> Any:  # noqa: ANN401  of a node
    if isinstance(value, dict):
        return {key: _listed(each) for key, each in cast("dict[str, Any]", value).items()}
    return [_listed(each) for each in cast("Sequence[Any]", value)] if isinstance(value, (list, tuple)) else value


def _functional(program: ExportedProgram) -> ExportedProgram:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return program.run_decompositions({})
    except Exception as error:  # torch raises errors of many kinds here
        raise ConfigError(
            "E850",
            seen=f"a program that torch cannot make functional ({reason(error)})",
            expected="a program of torch.export that runs as it is",
            fix="export the module again with this version of torch, in the mode in which it is to run",
        ) from error


def _argument_names(program: ExportedProgram) -> list[str] | None:
    signature = program.module_call_graph[0].signature
    return None if signature is None else signature.forward_arg_names


def _spare(node: fx.Node) -> bool:
    """What reads a file back takes every value out of a tuple, wanted or not."""
    return node.target is operator.getitem and not node.users


def _copied(graph: fx.Graph) -> fx.Graph:
    """A copy with the same names."""
    new = fx.Graph()
    output: Any = new.graph_copy(graph, {}, return_output_node=True)
    new.output(output[0])
    for one, other in zip(graph.nodes, new.nodes, strict=True):
        other.name = one.name
    for node in reversed(list(new.nodes)):
        if _spare(node):
            new.erase_node(node)
    return new


def _own(tensor: Tensor, owned: dict[Any, Tensor]) -> Tensor:
    """A copy; names that share a tensor share the copy."""
    key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
    if key not in owned:
        new = tensor.detach().clone()
        owned[key] = torch.nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else new
    return owned[key]


def _stripped(graph: fx.Graph) -> int:
    found = 0
    for node in graph.nodes:
        found += sum(key not in _KEPT for key in node.meta)
        node.meta = {key: node.meta[key] for key in _KEPT if key in node.meta}
    return found
