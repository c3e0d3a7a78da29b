"""No byte twice, no way out for the key."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import subprocess
import sys
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from vambrace.errors import ConfigError
from vambrace.privacy.dp import keystream, secret
from vambrace.privacy.dp.keystream import Keystream
from vambrace.privacy.dp.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Forks once by the interpreter and once behind its back, and prints what parent and children drew.
FORKS = """
import ctypes, json, os, sys
import numpy as np
from vambrace.privacy.dp.keystream import Keystream

def words(stream):
    drawn = np.empty(512, np.uint64)
    stream._fill(drawn)
    return drawn.tolist()

def child_of(fork, stream):
    come, go = os.pipe()
    pid = fork()
    if pid == 0:
        os.write(go, json.dumps([words(stream), words(stream)]).encode())
        os._exit(0)
    os.close(go)
    with open(come) as pipe:
        told = json.load(pipe)
    os.waitpid(pid, 0)
    return told

ask = os.getpid
os.getpid = lambda: 1  # as if the child had its parent's number: the interpreter's own count must do
stream = Keystream(debug_seed=int(sys.argv[1])) if sys.argv[1:] else Keystream()
drawn = [words(stream)]
drawn += child_of(os.fork, stream) + [words(stream)]
os.getpid = ask
words(stream)
drawn += child_of(ctypes.CDLL(None).fork, stream) + [words(stream)]
print(json.dumps(drawn))
"""


class Recorder(Secret):
    """Keeps what it gave."""

    __slots__ = ("given",)

    def __init__(self, **words: Any) -> None:
        self.given = bytearray()
        super().__init__(**words)

    def _fill(self, target: Any) -> None:
        super()._fill(target)
        self.given += target.tobytes()


def drawn(stream: Keystream, count: int = 512) -> list[int]:
    words = np.empty(count, dtype=np.uint64)
    stream._fill(words)
    return words.tolist()


def repeats(*lists: list[int]) -> int:
    """How many words come twice. By chance: below 1e-11 for the few thousands compared here."""
    words = [word for each in lists for word in each]
    return len(words) - len(set(words))


def every_draw(source: Secret) -> None:
    source.uniform(3)
    for size in (0, 1, 2 * secret.PAIRS + 7):
        source.normal(size)
        source.normal(size, dtype=torch.float64)
    source.laplace(11)
    source.coins(1001, 0.3)
    source.integers(10, 13)
    source.binomial(100, 0.1)
    source.choice(50, 20)
    source.permutation(9)
    source.discrete_gaussian(33, 2.5)


def debug_stream(seed: int, renewals: int, size: int) -> bytes:
    key = hashlib.sha256(f"vambrace/dp/debug/{seed}/{renewals}".encode()).digest()
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(size))


def test_draws_take_the_stream_in_order_without_going_back() -> None:
    source = Recorder(debug_seed=3)
    every_draw(source)
    every_draw(source)
    assert len(source.given) > 2 * 12 * secret.PAIRS
    assert bytes(source.given) == debug_stream(3, 0, len(source.given))


def test_a_key_serves_no_longer_than_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystream, "KEY_SERVES", 1024)
    source = Recorder(debug_seed=3)
    for _ in range(5):
        drawn(source, 60)  # 480 bytes: a third would go beyond 1024
    assert bytes(source.given) == b"".join(debug_stream(3, key, size) for key, size in enumerate((960, 960, 480)))


def test_instances_and_renewals_share_nothing() -> None:
    one, two = Secret(), Secret()
    lists = [drawn(one), drawn(one), drawn(two)]
    one.renew()
    lists.append(drawn(one))
    seeded = Secret(debug_seed=1)
    lists.append(drawn(seeded))
    seeded.renew()
    lists += [drawn(seeded), drawn(Secret(debug_seed=2))]
    assert repeats(*lists) == 0
    assert repeats(*lists, drawn(Secret(debug_seed=1))) == 512  # the search finds what is there


@pytest.mark.parametrize(
    "draw",
    [Secret.normal, Secret.uniform, Secret.laplace, Secret.permutation, lambda source, size: source.coins(size, 0.5)],
)
def test_a_draw_waits_for_the_draw_of_another_thread(draw: Callable[[Secret, int], object]) -> None:
    source = Secret()
    thread = Thread(target=draw, args=(source, 8))
    with source._locked():
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()


def test_threads_share_no_byte() -> None:
    source = Secret()
    got: list[list[int]] = []

    def run() -> None:
        for _ in range(50):
            got.append(source.normal(1000, dtype=torch.float64).view(torch.int64).tolist())
            got.append(source.integers(2**62, 64).tolist())

    threads = [Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 400
    assert repeats(*got) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_forked_children_and_other_processes_share_nothing(tmp_path: Path) -> None:
    def processes(*words: str) -> list[list[list[int]]]:
        script = tmp_path / "forks.py"
        script.write_text(FORKS)
        started = [subprocess.Popen([sys.executable, script, *words], stdout=subprocess.PIPE) for _ in range(2)]
        return [json.loads(each.communicate(timeout=60)[0]) for each in started]

    one, two = processes()
    assert len(one) == 7
    assert repeats(*one, *two) == 0
    seeded, again = processes("5")
    assert seeded == again
    before, child, _, after, *_ = seeded
    assert repeats(before, child) == 0
    assert child == after  # what a stream that does not see forks does


@pytest.mark.parametrize(
    "way",
    [
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        lambda source: source.state_dict(),
        lambda source: torch.save(source, "x"),
    ],
    ids=["pickle", "copy", "deepcopy", "state_dict", "torch.save"],
)
@pytest.mark.parametrize("kind", [Secret, Keystream])
def test_cannot_be_copied_or_stored(
    kind: type[Keystream], way: Callable[[Any], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for source in (kind(), kind(debug_seed=1)):
        with pytest.raises(ConfigError) as caught:
            way(source)
        assert caught.value.code == "E145"
    with pytest.raises(ConfigError) as caught:
        pickle.dumps({"in": [kind()]})
    assert caught.value.code == "E145"


def test_keeps_no_key_that_could_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    key = bytes(range(32))
    monkeypatch.setattr(keystream.os, "urandom", lambda size: key)
    source = Secret()
    every_draw(source)
    names = {name for kind in type(source).__mro__ for name in getattr(kind, "__slots__", ())} - {"__weakref__"}
    assert not hasattr(source, "__dict__")
    for name in names:
        value = getattr(source, name)
        held = value.tobytes() if isinstance(value, np.ndarray) else value if isinstance(value, bytes) else repr(value)
        assert (key if isinstance(held, bytes) else repr(key)) not in held, name
    assert repr(source) == "Secret(private=True)"


def test_a_private_key_is_asked_of_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(keystream.os, "urandom", lambda size: asked.append(size) or bytes(size))
    source = Secret()
    source.renew()
    assert asked == [32, 32]
    Secret(debug_seed=1).renew()
    assert asked == [32, 32]


def test_debug_is_reproducible_and_says_so() -> None:
    assert Secret().private
    assert not Secret(debug_seed=0).private
    one, two = Recorder(debug_seed=9), Recorder(debug_seed=9)
    every_draw(one)
    every_draw(two)
    assert one.given == two.given
    assert torch.equal(Secret(debug_seed=9).normal(100), Secret(debug_seed=9).normal(100))
    assert not torch.equal(Secret(debug_seed=9).normal(100), Secret(debug_seed=8).normal(100))


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "1"])
def test_seeds_that_are_none(seed: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Secret(debug_seed=seed)
    assert caught.value.code == "E148"


def test_torch_and_numpy_generators_are_left_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    legacy = np.random.get_state()[1].tolist()
    first = Secret().normal(50)
    torch.manual_seed(1)
    assert not torch.equal(first, Secret().normal(50))
    assert torch.equal(state, torch.get_rng_state())
    assert legacy == np.random.get_state()[1].tolist()
