"""Tensors in sealed files: bit for bit, one by one, and only the chunks that they lie in."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor

from vambrace.assets import seal
from vambrace.assets.seal.tensors import _DTYPES, Packed
from vambrace.core.tree import has_sign
from vambrace.errors import ArtifactRefused, ConfigError, ModelRefused
from vambrace.models.safetensors import MOST_HEADER

KEY = bytes(range(32))


def every_dtype() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    for code, dtype in _DTYPES.items():
        width = dtype.itemsize
        raw = torch.randint(0, 2 if dtype == torch.bool else 256, (3 * 5 * width,), generator=generator)
        found[f"{code.lower()}.weight"] = raw.to(torch.uint8).view(dtype).view(3, 5)
    return found


def same(given: Tensor, wanted: Tensor) -> bool:
    """By bits: random bytes are not numbers in every dtype."""
    return (
        given.dtype == wanted.dtype
        and given.shape == wanted.shape
        and torch.equal(
            given.contiguous().reshape(-1).view(torch.uint8), wanted.contiguous().reshape(-1).view(torch.uint8)
        )
    )


def imagined() -> Tensor:
    """As torch traces with: it says that it is on the CPU, and has no bytes there."""
    with FakeTensorMode():
        return torch.empty(2)


def unequal() -> Tensor:
    """As before there was a layout for them."""
    with warnings.catch_warnings(action="ignore"):
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


def freed(tensor: Tensor, left: int) -> Tensor:
    """As sharded training leaves it between steps: its storage has `left` bytes."""
    tensor.untyped_storage().resize_(left)
    return tensor


def saved(tmp_path: Path, tensors: dict[str, Tensor], **options: object) -> Path:
    path = tmp_path / "net.sealed"
    seal.save(tensors, path, recipients=[KEY], **options)
    return path


def test_every_dtype_comes_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = every_dtype()
    tensors |= {
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "turned": torch.arange(12.0).view(3, 4).t(),
        "conjugated": torch.tensor([1 + 2j, 3 - 4j]).conj(),
        "negated": torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
        "turned bfloat16": torch.arange(12.0).bfloat16().view(3, 4).t(),
        "scalar bfloat16": nn.Parameter(torch.tensor(-1.5, dtype=torch.bfloat16)),
        "repeated": torch.tensor([[1.5], [2.5]]).expand(2, 3),
        "requires grad": nn.Parameter(torch.ones(2)),
        "ünïcode/名": torch.ones(1),
    }
    path = saved(tmp_path, tensors)
    loaded = seal.load(path, identity=KEY)
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert same(loaded[name], tensor.detach().resolve_conj().resolve_neg()), name
        assert not loaded[name].requires_grad
    with seal.lazy(path, identity=KEY) as lazy:
        assert set(lazy) == set(lazy.keys()) == set(tensors)
        assert len(lazy) == len(tensors)
        for name, tensor in tensors.items():
            assert name in lazy
            assert lazy.shape(name) == tuple(tensor.shape)
            assert lazy.dtype(name) == tensor.dtype
            assert same(lazy[name], tensor.detach().resolve_conj().resolve_neg()), name


def test_what_is_packed_is_a_safetensors_file_for_the_library_too() -> None:
    tensors = {"b": torch.arange(6, dtype=torch.int64), "a": torch.rand(3, 3), "c": torch.ones(1, dtype=torch.uint8)}
    packed = Packed(tensors)
    data = b"".join(packed.pieces())
    assert len(data) == packed.size
    read = load_safetensors(data)
    assert {name: tensor.tolist() for name, tensor in read.items()} == {n: t.tolist() for n, t in tensors.items()}


def test_a_safetensors_file_of_the_library_opens_as_tensors(tmp_path: Path) -> None:
    tensors = every_dtype()
    tensors = {name: tensor for name, tensor in tensors.items() if "fnuz" not in name}
    (tmp_path / "net.safetensors").write_bytes(save_safetensors(tensors, metadata={"format": "pt"}))
    seal.save(tmp_path / "net.safetensors", tmp_path / "net.sealed", recipients=[KEY])
    loaded = seal.load(tmp_path / "net.sealed", identity=KEY)
    assert all(same(loaded[name], tensor) for name, tensor in tensors.items())


def test_tensors_that_begin_anywhere_are_read(tmp_path: Path) -> None:
    """Others may order tensors so that one begins at an odd byte; a view of its dtype is impossible there."""
    header = (
        b'{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"F64","shape":[2],"data_offsets":[3,19]}}'
    )
    values = torch.tensor([1.5, -2.25], dtype=torch.float64)
    plain = len(header).to_bytes(8, "little") + header + b"xyz" + values.numpy().tobytes()
    (tmp_path / "odd.safetensors").write_bytes(plain)
    seal.save(tmp_path / "odd.safetensors", tmp_path / "odd.sealed", recipients=[KEY])
    assert torch.equal(seal.load(tmp_path / "odd.sealed", identity=KEY)["b"], values)
    with seal.lazy(tmp_path / "odd.sealed", identity=KEY) as lazy:
        assert torch.equal(lazy["b"], values)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(0, 9),
    columns=st.integers(0, 20_000),
    begin=st.integers(-12, 12) | st.none(),
    end=st.integers(-12, 12) | st.none(),
    threads=st.sampled_from([1, 2]),
)
def test_rows_are_those_of_python_slices(
    tmp_path: Path, rows: int, columns: int, begin: int | None, end: int | None, threads: int
) -> None:
    tensor = torch.arange(rows * columns, dtype=torch.float32).view(rows, columns)
    path = saved(tmp_path, {"w": tensor, "before": torch.ones(33)}, chunk_size=65_536, threads=threads)
    with seal.lazy(path, identity=KEY) as lazy:
        low = 0 if begin is None else begin
        high = rows if end is None else end
        assert torch.equal(lazy.rows("w", low, high), tensor[low:high])


def test_only_the_chunks_that_hold_a_tensor_are_read(tmp_path: Path) -> None:
    tensors = {f"w{i}": torch.full((16_384,), float(i)) for i in range(20)}
    path = saved(tmp_path, tensors, chunk_size=65_536)
    with seal.lazy(path, identity=KEY) as lazy:
        offset = 65_536 + 10 * (65_536 + 20) + 100
        data = bytearray(path.read_bytes())
        data[offset] ^= 1
        path.write_bytes(data)
        broken = []
        for name, tensor in tensors.items():
            try:
                found = lazy[name]
            except ArtifactRefused as error:
                broken.append(error.code)
            else:
                assert torch.equal(found, tensor)
        assert broken in (["E705"], ["E705", "E705"]), "one chunk is damaged, and a tensor lies in two at most"
    with pytest.raises(ArtifactRefused, match="E705"):
        seal.load(path, identity=KEY)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {"w": torch.ones(2), "n": torch.tensor(1)})
    with seal.lazy(path, identity=KEY) as lazy:
        for ask in (lambda: lazy["v"], lambda: lazy.shape("v"), lambda: lazy.rows("v", 0, 1)):
            with pytest.raises(ConfigError, match="E767"):
                ask()
        with pytest.raises(ConfigError, match="E767.*single number"):
            lazy.rows("n", 0, 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"w": torch.ones(2, 2).to_sparse()},
        {"w": torch.empty(2, device="meta")},
        {"w": torch.ones(2, dtype=torch.complex128)},
        {"w": [1.0]},
        {3: torch.ones(2)},
        {"__metadata__": torch.ones(2)},
        {"\ud800": torch.ones(2)},
        {"w": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)},
        {"w": unequal()},
        {"w": nn.UninitializedParameter()},
        {"w": imagined()},
        {"w": TwoTensor(torch.ones(2), torch.ones(2))},
        {"w": freed(torch.ones(4), 0)},
        {"w": freed(torch.ones(4).bfloat16(), 7)},
        {"w": freed(torch.ones(2, 3).T, 20)},
        {"w": freed(torch.ones(6)[2:], 20)},
        {"w": torch._neg_view(torch.ones(2).to(torch.float8_e5m2))},
        {"w": torch._neg_view(torch.ones(2).to(torch.uint32))},
    ],
    ids=[
        *("sparse", "meta", "complex128", "a list", "a number as name", "metadata"),
        *("half a character", "jagged", "nested", "lazy", "imagined", "made of others"),
        *("freed", "freed in part", "freed and turned", "freed at the end"),
        *("a sign of float8", "a sign of what has none"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(tmp_path: Path, bad: dict[str, Tensor]) -> None:
    with pytest.raises(ConfigError, match="E760"):
        seal.save(bad, tmp_path / "x.sealed", recipients=[KEY])
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_of_a_freed_storage_is_written(tmp_path: Path) -> None:
    base = freed(torch.arange(6.0), 20)
    views = {"a": base[1:5], "b": base[:5:2], "c": base[4].expand(9), "d": base[6:], "e": torch._neg_view(base[:5])}
    opened = seal.load(saved(tmp_path, views), identity=KEY)
    assert all(same(opened[name], view.clone()) for name, view in views.items())


def test_tensors_of_many_sizes(tmp_path: Path) -> None:
    """What was written of more than 16 could not be read."""
    tensors = {"state": torch.arange(2.0**17).reshape([2] * 17), "most": torch.ones([1] * 64)}
    loaded = seal.load(saved(tmp_path, tensors), identity=KEY)
    assert all(same(loaded[name], tensor) for name, tensor in tensors.items())
    for bad in (torch.ones([1] * 65), torch.empty(2**40, 0, 2**30)):
        with pytest.raises(ConfigError, match="E760.*'w', of .* sizes, where there can be"):
            seal.save({"w": bad}, tmp_path / "bad", recipients=[KEY])


def test_scales_of_eight_bits(tmp_path: Path) -> None:
    tensor = torch.tensor([0.5, 1.0, 4.0]).to(torch.float8_e8m0fnu)
    loaded = seal.load(saved(tmp_path, {"w": tensor}), identity=KEY)["w"]
    assert loaded.dtype == tensor.dtype
    assert torch.equal(loaded.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3"])
def test_safetensors_files_of_other_dtypes_are_sealed_as_files(dtype: str, tmp_path: Path) -> None:
    """They were sealed as tensors, which nothing could load."""
    bits = {"F4": 4, "F6_E2M3": 6}[dtype]
    header = json.dumps({"w": {"dtype": dtype, "shape": [8], "data_offsets": [0, bits]}}).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(bits)
    (tmp_path / "w.safetensors").write_bytes(data)
    seal.save(tmp_path / "w.safetensors", tmp_path / "w.sealed", recipients=[KEY])
    assert seal.load(tmp_path / "w.sealed", identity=KEY) == data


def test_damaged_safetensors_files_stay_what_they_are(tmp_path: Path) -> None:
    """Who loads one is told of the damage."""
    data = save_safetensors({"w": torch.ones(100)})[:-50]
    (tmp_path / "w.safetensors").write_bytes(data)
    seal.save(tmp_path / "w.safetensors", tmp_path / "w.sealed", recipients=[KEY])
    with pytest.raises(ModelRefused, match="E223"):
        seal.load(tmp_path / "w.sealed", identity=KEY)


def test_signs_are_looked_for_in_one_element() -> None:
    """A copy of all was made, and for want of memory the tensor was refused."""
    for shape, first in (((2, 2**45), (2, 1)), ((0, 3), (1, 1)), ((), ())):
        assert has_sign(torch._neg_view(torch.ones(first).expand(shape)))
        assert not has_sign(torch._neg_view(torch.ones(first).to(torch.float8_e5m2).expand(shape))) or 0 in shape


def test_signs_that_torch_keeps_aside_are_written(tmp_path: Path) -> None:
    plain = {"a": torch.arange(6.0), "b": torch.arange(6.0).bfloat16()}
    opened = seal.load(saved(tmp_path, {name: torch._neg_view(each) for name, each in plain.items()}), identity=KEY)
    assert all(same(opened[name], -each) for name, each in plain.items())


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad], ids=lambda each: each.__name__)
def test_what_stands_for_a_tensor_within_a_transform_is_not_written(
    tmp_path: Path, transform: Callable[..., Callable[[Tensor], Tensor]]
) -> None:
    def loss(inner: Tensor) -> Tensor:
        seal.save({"w": inner}, tmp_path / "x.sealed", recipients=[KEY])
        return inner.sum()

    with pytest.raises(ConfigError, match="E760"):
        transform(loss)(torch.ones(3))
    assert list(tmp_path.iterdir()) == []


def test_an_authentic_file_may_still_be_nonsense(tmp_path: Path) -> None:
    """Whoever knows a public key can seal anything as tensors."""
    writer = seal.Writer(tmp_path / "x.sealed", [_recipient()], content="tensors")
    writer.write(b"\xff" * 100)
    writer.finish()
    with pytest.raises(ArtifactRefused, match="E764.*header of"):
        seal.load(tmp_path / "x.sealed", identity=KEY)
    header = b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,8]}}'
    writer = seal.Writer(tmp_path / "y.sealed", [_recipient()], content="tensors")
    writer.write(len(header).to_bytes(8, "little") + header + bytes(8))
    writer.finish()
    with pytest.raises(ModelRefused, match="E222"):
        seal.load(tmp_path / "y.sealed", identity=KEY)
    header = b'{"a":{"dtype":"F32","shape":[1099511627776,1099511627776,0],"data_offsets":[0,0]}}'
    writer = seal.Writer(tmp_path / "w.sealed", [_recipient()], content="tensors")
    writer.write(len(header).to_bytes(8, "little") + header)
    writer.finish()
    for read in (seal.load, seal.lazy):
        with pytest.raises(ModelRefused, match="E222"):
            read(tmp_path / "w.sealed", identity=KEY)
    seal.save(__file__, tmp_path / "z.sealed", recipients=[KEY])
    with pytest.raises(ArtifactRefused, match="E764"):
        seal.lazy(tmp_path / "z.sealed", identity=KEY)


def test_a_header_too_large_for_our_reader_is_sealed_as_it_is(tmp_path: Path) -> None:
    """As tensors it could never be loaded."""
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(MOST_HEADER + 8)
    path = tmp_path / "net.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    seal.save(path, tmp_path / "net.sealed", recipients=[KEY])
    with seal.open_sealed(tmp_path / "net.sealed", identity=KEY) as sealed:
        assert sealed.description.content == "bytes"
    assert seal.load(tmp_path / "net.sealed", identity=KEY) == path.read_bytes()


def _recipient() -> object:
    from vambrace.assets.seal.recipients import as_recipient

    return as_recipient(KEY)
