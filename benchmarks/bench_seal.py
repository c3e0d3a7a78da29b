"""What sealing a model costs: ours, the bare cipher in a loop, and the peers that encrypt.

    make peers && .venv-peers/bin/python benchmarks/bench_seal.py
    .venv-peers/bin/python benchmarks/bench_seal.py --mib 256 --rounds 5        # a quick look

Weights of 1 GiB (AES-256-GCM, chunks of 1 MiB, a raw key), files in memory (`/dev/shm`), one thread and two. Contenders
take turns; speeds are shares of the bare loop's, round by round: its time over ours, by the processor's clock and by
the wall's. The bare loops put the same plain bytes into the same kind of place and do nothing else: no header, names,
checks or trailer.

- `open`: `seal.load` to a state dict, also of a signed file with a signer demanded. Bare: `decrypt_into` from a memory
  map, chunk by chunk, into a fresh buffer: one of numpy (huge pages, as ours) and one of torch (pages of 4 KiB).
- `seal`: `seal.save` of the state dict to a file, also signed; into fresh memory; to nowhere. Bare: `encrypt_into` a
  buffer that is then written to the file; copied into fresh memory; or forgotten. With several threads the bare loop
  writes each chunk at its place from the thread that encrypted it. In `matrices` the tensors are a transformer's; in
  `mebibytes` each is as large as a chunk and lies across two, so that every chunk is encrypted from two places.
- `lazy`: open the file, read one tensor of 1 MiB, close: milliseconds.
- `rewrap`: another recipient for a file of 4 GiB (its chunks are a hole), on disk and with its fsyncs: milliseconds.
- `peers`: tensorizer's encrypted load (XSalsa20-Poly1305 by libsodium; names and shapes stay readable) with as many
  threads, and pyrage (age, ChaCha20-Poly1305), which reads and returns bytes: their time over ours.

Before each turn of either side, twice the memory that it needs is taken and given back: on a virtual machine, what
nobody has used for some seconds is got from the host again, which takes longer than all that is measured here, and
would fall on anybody.
For the same reason no file is there when one is sealed: ours replaces one that is there only when it is whole, so for a
moment there are two, and the second would take its memory from the host, while the bare loop empties its own first.

Memory is measured apart, in fresh processes: by how much the system says that the process grew at its height after all
imports, streaming `--mib` through a pipe of no length, and loading them. `results/seal.json`.
"""

from __future__ import annotations

import argparse
import ctypes.util
import io
import json
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import interleave
import numpy as np
import torch
from seal_loops import MIB, SEED, Bare, Holes, Nowhere, Weights, Zeros, size_of, warm, weights
from torch import Tensor

from vambrace.assets import seal

try:
    import tensorizer
except (ImportError, OSError):
    tensorizer = None
try:
    import pyrage
except ImportError:
    pyrage = None

KEY, SIGNER = secrets.token_bytes(32), seal.generate("ed25519")
BARS = {
    "open_and_seal_share_of_bare": 0.8,
    "lazy_milliseconds": 5,
    "rewrap_milliseconds": 50,
    "over_tensorizer": 3,
    "over_pyrage": 10,
    "streaming_mib_beside_buffers": 64,
}


def speeds(state: Weights, folder: Path, threads: int, rounds: int, *, few: bool) -> dict[str, object]:
    """Opening and sealing, and the bare loops beside them; of `few`, what has no signature."""
    bare, path, signed = Bare(state, folder, threads), folder / "ours", folder / "signed"
    options = {"recipients": [KEY], "threads": threads}
    room = 2 * (size_of(state) + 64 * MIB)  # what is taken next need not be what was given back last

    def nothing_there() -> None:
        for each in (bare.path, path, signed):
            each.unlink(missing_ok=True)
        warm(room)

    def all_there() -> None:
        bare.seal_to_file()
        seal.save(state, path, **options)
        seal.save(state, signed, sign=SIGNER, **options)

    groups: dict[str, dict[str, Callable[[], object]]] = {
        "to_file": {
            "bare_to_file": bare.seal_to_file,
            "to_file": lambda: seal.save(state, path, **options),
            "signed_to_file": lambda: seal.save(state, signed, sign=SIGNER, **options),
        },
        "to_memory": {
            "bare_to_memory": bare.seal_to_memory,
            "to_memory": lambda: seal.save(state, seal.Memory(), **options),
        },
        "to_nowhere": {
            "bare_to_nowhere": bare.seal_to_nowhere,
            "to_nowhere": lambda: seal.save(state, Nowhere(), **options),
        },
        "open": {
            "bare_open": lambda: bare.open_into(lambda size: np.empty(size, np.uint8)),
            "open": lambda: seal.load(path, identity=KEY, threads=threads),
            "signed_open": lambda: seal.load(signed, identity=KEY, signer=SIGNER.public(), threads=threads),
            "bare_open_torch": lambda: bare.open_into(lambda size: torch.empty(size, dtype=torch.uint8).numpy()),
        },
    }
    times: dict[str, list[dict[str, float]]] = {}
    for name, contenders in groups.items():
        chosen = contenders
        if few:
            chosen = {each: call for each, call in contenders.items() if each in {f"bare_{name}", name}}
        if name == "open":
            all_there()
        before = nothing_there if name == "to_file" else lambda: warm(room)
        times |= interleave.interleaved(chosen, rounds, before=before)
    pairs = {name: (name, f"bare_{name.removeprefix('signed_')}") for name in times if not name.startswith("bare_")}
    if not few:
        pairs["open_against_torch_buffer"] = ("open", "bare_open_torch")
    loaded = seal.load(signed, identity=KEY, signer=SIGNER.public(), threads=threads)
    if any(not torch.equal(loaded[name].view(torch.int32), each.view(torch.int32)) for name, each in state.items()):
        raise SystemExit("what was loaded is not what was sealed")
    return {
        "seconds": {name: interleave.fastest(taken) for name, taken in times.items()},
        "share_of_bare": {name: interleave.ratio(times[other], times[ours]) for name, (ours, other) in pairs.items()},
    }


def milliseconds(step: Callable[[], object], times: int) -> dict[str, float]:
    """Of one call, by the wall's clock."""
    step()
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        step()
        taken.append(1e3 * (time.perf_counter() - begin))
    return {"median": statistics.median(taken), "least": min(taken), "most": max(taken), "times": times}


def lazy(state: Weights, folder: Path, times: int) -> dict[str, object]:
    """One tensor of a large file, everything included; and the same of a signed one."""

    def read(name: str, **options: object) -> Tensor:
        with seal.lazy(folder / name, identity=KEY, **options) as net:
            return net["probe"]

    if not torch.equal(read("ours").view(torch.int32), state["probe"].view(torch.int32)):
        raise SystemExit("the tensor that was read is not the one that was sealed")
    return {
        "plain": milliseconds(lambda: read("ours"), times),
        "signed": milliseconds(lambda: read("signed", signer=SIGNER.public()), times),
    }


def rewrap(folder: Path, times: int) -> dict[str, object]:
    """Recipients of a file of 4 GiB, changed back and forth."""
    path, keys, turn = folder / "large", [secrets.token_bytes(32) for _ in range(2)], 0
    with Holes(path, "w") as file:
        seal.save_stream(Zeros(4096 * MIB), file, recipients=[keys[0]])

    def change() -> None:
        nonlocal turn
        seal.rewrap(path, keys[turn % 2], [keys[(turn + 1) % 2]])
        turn += 1

    return {"bytes": path.stat().st_size, "fsync": _folder_kind(folder), **milliseconds(change, times)}


def _folder_kind(folder: Path) -> str:
    found = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=False)
    return f"on {found.stdout.strip() or 'an unknown file system'}"


def tensorizer_load(state: Weights, folder: Path, threads: int, rounds: int) -> dict[str, object]:
    """tensorizer's time over ours, from file to state dict, on as many threads."""
    path, ours, key = folder / "tensorizer", folder / "ours", secrets.token_bytes(32)
    encryption = tensorizer.EncryptionParams(key)
    writer = tensorizer.TensorSerializer(path, encryption=encryption)
    writer.write_state_dict(state)
    writer.close()
    tensorizer.serialization.cpu_count = threads  # its pool of decrypting threads
    opening = tensorizer.DecryptionParams.from_key(key)

    def theirs() -> Weights:
        with tensorizer.TensorDeserializer(path, device="cpu", num_readers=threads, encryption=opening) as reader:
            return dict(reader)

    if not torch.equal(theirs()["probe"].view(torch.int32), state["probe"].view(torch.int32)):
        raise SystemExit("what tensorizer loads is not what it was given")
    times = interleave.interleaved(
        {"theirs": theirs, "ours": lambda: seal.load(ours, identity=KEY, threads=threads)},
        rounds,
        before=lambda: warm(size_of(state) + 64 * MIB),
    )
    path.unlink()
    return {
        "seconds": {name: interleave.fastest(taken) for name, taken in times.items()},
        "load": interleave.ratio(times["theirs"], times["ours"]),
    }


def age(mib: int, folder: Path, threads: int, rounds: int) -> dict[str, object]:
    """pyrage's time over ours for the same bytes, for a public key of X25519 each; it has one thread only.

    Sealing goes from memory to memory, opening from a file to memory.
    """
    data, path = os.urandom(mib * MIB), folder / "bytes"
    tensors = {"data": torch.frombuffer(bytearray(data), dtype=torch.uint8)}
    identity, key = pyrage.x25519.Identity.generate(), seal.generate("x25519")
    options = {"recipients": [key.public()], "threads": threads}
    theirs = folder / "age"
    theirs.write_bytes(pyrage.encrypt(data, [identity.to_public()]))
    seal.save(tensors, path, **options)
    times = interleave.interleaved(
        {
            "theirs_seal": lambda: pyrage.encrypt(data, [identity.to_public()]),
            "ours_seal": lambda: seal.save(tensors, seal.Memory(), **options),
            "theirs_open": lambda: pyrage.decrypt(theirs.read_bytes(), [identity]),
            "ours_open": lambda: seal.load(path, identity=key, threads=threads),
        },
        rounds,
        before=lambda: warm(2 * mib * MIB),
    )
    return {
        "mib": mib,
        "seconds": {name: interleave.fastest(taken) for name, taken in times.items()},
        "seal": interleave.ratio(times["theirs_seal"], times["ours_seal"]),
        "open": interleave.ratio(times["theirs_open"], times["ours_open"]),
    }


def peers(state: Weights, folder: Path, threads: tuple[int, ...], rounds: int) -> dict[str, object]:
    """Those that are installed; for the others, why not."""
    found: dict[str, object] = {}
    if tensorizer is None or not ctypes.util.find_library("sodium"):
        found["tensorizer"] = "skipped: tensorizer or libsodium is not installed here (make peers; libsodium23)"
    else:
        found["tensorizer"] = {f"threads_{each}": tensorizer_load(state, folder, each, rounds) for each in threads}
    if pyrage is None:
        found["pyrage"] = "skipped: pyrage is not installed here (make peers)"
    else:
        mib = size_of(state) // MIB
        found["pyrage"] = {f"threads_{each}": age(mib, folder, each, rounds) for each in threads}
    for name, said in found.items():
        if isinstance(said, str):
            interleave.say(f"bench_seal: {name} {said}")
    return found


def peak() -> int:
    """KiB that this process had at its height."""
    said = re.search(r"VmHWM:\s+([0-9]+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(said[1]) if said else 0


def height(role: str, mib: int, threads: int, folder: Path) -> dict[str, float]:
    """In a fresh process: how many MiB it grew by, and what it was allowed to hold."""
    from vambrace.assets.seal.recipients import identities_of

    raw, slots = (folder / "key").read_bytes(), threads + 2 if threads > 1 else 1
    # Once with little, so that what is imported late is there.
    small = io.BytesIO()
    seal.save_stream(Zeros(1), small, recipients=[raw], threads=threads)
    small.seek(0)
    seal.Reader(small, identities_of(raw)).copy_to(Nowhere())
    before = peak()
    if role == "seal_stream":
        seal.save_stream(Zeros(mib * MIB), Nowhere(), recipients=[raw], sign=SIGNER, threads=threads)
        buffers = 2 * slots
    elif role == "open_stream":
        seal.Reader(sys.stdin.buffer, identities_of(raw)).copy_to(Nowhere())
        buffers = 3
    else:
        held = seal.load(folder / "ours", identity=raw, threads=threads)
        buffers = size_of(held) / MIB + threads
    return {"grew_mib": (peak() - before) / 1024, "buffers_mib": buffers}


def memory(folder: Path, mib: int, threads: tuple[int, ...]) -> dict[str, object]:
    """The heights, each from a process of its own."""
    found: dict[str, object] = {}
    (folder / "key").write_bytes(KEY)
    for role in ("seal_stream", "open_stream", "load"):
        for count in threads if role != "open_stream" else (1,):
            command = [sys.executable, __file__, "--height", role, str(mib), str(count), str(folder)]
            feeding = subprocess.Popen(["cat", folder / "ours"], stdout=subprocess.PIPE)
            said = subprocess.run(command, stdin=feeding.stdout, capture_output=True, text=True, check=True).stdout
            feeding.stdout.close()
            feeding.wait()
            found[f"{role}_{count}"] = json.loads(said)
    return found


def said(name: str, found: dict[str, object]) -> str:
    """A line for whoever waits."""
    shares = {
        each: f"{two['cpu']['median']:.2f} cpu, {two['wall']['median']:.2f} wall"
        for each, two in found["share_of_bare"].items()
    }
    return f"{name}, share of the bare loop's speed: {shares}"


def main() -> None:
    """Run, say, write."""
    if sys.argv[1:2] == ["--height"]:
        sys.stdout.write(json.dumps(height(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    torch.set_num_threads(1)
    threads = tuple(given.threads)
    result: dict[str, object] = {"surroundings": interleave.surroundings(SEED, max(threads)), "bars": BARS}
    result["surroundings"]["versions"] |= {
        "cryptography": metadata.version("cryptography"),
        "tensorizer": None if tensorizer is None else metadata.version("tensorizer"),
        "pyrage": None if pyrage is None else metadata.version("pyrage"),
    }
    shared = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as place,
        tempfile.TemporaryDirectory(dir=Path(__file__).parent) as disk,
    ):
        folder = Path(place)
        for kind in ("mebibytes", "matrices"):
            state = weights(given.mib, kind)
            result[kind] = {"bytes": size_of(state), "tensors": len(state)}
            for each in threads:
                result[kind][f"threads_{each}"] = found = speeds(
                    state, folder, each, given.rounds, few=kind == "mebibytes"
                )
                interleave.say(said(f"{kind}, threads: {each}", found))
        result["lazy_milliseconds"] = lazy(state, folder, 50)
        result["rewrap_milliseconds"] = rewrap(Path(disk), 20)
        interleave.say(f"lazy {result['lazy_milliseconds']}; rewrap {result['rewrap_milliseconds']}")
        result["peers"] = peers(state, folder, threads, given.rounds)
        interleave.say(f"peers {result['peers']}")
        del state
        result["memory"] = memory(folder, given.mib, threads)
        interleave.say(f"memory {result['memory']}")
    result["load_at_end"] = round(os.getloadavg()[0], 2)
    full = given.mib >= 1024 and given.rounds >= 7 and threads == (1, 2)
    interleave.say(f"written to {interleave.write('seal' if full else 'seal-quick', result)}")


if __name__ == "__main__":
    main()
