"""Sealed models where models are used: onnxruntime, `vambrace.load`; and no plain byte on any disk."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import vambrace
from vambrace.assets import seal
from vambrace.assets.obfuscate.locking import lock
from vambrace.cli.main import main
from vambrace.errors import ArtifactRefused, ConfigError, ModelRefused, VambraceError

KEY = bytes(range(32))


def model(*, external: bool = False, name: str = "weight") -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), name)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["inputs", name], ["logits"])],
        "net",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [weight],
    )
    found = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if external:
        weight = found.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="weights.bin")
    return found


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def test_an_onnx_file_goes_into_a_session_and_into_load(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(model().SerializeToString())
    seal.save(tmp_path / "net.onnx", tmp_path / "net.sealed", recipients=[KEY])
    inputs = torch.rand(5, 4)
    wanted = inputs @ torch.arange(12.0).view(4, 3)
    session = seal.session(tmp_path / "net.sealed", identity=KEY)
    assert np.allclose(session.run(None, {"inputs": inputs.numpy()})[0], wanted.numpy())
    loaded = vambrace.load(tmp_path / "net.sealed", identity=KEY)
    plain = vambrace.load(tmp_path / "net.onnx")
    assert torch.equal(loaded(inputs), plain(inputs))
    assert loaded.identity.weights == plain.identity.weights, "a sealed model is the same model"


def test_an_empty_model_is_no_model_that_the_factory_brings(capsys: pytest.CaptureFixture[str]) -> None:
    """As of a variable that is not set: noise was assessed, and the signer that was demanded was not asked."""
    assert main(["check", "--model", "", "--factory", "nets:make", "--data", "digits", "--signer", "x.pub"]) == 2
    assert "an empty path, as of a variable that is not set" in capsys.readouterr().err


@pytest.mark.parametrize("held", [{"signer": "nobody.pub"}, {"identity": KEY}, {"sha256": "0" * 64}])
def test_what_a_file_is_held_against_needs_a_file(held: dict[str, Any]) -> None:
    """A network of the factory alone was assessed, and nobody was asked for a signature."""
    for path in (None, ""):
        with pytest.raises(ConfigError, match=f"E115: {next(iter(held))}, and no model file"):
            vambrace.load(path, factory=net, **held)


def test_a_locked_model_is_another_model(tmp_path: Path) -> None:
    """Its session ran, and computed something else without a word."""
    onnx.save(lock(model(), KEY), tmp_path / "net.onnx")
    seal.save(tmp_path / "net.onnx", tmp_path / "net.sealed", recipients=[KEY])
    for load in (vambrace.load, seal.session):
        with pytest.raises(ModelRefused, match="E855"):
            load(tmp_path / "net.sealed", identity=KEY)


def test_a_model_that_the_runtime_does_not_take(tmp_path: Path) -> None:
    """An error of onnxruntime came out."""
    odd = model()
    odd.graph.node[0].op_type = "Foo"
    (tmp_path / "net.onnx").write_bytes(odd.SerializeToString())
    seal.save(tmp_path / "net.onnx", tmp_path / "net.sealed", recipients=[KEY])
    with pytest.raises(ModelRefused, match="E236: net.sealed cannot be used by onnxruntime"):
        seal.session(tmp_path / "net.sealed", identity=KEY)


def test_tensors_fill_the_factory_s_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wanted = net()
    seal.save(wanted.state_dict(), tmp_path / "net.sealed", recipients=[KEY])
    loaded = vambrace.load(tmp_path / "net.sealed", factory=net, identity=KEY)
    inputs = torch.rand(5, 1, 2, 2)
    assert torch.equal(loaded(inputs), wanted(inputs))
    with pytest.raises(ModelRefused, match="E204"):
        vambrace.load(tmp_path / "net.sealed", identity=KEY)
    with pytest.raises(ModelRefused, match="E209"):
        vambrace.load(tmp_path / "net.sealed", factory=net, identity=KEY, state_key="model")


def test_what_load_refuses(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(model().SerializeToString())
    (tmp_path / "folder").mkdir()
    shutil.copy(tmp_path / "net.onnx", tmp_path / "folder")
    (tmp_path / "external.onnx").write_bytes(model(external=True).SerializeToString())
    (tmp_path / "text").write_bytes(b"hello")
    for name in ("net.onnx", "folder", "external.onnx", "text"):
        seal.save(tmp_path / name, tmp_path / f"{name}.sealed", recipients=[KEY])
    with pytest.raises(ConfigError, match="E770"):
        vambrace.load(tmp_path / "net.onnx.sealed")
    for options in ({"identity": KEY}, {"signer": bytes(31) + b"\x40"}):
        with pytest.raises(ConfigError, match="E771"):
            vambrace.load(tmp_path / "net.onnx", **options)
    with pytest.raises(ArtifactRefused, match="E728"):
        vambrace.load(tmp_path / "net.onnx.sealed", identity=bytes(32))
    with pytest.raises(ArtifactRefused, match="E764"):
        vambrace.load(tmp_path / "folder.sealed", identity=KEY)
    with pytest.raises(ArtifactRefused, match="E764"):
        seal.session(tmp_path / "folder.sealed", identity=KEY)
    for load in (vambrace.load, seal.session):
        with pytest.raises(ModelRefused, match="E232"):
            load(tmp_path / "external.onnx.sealed", identity=KEY)
        with pytest.raises(ModelRefused, match="E230"):
            load(tmp_path / "text.sealed", identity=KEY)


SECRET = "a name that is nowhere else"
PROGRAM = f"""
import sys, torch
from pathlib import Path
import vambrace
from vambrace.assets import seal
folder, what = Path(sys.argv[1]), sys.argv[2]
key = bytes(range(32))
if what == "save":
    seal.save({{{SECRET!r}: torch.full((300_000,), 1234.5)}}, folder / "net.sealed", recipients=[key])
elif what == "load":
    assert {SECRET!r} in seal.load(folder / "net.sealed", identity=key)
    with seal.lazy(folder / "net.sealed", identity=key) as lazy:
        lazy[{SECRET!r}]
elif what == "onnx":
    seal.session(folder / "onnx.sealed", identity=key)
    vambrace.load(folder / "onnx.sealed", identity=key)
else:  # the control: what a test that sees nothing would let pass
    torch.save({{{SECRET!r}: torch.full((300_000,), 1234.5)}}, folder / "plain.pt")
"""
CALLS = "openat,open,creat,write,pwrite64,writev,pwritev,sendfile,memfd_create,mmap,rename,renameat2"


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("what", ["save", "load", "onnx", "control"])
def test_no_plain_byte_touches_a_disk(tmp_path: Path, what: str) -> None:
    """By system calls: what is opened to be written, and what is written there."""
    if what == "load":
        subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path), "save"], check=True)
    if what == "onnx":
        (tmp_path / "plain.onnx").write_bytes(model(name=SECRET).SerializeToString())
        seal.save(tmp_path / "plain.onnx", tmp_path / "onnx.sealed", recipients=[KEY])
        (tmp_path / "plain.onnx").unlink()
    log = tmp_path / "log"
    strace = ["strace", "-f", "-qq", "-y", "-s", "2000000", "-e", f"trace={CALLS}", "-o", str(log)]
    done = subprocess.run([*strace, sys.executable, "-c", PROGRAM, str(tmp_path), what], capture_output=True, text=True)
    if "ptrace" in done.stderr.lower():
        pytest.skip("this machine does not let processes be traced")
    assert done.returncode == 0, done.stderr
    lines = log.read_text(errors="replace").splitlines()
    opened = [line for line in lines if re.search(r"open(at)?\(|creat\(", line) and re.search(r"O_WRONLY|O_RDWR", line)]
    targets = {name for line in opened for name in re.findall(r'"([^"]+)"', line)}
    targets -= {name for name in targets if name.startswith(("/dev/", "/proc/", "/sys/"))}
    written = [line for line in lines if re.search(r"\b(p?write(v|64)?|pwritev|sendfile)\(", line)]
    secret = [line for line in written if SECRET in line or r"\0P\232D" in line]
    if what == "control":
        assert any(name.endswith("plain.pt") for name in targets)
        assert secret, "the test sees a plain write"
        return
    assert not secret
    assert not any("memfd_create" in line for line in lines)
    # onnxruntime keeps a database about itself, whatever is loaded; what is written there was looked at above.
    others = re.compile(r"\.pyc\b|onnxruntime\.db|deviceid")
    mine = {name for name in targets if not others.search(name)}
    assert all("net.sealed" in name for name in mine), mine
    if what != "save":
        assert not mine, "loading writes nothing"


def test_a_signer_is_asked_of_whatever_is_read(tmp_path: Path) -> None:
    """A pipe was no file, so that a plain model out of it was loaded where a signature had been asked for."""
    pipe, plain = tmp_path / "net.sealed", model().SerializeToString()
    os.mkfifo(pipe)
    done = threading.Event()

    def feed() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                with open(fd, "wb") as file:
                    file.write(plain)
            time.sleep(0.002)

    feeding = threading.Thread(target=feed, daemon=True)
    feeding.start()
    try:
        for options in ({"identity": KEY}, {"signer": bytes(31) + b"\x40"}):
            with pytest.raises(VambraceError, match="E771|E201|E200"):
                vambrace.load(pipe, **options)
    finally:
        done.set()
        feeding.join()


def test_tensors_that_came_in_a_stream_are_loaded(tmp_path: Path) -> None:
    """They were taken for an ONNX model that is broken."""
    state = net().state_dict()
    seal.save_stream(io.BytesIO(safetensors.torch.save(state)), tmp_path / "stream.sealed", recipients=[KEY])
    loaded = vambrace.load(tmp_path / "stream.sealed", factory=net, bounds=(0, 1), identity=KEY)
    inputs = torch.rand(5, 1, 2, 2)
    same = net()
    same.load_state_dict(state)
    assert torch.equal(loaded(inputs), same(inputs))
    lazy = seal.lazy(tmp_path / "stream.sealed", identity=KEY)
    assert {name: lazy[name].tolist() for name in lazy} == {name: each.tolist() for name, each in state.items()}
    assert isinstance(seal.load(tmp_path / "stream.sealed", identity=KEY), bytes)
    torch.save(state, tmp_path / "net.pt")
    seal.save(tmp_path / "net.pt", tmp_path / "pickle.sealed", recipients=[KEY], allow_pickle=True)
    with pytest.raises(ArtifactRefused, match="E764: pickle.sealed holds an archive or a pickle"):
        vambrace.load(tmp_path / "pickle.sealed", factory=net, bounds=(0, 1), identity=KEY)


def test_a_pipe_is_no_model_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for options in ({}, {"identity": KEY, "signer": bytes(31) + b"\x40"}):
        with pytest.raises(ModelRefused, match="E200: pipe cannot be read .no file, but a folder, pipe or device"):
            vambrace.load(tmp_path / "pipe", factory=net, bounds=(0, 1), **options)


def test_a_sealed_folder_is_told_to_be_one(tmp_path: Path) -> None:
    """Its list of files begins as a safetensors file does."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(b"content")
    seal.save(tmp_path / "in", tmp_path / "folder.sealed", recipients=[KEY])
    with pytest.raises(ArtifactRefused, match="E764: folder.sealed holds a folder"):
        vambrace.load(tmp_path / "folder.sealed", factory=net, bounds=(0, 1), identity=KEY)
