"""Elements of an onnx.TensorProto as bytes, in whatever field of it they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vambrace.models.onnx_file import onnx_package, refuse

__all__ = ["bytes_of", "check_stored", "element", "in_a_byte", "store"]

_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6}
"""Of types that share bytes; in typed fields too, one entry is a byte, but for those of six bits."""


def check_stored(tensor: Any) -> None:  # noqa: ANN401  onnx.TensorProto
    """Refuse a tensor that does not hold as many elements as its sizes say; text and other files are not looked at.

    Raises:
        ModelRefused: E234.
    """
    onnx = onnx_package()
    kinds = onnx.TensorProto
    if tensor.data_location == kinds.EXTERNAL or tensor.data_type in {kinds.UNDEFINED, kinds.STRING}:
        return
    name = f"the tensor {tensor.name[:60]!r}"
    if tensor.data_type not in kinds.DataType.values() or any(size < 0 for size in tensor.dims):
        refuse(
            "E234", name, f"has the type {tensor.data_type} and the sizes {list(tensor.dims)[:8]}", "a tensor of ONNX"
        )
    dtype: np.dtype[Any] = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    bits: int = _BITS.get(kinds.DataType.Name(tensor.data_type), 8 * dtype.itemsize)
    count = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        found, expected, what = len(tensor.raw_data), -(-count * bits // 8), "bytes"
    else:
        found = len(getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type)))
        expected, what = (-(-count * bits // 8) if bits < 6 else count * (2 if dtype.kind == "c" else 1)), "numbers"
    if found != expected:
        refuse("E234", name, f"holds {found} {what}", f"{expected}, as its sizes say")


def bytes_of(tensor: Any) -> bytes:  # noqa: ANN401  onnx.TensorProto
    """The elements' bytes, little-endian."""
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    helper = onnx_package().numpy_helper
    if in_a_byte(tensor) > 1:  # as an array it is without what fills up the last byte, where a lock may put elements
        return bytes(each & 0xFF for each in tensor.int32_data)
    return helper.from_array(helper.to_array(tensor)).raw_data


def in_a_byte(tensor: Any) -> int:  # noqa: ANN401  onnx.TensorProto
    """How many elements share one, and move together; 1 for those that are larger, and for those of six bits."""
    return 8 // _BITS.get(onnx_package().TensorProto.DataType.Name(tensor.data_type), 8)


def store(tensor: Any, raw: bytes) -> None:  # noqa: ANN401  onnx.TensorProto
    """Other elements, in the field in which the old ones are: a map tells the model by its bytes."""
    helper, kinds = onnx_package().helper, onnx_package().TensorProto
    field: str = helper.tensor_dtype_to_field(tensor.data_type)
    if tensor.HasField("raw_data") or not len(getattr(tensor, field)):
        tensor.raw_data = raw
        return
    width = len(raw) // math.prod(tensor.dims)
    kind = {"float_data": "<f4", "double_data": "<f8"}.get(field)
    if kind is None:
        whole = tensor.data_type in {kinds.INT8, kinds.INT16, kinds.INT32, kinds.INT64}
        kind = f"<{'i' if whole else 'u'}{max(1, width)}"
    tensor.ClearField(field)
    getattr(tensor, field).extend(np.frombuffer(raw, dtype=kind).tolist())


def element(tensor: Any, raw: bytes) -> tuple[int, int]:  # noqa: ANN401  onnx.TensorProto
    """Bytes of what moves as one, and the bits in it that a flip turns."""
    width = len(raw) // math.prod(tensor.dims)
    name: str = onnx_package().TensorProto.DataType.Name(tensor.data_type)
    floating = width > 0 and ("FLOAT" in name or name == "DOUBLE")
    width = max(width, 1)
    return width, 1 << (8 * width - 1) if floating else (1 << 8 * width) - 1
