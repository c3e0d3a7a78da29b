from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from vambrace.errors import ModelRefused
from vambrace.models.external import check_domains, external_tensors, inline, map_files


def tensor(dims: tuple[int, ...] = (2,), kind: int = TensorProto.FLOAT, **entries: object) -> TensorProto:
    made = TensorProto(name="w", dims=dims, data_type=kind, data_location=TensorProto.EXTERNAL)
    for key, value in ({"location": "w.bin"} | entries).items():
        if value is not None:
            made.external_data.add(key=key, value=str(value))
    return made


def model(*tensors: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    return onnx.ModelProto(graph=helper.make_graph(list(nodes), "g", [], [], list(tensors)))


def code(made: onnx.ModelProto) -> str:
    try:
        external_tensors(made, "net.onnx")
    except ModelRefused as error:
        return error.code
    return ""


def test_a_location_that_is_no_text() -> None:
    """A TypeError of Python came out."""
    raw = model(tensor(location="release.bin")).SerializeToString().replace(b"release.bin", b"release.\xff\xfe\xfd")
    assert code(onnx.load_model_from_string(raw)) == "E232"


@pytest.mark.parametrize(
    "location",
    [
        *("/etc/passwd", "../w.bin", "a/../../w.bin", "a/..", "..", ".", "", "./w.bin", "a//b", "a/", "~root/../x/.."),
        *("C:\\w.bin", "C:w.bin", "\\\\host\\share", "a\\..\\b", "w.bin\0.txt", "*/_ORT_MEM_ADDR_/*", "x" * 2000),
        *("file:///etc/passwd", "//host/x", "/"),
    ],
)
def test_locations_that_lead_away(location: str) -> None:
    assert code(model(tensor(location=location))) == "E232"


@pytest.mark.parametrize("location", ["w.bin", "net.onnx.data", "a/b/c.bin", "with space", "ünï", "..w", "a..b", "w.."])
def test_plain_names(location: str) -> None:
    assert external_tensors(model(tensor(location=location)), "n")[0].location == location


@given(st.text(alphabet="./\\a:*~\0 ", max_size=12))
def test_whatever_passes_stays_inside(location: str) -> None:
    if code(model(tensor(location=location))) == "":
        inside = (Path("/model") / location).resolve()
        assert inside.is_relative_to("/model")
        assert inside != Path("/model")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (tensor(), ""),
        (tensor(offset=4, length=8), ""),
        (tensor(checksum="x"), ""),
        (tensor(dims=(0,)), ""),
        (tensor(dims=(3,), kind=TensorProto.INT4), ""),
        (tensor(location=None), "E232"),
        (tensor(basepath="/"), "E232"),
        (tensor(length=9), "E234"),
        (tensor(length=-8), "E234"),
        (tensor(length="0x8"), "E234"),
        (tensor(length="8 "), "E234"),
        (tensor(offset="١"), "E234"),
        (tensor(offset="9" * 30), "E234"),
        (tensor(dims=(-1, -2)), "E234"),
        (tensor(kind=TensorProto.STRING), "E234"),
        (tensor(kind=0), "E234"),
        (tensor(kind=99), "E234"),
        (TensorProto(data_location=TensorProto.EXTERNAL), "E232"),
    ],
)
def test_entries(made: TensorProto, expected: str) -> None:
    assert code(model(made)) == expected


def test_entries_that_disagree() -> None:
    twice, inside = tensor(), tensor()
    twice.external_data.add(key="location", value="../x")
    inside.data_location = TensorProto.DEFAULT
    assert code(model(twice)) == "E232"
    assert code(model(inside)) == "E232"


def test_nothing_external_is_nothing() -> None:
    assert external_tensors(model(helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])), "n") == []


def test_every_place_where_a_tensor_may_stand() -> None:
    """One external tensor in each field of the schema that can hold a tensor; all are found."""
    made = model(tensor())
    attribute = made.graph.node.add(op_type="Constant").attribute.add(name="value", t=tensor())
    attribute.tensors.append(tensor())
    attribute.sparse_tensor.values.CopyFrom(tensor())
    attribute.sparse_tensors.add().indices.CopyFrom(tensor())
    attribute.g.initializer.append(tensor())
    attribute.graphs.add().sparse_initializer.add().values.CopyFrom(tensor())
    made.functions.add().node.add().attribute.add(t=tensor())
    made.functions.add().attribute_proto.add(t=tensor())
    made.training_info.add().algorithm.initializer.append(tensor())
    found = external_tensors(made, "n")
    assert len(found) == 10
    assert made.SerializeToString().count(b"w.bin") == 10, "this test must know every place that it fills"
    assert inline(made, found, {"w.bin": b"abcdefgh"})
    assert [one.location for one in external_tensors(made, "n")] == ["w.bin"], "the main graph's own stays outside"
    assert made.SerializeToString().count(b"abcdefgh") == 9


def test_files_are_checked_and_mapped(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"01234567")
    found = external_tensors(model(tensor(), tensor(offset=0, length=8)), "n")
    files = map_files(found, tmp_path, "n")
    assert bytes(files["w.bin"]) == b"01234567"
    (tmp_path / "empty").touch()
    assert (
        len(map_files(external_tensors(model(tensor(dims=(0,), location="empty")), "n"), tmp_path, "n")["empty"]) == 0
    )
    with pytest.raises(ModelRefused, match="at bytes 4 to 12 of w.bin, which has 8"):
        map_files(external_tensors(model(tensor(offset=4)), "n"), tmp_path, "n")


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "w.bin").mkdir()
    with pytest.raises(ModelRefused, match="no regular file"):
        map_files(external_tensors(model(tensor()), "n"), tmp_path, "n")


@pytest.mark.parametrize("domain", ["", "ai.onnx", "ai.onnx.ml"])
def test_the_standard_domains(domain: str) -> None:
    check_domains(model(nodes=(onnx.NodeProto(domain=domain, op_type="Any"),)), "n")


@pytest.mark.parametrize(
    "domain", ["com.microsoft", "mine", "ai.onnx.contrib", "ai.onnx ", "AI.ONNX", "ai.onnx.preview.training"]
)
def test_other_domains_are_named(domain: str) -> None:
    with pytest.raises(ModelRefused, match=f"{domain}:Op") as caught:
        check_domains(model(nodes=(onnx.NodeProto(domain=domain, op_type="Op"),)), "n")
    assert caught.value.code == "E235"


def test_functions_of_the_model_itself() -> None:
    made = model(nodes=(onnx.NodeProto(domain="mine", op_type="Op"),))
    made.functions.add(domain="mine", name="Op").node.add(domain="", op_type="Relu")
    check_domains(made, "n")
    made.functions[0].node.add(domain="other", op_type="Op")
    with pytest.raises(ModelRefused, match="other:Op"):
        check_domains(made, "n")
