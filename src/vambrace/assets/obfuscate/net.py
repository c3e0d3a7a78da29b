"""An ONNX model that can be edited: nodes in order, weights as arrays, names that mean one value each.

A `Net` is a model taken apart and put together again; what no pass touches comes out as it went in. Every value has
one name in the whole model (subgraphs of If, Loop and Scan see the values around them), so a pass may go by names.
Functions of the model's own stay functions.

Weights of files beside the model are read into it. A model goes out as one message, so at most 2 GiB.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.graph import copies, graph_from, graph_proto, nodes_within
from vambrace.core.reason import reason
from vambrace.errors import ConfigError
from vambrace.models.external import check_domains, external_tensors
from vambrace.models.onnx_file import MOST_BYTES, onnx_package, parse_onnx, read_onnx

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Graph, Node

__all__ = ["Index", "Info", "Net", "as_proto"]


@dataclasses.dataclass(frozen=True, slots=True)
class Info:
    """What is known of a value before anything runs.

    Attributes:
        kind: onnx.TensorProto.DataType.
        shape: a number, a name or None for each size, or None where not even the rank is known.
    """

    kind: int
    shape: tuple[int | str | None, ...] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """Who makes and who reads each value of one graph; a snapshot.

    Attributes:
        producers: the node of this graph that makes it.
        consumers: each node of this graph that reads it, with the position among its inputs; -1 where a graph inside
            the node does.
        outputs: values that leave the graph.
    """

    producers: dict[str, Node]
    consumers: dict[str, list[tuple[Node, int]]]
    outputs: frozenset[str]

    def only_consumer(self, name: str) -> tuple[Node, int] | None:
        """The one node, and position, that reads a value which does not leave the graph; None where there are more."""
        found = self.consumers.get(name, [])
        return found[0] if len(found) == 1 and name not in self.outputs and found[0][1] >= 0 else None


class Net:
    """A model taken apart.

    Attributes:
        graph: the main graph.
        functions: onnx.FunctionProto, the model's own.
        extra: onnx.ModelProto with what is left: IR version, opsets, producer, metadata, doc string.
        size: bytes of the model as it came.
        factors: what passes have multiplied weights of the main graph with so far, by name, of shapes that fit.
    """

    def __init__(self, model: Any, name: str = "the model", *, foreign: bool = False) -> None:  # noqa: ANN401
        """Take a model apart; the model is not kept.

        Args:
            model: onnx.ModelProto with all its weights inside.
            name: for messages.
            foreign: whether it may have operators of others, as models that a runtime has optimised do.

        Raises:
            ModelRefused: E235 for such operators otherwise.
        """
        onnx = onnx_package()
        if not foreign:
            check_domains(model, name)
        self.size = int(model.ByteSize())
        self.extra: Any = onnx.ModelProto()
        self.extra.CopyFrom(model)
        self.extra.ClearField("graph")
        self.extra.ClearField("functions")
        self.functions: list[Any] = copies(model.functions)
        self.graph = graph_from(model.graph, onnx)
        self.factors: dict[str, NDArray[np.float64]] = {}
        self._names: set[str] = set()

    @classmethod
    def load(cls, source: Any) -> Net:  # noqa: ANN401
        """From an onnx.ModelProto, its bytes, or the path of a checked file.

        Raises:
            MissingExtra: E112, without the extra.
            ModelRefused: E200, E230 to E235, as `vambrace.models.onnx_file.read_onnx`.
            ConfigError: E801, for anything else, and for more than 2 GiB of weights.
        """
        title = "the model"
        if isinstance(source, str | Path):
            title = Path(source).name
            source = read_onnx(Path(source), whole=True).model
        source = as_proto(source)
        _check_size(sum(len(each.raw_data) for each in source.graph.initializer))  # passes take long, and memory
        if any(not node.output for node in nodes_within(source.graph.node)):  # places and costs go by what comes out
            raise _unusable("a model with an operator that gives nothing")
        return cls(source, title)

    def model(self) -> Any:  # noqa: ANN401  onnx.ModelProto
        """The onnx.ModelProto, checked.

        Raises:
            ConfigError: E801, where it would be larger than a message can be, or no valid ONNX.
        """
        onnx = onnx_package()
        _check_size(sum(array.nbytes for graph in self.graph.everywhere() for array in graph.initialisers.values()))
        built = self._build(onnx, small=False)
        try:
            with _stated(built):
                onnx.checker.check_model(built)
        except Exception as error:  # checker and protobuf errors share no base class
            raise _unusable(f"a model that is not valid ONNX ({reason(error)})") from error
        return built

    def opset(self, domain: str = "") -> int:
        """The version of an operator set, 0 where the model does not import it."""
        same = {"", "ai.onnx"} if domain in {"", "ai.onnx"} else {domain}
        return max((int(each.version) for each in self.extra.opset_import if each.domain in same), default=0)

    def graphs(self) -> Iterator[Graph]:
        """The main graph and all graphs inside it, outermost first."""
        return self.graph.everywhere()

    def index(self, graph: Graph | None = None) -> Index:
        """Producers and consumers in one graph, the main one by default."""
        graph = self.graph if graph is None else graph
        producers = {name: node for node in graph.nodes for name in node.outputs if name}
        consumers: dict[str, list[tuple[Node, int]]] = {}
        for node in graph.nodes:
            for position, name in enumerate(node.inputs):
                consumers.setdefault(name, []).append((node, position))
            for name in sorted({name for body in node.graphs() for name in body.reads()}):
                consumers.setdefault(name, []).append((node, -1))
        consumers.pop("", None)
        return Index(producers, consumers, frozenset(graph.output_names))

    def infer(self) -> dict[str, Info]:
        """Type and shape of the values of the main graph, as far as ONNX's own inference finds them."""
        onnx = onnx_package()
        built = self._build(onnx, small=True)
        # An operator that it cannot infer makes it raise; what the file states remains.
        with contextlib.suppress(Exception):
            built = onnx.shape_inference.infer_shapes(built, data_prop=True)
        found = [*built.graph.value_info, *built.graph.input, *built.graph.output]
        infos = {each.name: _info(each) for each in found if each.type.HasField("tensor_type")}
        for name, array in self.graph.initialisers.items():
            infos[name] = Info(int(onnx_package().helper.np_dtype_to_tensor_dtype(array.dtype)), tuple(array.shape))
        return infos

    def taken(self) -> set[str]:
        """Every name of a value or node in use, functions aside."""
        names: set[str] = set()
        for graph in self.graphs():
            names.update(graph.initialisers, (each.name for each in [*graph.inputs, *graph.outputs, *graph.infos]))
            names.update(each.values.name for each in graph.extra.sparse_initializer)
            for node in graph.nodes:
                names.update((node.name,), node.inputs, node.outputs)
        return names - {""}

    def fresh(self, count: int = 1) -> list[str]:
        """Names that nothing in the model has had yet."""
        if not self._names:
            self._names = self.taken()
        found: list[str] = []
        number = len(self._names)
        while len(found) < count:
            number += 1
            if (name := f"v{number}") not in self._names:
                self._names.add(name)
                found.append(name)
        return found

    def rewire(self, old: str, new: str, *, graph: Graph | None = None, but: Iterable[Node] = ()) -> None:
        """Let every reader of one value read another; outputs of the graph keep their names.

        Args:
            old: the value that was read.
            new: the value that is read from now on.
            graph: where readers are looked for, and in the graphs inside it; the main one by default.
            but: nodes that go on reading the old one.
        """
        spared = set(map(id, but))
        for inside in (self.graph if graph is None else graph).everywhere():
            for node in inside.nodes:
                if id(node) not in spared:
                    node.inputs = [new if name == old else name for name in node.inputs]

    def _build(self, onnx: Any, *, small: bool) -> Any:  # noqa: ANN401
        built = onnx.ModelProto()
        built.CopyFrom(self.extra)
        built.functions.extend(self.functions)
        built.graph.CopyFrom(graph_proto(self.graph, onnx, small=small))
        return built


def as_proto(source: Any) -> Any:  # noqa: ANN401  onnx.ModelProto
    """An onnx.ModelProto with its weights in it, or the bytes of one, as an onnx.ModelProto.

    Raises:
        MissingExtra: E112, without the extra.
        ModelRefused: E200, for bytes that cannot be read.
        ConfigError: E801, for anything else.
    """
    onnx = onnx_package()
    if isinstance(source, bytes):
        source = parse_onnx(source, "the model")
    if not isinstance(source, onnx.ModelProto):
        raise _unusable(
            f"a {type(source).__name__}",
            "the path of an .onnx file, its bytes, or an onnx.ModelProto",
            "export the model with torch.onnx.export first",
        )
    if external_tensors(source, "the model"):
        raise _unusable(
            "a model whose weights lie in other files", "a model with its weights in it", "give the path of the file"
        )
    return source


@contextlib.contextmanager
def _stated(model: Any) -> Generator[None]:  # noqa: ANN401
    """With some type and shape for inputs and outputs that state none: runtimes infer them, the checker wants them."""
    typeless = [value for value in model.graph.output if not value.HasField("type")]
    for value in typeless:
        value.type.tensor_type.elem_type = onnx_package().TensorProto.FLOAT
    tensors = [value.type.tensor_type for value in (*model.graph.input, *model.graph.output) if _tensor(value)]
    shapeless = [tensor for tensor in tensors if not tensor.HasField("shape")]
    for tensor in shapeless:
        tensor.shape.SetInParent()
    try:
        yield
    finally:
        for tensor in shapeless:
            tensor.ClearField("shape")
        for value in typeless:
            value.ClearField("type")


def _tensor(value: Any) -> bool:  # noqa: ANN401
    return value.type.HasField("tensor_type")


def _info(value: Any) -> Info:  # noqa: ANN401
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return Info(int(tensor.elem_type), None)
    sizes = [
        int(each.dim_value) if each.HasField("dim_value") else (each.dim_param or None) for each in tensor.shape.dim
    ]
    return Info(int(tensor.elem_type), tuple(sizes))


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise _unusable(f"{size} bytes of weights", "at most 2 GiB", "obfuscate the parts of the model one by one")


def _unusable(seen: str, expected: str = "a valid model", fix: str = "") -> ConfigError:
    return ConfigError(
        "E801",
        seen=seen,
        expected=expected,
        fix=fix or "check the original with onnx.checker; if it passes, report this",
    )
