import builtins
import math
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import vambrace
from vambrace.core.access import Access
from vambrace.errors import ConfigError, MissingExtra, ModelMisbehaved, ModelRefused
from vambrace.models import Counted, Model

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) - 5


def save(
    path: Path, *, batch: object = "n", taken: tuple[object, ...] = (4,), outputs: int = 1, **options: object
) -> Path:
    """Flatten, then multiply by WEIGHT; `dtype` and `node` change that."""
    dtype = options.get("dtype", TensorProto.FLOAT)
    inputs = [helper.make_tensor_value_info("x", dtype, [batch, *taken])]
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], axis=1),
        options.get("node") or helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    shape = options.get("shape", [batch, 3])
    given = [helper.make_tensor_value_info("y", options.get("out", dtype), shape)]
    if outputs == 2:
        nodes.append(helper.make_node("ArgMax", ["y"], ["label"], axis=1, keepdims=0))
        given.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, [batch]))
    if outputs == 3:
        nodes.append(helper.make_node("Identity", ["y"], ["z"]))
        given.append(helper.make_tensor_value_info("z", dtype, [batch, 3]))
    values = np.zeros((options["width"], 3)) if "width" in options else WEIGHT
    weight = numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(dtype)), "w")
    graph = helper.make_graph(nodes, "g", inputs, given, [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "net.onnx"


def expected(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.flatten(1) @ torch.from_numpy(WEIGHT).to(inputs.dtype)


def test_is_a_model_with_scores(file: Path) -> None:
    model = vambrace.load(save(file), mean=0.5, std=0.25)
    inputs = torch.rand(7, 4)
    assert isinstance(model, Model)
    assert model.access is Access.SCORES
    assert torch.allclose(model(inputs), expected((inputs - 0.5) / 0.25), atol=1e-5)
    assert torch.equal(model.predict(inputs), model(inputs).argmax(1))
    assert (model.input_shape, model.num_classes, model.dtype, model.device.type) == ((4,), 3, torch.float32, "cpu")
    assert (model.calls, model.rows, model.queries) == (3, 21, 21)
    assert not model(inputs.requires_grad_()).requires_grad
    counted = Counted(model)
    counted(inputs)
    assert counted.queries == 7


@pytest.mark.parametrize("batch", [1, 3, "n", None])
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_every_batch_dimension(file: Path, batch: object, rows: int) -> None:
    inputs = torch.rand(rows, 4)
    assert torch.allclose(vambrace.load(save(file, batch=batch))(inputs), expected(inputs), atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "torch_dtype"), [(TensorProto.FLOAT16, torch.float16), (TensorProto.DOUBLE, torch.float64)]
)
def test_types(file: Path, dtype: int, torch_dtype: torch.dtype) -> None:
    model = vambrace.load(save(file, dtype=dtype))
    inputs = torch.rand(3, 4)
    assert model.dtype == torch_dtype
    assert model(inputs).dtype == (torch.float64 if torch_dtype == torch.float64 else torch.float32)
    assert torch.allclose(model(inputs).float(), expected(inputs), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("taken", "stated", "fed"),
    [
        ((4, 1), (1, 2, 2), (1, 2, 2)),
        ((4,), (1, 2, 2), (1, 2, 2)),
        ((2, 2), (1, 2, 2), (1, 2, 2)),
        ((1, 2, 2), (2, 2), (2, 2)),
        ((4, 1), (None, 2, 2), (1, 2, 2)),
        ((4, 1), (4, 1), (4, 1)),
        (("h", "w"), None, (2, 2)),
        (("h", "w"), (2, 2), (2, 2)),
    ],
)
def test_samples_are_flattened_where_their_shape_is_stated(
    file: Path, taken: tuple[object, ...], stated: tuple[int, ...] | None, fed: tuple[int, ...]
) -> None:
    model = vambrace.load(save(file, taken=taken), input_shape=stated)
    inputs = torch.rand(3, *fed)
    assert torch.allclose(model(inputs), expected(inputs), atol=1e-6)
    assert model.input_shape == fed


@pytest.mark.parametrize(
    ("taken", "stated", "fed"),
    [
        ((4, 1), None, (1, 2, 2)),
        ((4,), None, (1, 2, 2)),
        ((4,), None, (5,)),
        ((4,), (1, 2, 2), (4,)),
        ((4,), (None, 2, 2), (3, 2, 2)),
        ((4,), (4,), ()),
    ],
)
def test_other_shapes_are_refused(
    file: Path, taken: tuple[object, ...], stated: tuple[int, ...] | None, fed: tuple[int, ...]
) -> None:
    model = vambrace.load(save(file, taken=taken), input_shape=stated)
    with pytest.raises(ConfigError, match="E113"):
        model(torch.rand(3, *fed))


@pytest.mark.parametrize(("taken", "stated"), [((4,), (1, 3, 3)), ((2, 2, 1), (1, 4, 1)), ((2, 2, 3), (3, 2, 2))])
def test_channels_are_never_moved_silently(file: Path, taken: tuple[int, ...], stated: tuple[int, ...]) -> None:
    """A model that takes (height, width, channels) is not given (channels, height, width) in another guise."""
    with pytest.raises(ModelRefused, match="takes samples of shape") as caught:
        vambrace.load(save(file, taken=taken, width=math.prod(taken)), input_shape=stated)
    assert caught.value.code == "E238"


def test_whole_numbers_are_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="E113"):
        vambrace.load(save(file))(torch.ones(2, 4, dtype=torch.uint8))


def test_a_label_beside_the_scores_is_ignored(file: Path) -> None:
    inputs = torch.rand(2, 4)
    assert torch.allclose(vambrace.load(save(file, outputs=2))(inputs), expected(inputs), atol=1e-6)


def test_models_of_another_form(tmp_path: Path) -> None:
    label = helper.make_node("ArgMax", ["f"], ["y"], axis=1)
    for number, options in enumerate(
        [{"outputs": 3}, {"node": label, "out": TensorProto.INT64, "shape": ["n", 1]}, {"dtype": TensorProto.INT32}]
    ):
        with pytest.raises(ModelRefused) as caught:
            vambrace.load(save(tmp_path / f"{number}.onnx", **options))
        assert caught.value.code == "E237"
        assert caught.value.fix == "export the network with one input and its scores as the only floating output"


def test_probabilities(file: Path) -> None:
    model = vambrace.load(
        save(file, node=helper.make_node("Softmax", ["f"], ["y"]), shape=["n", 4]), outputs="probabilities"
    )
    inputs = torch.rand(3, 4)
    assert torch.allclose(model(inputs), inputs.log_softmax(1), atol=1e-6)


def test_a_runtime_error_is_the_models(file: Path) -> None:
    node = helper.make_node("Reshape", ["f", "s"], ["y"])
    made = onnx.load(save(file, taken=("k",), node=node))
    made.graph.initializer.append(numpy_helper.from_array(np.array([5, 3]), "s"))
    onnx.save(made, file)
    with pytest.raises(ModelMisbehaved, match=r"net\.onnx raised .* on inputs of shape \(2, 4\)") as caught:
        vambrace.load(file)(torch.rand(2, 4))
    assert caught.value.code == "E406"


def test_weights_in_other_files(tmp_path: Path) -> None:
    made = onnx.load(save(tmp_path / "plain.onnx"))
    plain = vambrace.load(tmp_path / "plain.onnx").identity.weights
    (tmp_path / "sub").mkdir()
    onnx.save(made, tmp_path / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    inputs = torch.rand(3, 4)
    model = vambrace.load(tmp_path / "net.onnx")
    assert torch.allclose(model(inputs), expected(inputs), atol=1e-6)
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert len({plain, model.identity.weights, vambrace.load(tmp_path / "net.onnx").identity.weights}) == 3


def test_a_link_to_the_model_is_the_users_own_choice(tmp_path: Path) -> None:
    save(tmp_path / "real.onnx")
    (tmp_path / "net.onnx").symlink_to(tmp_path / "real.onnx")
    assert vambrace.load(tmp_path / "net.onnx")(torch.rand(1, 4)).shape == (1, 3)


def test_the_gpu_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="E115"):
        vambrace.load(save(file), device="cuda")


def test_equal_calls_give_equal_bits(file: Path) -> None:
    inputs = torch.rand(64, 4)
    models = [vambrace.load(save(file)) for _ in range(2)]
    assert torch.equal(models[0](inputs), models[1](inputs))
    assert models[0].identity == models[1].identity


def test_without_the_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(file)
    real = builtins.__import__

    def blocked(name: str, *rest: object, **more: object) -> object:
        if name.partition(".")[0] in {"onnx", "onnxruntime"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **more)

    for name in [name for name in sys.modules if name.split(".")[0] in {"onnx", "onnxruntime"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", blocked)
    monkeypatch.setattr("importlib.import_module", blocked)
    with pytest.raises(MissingExtra, match=r"pip install 'vambrace\[onnx\]'") as caught:
        vambrace.load(file)
    assert caught.value.code == "E112"


def test_importing_models_needs_no_extra() -> None:
    import subprocess

    source = "import sys; sys.modules['onnx'] = sys.modules['onnxruntime'] = None; import vambrace.models as m; m.load"
    subprocess.run([sys.executable, "-c", source], check=True)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"not a model", "E230"),
        (bytes([0x08, 9]), "E230"),
        (bytes([0x08, 9, 0x3A, 4, 0x0A, 2, 0x22, 5]), "E230"),
        (bytes([0x08, 9, 0x3A, 3, 0x12, 1, 0xFF]), "E236"),
        (bytes([0x08, 9, 0x3A, 0]), "E236"),
    ],
)
def test_bytes_that_are_no_model(file: Path, data: bytes, code: str) -> None:
    file.write_bytes(data)
    with pytest.raises(ModelRefused) as caught:
        vambrace.load(file)
    assert caught.value.code in {code, "E230"}


def test_a_file_above_the_size_of_a_message(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(file)
    monkeypatch.setattr("vambrace.models.onnx_file.MOST_BYTES", 10)
    with pytest.raises(ModelRefused, match="E231"):
        vambrace.load(file)


def test_nesting_beyond_the_limit(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(file)
    monkeypatch.setattr("vambrace.models.wire.MOST_DEPTH", 3)
    with pytest.raises(ModelRefused, match="nested more than 3 levels") as caught:
        vambrace.load(file)
    assert caught.value.code == "E231"


def test_no_rows(file: Path) -> None:
    for batch in (1, 4):
        model = vambrace.load(save(file, batch=batch))
        assert model(torch.rand(0, 4)).shape == (0, 3)
