"""Key files: whole, private, never overwritten, and one spelling for each key."""

from __future__ import annotations

import base64
import copy
import os
import pickle
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace.assets.seal import keys
from vambrace.errors import ArtifactRefused, ConfigError, ResourceError, VambraceError

PAIRS = ("ed25519", "mlkem768-x25519", "x25519")


@pytest.mark.parametrize("kind", keys.KINDS)
def test_a_key_comes_back_from_its_file(tmp_path: Path, kind: keys.Kind) -> None:
    key = keys.generate(kind)
    keys.write(tmp_path / "a.key", key)
    back = keys.read(tmp_path / "a.key")
    assert isinstance(back, keys.Secret)
    assert (back.kind, back.raw, back.id) == (kind, key.raw, key.id)
    assert (tmp_path / "a.key").read_text() == key.text() + "\n"
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.key"]
    assert keys.generate(kind).raw != key.raw


@pytest.mark.parametrize("kind", PAIRS)
def test_a_public_part_comes_back_from_its_file(tmp_path: Path, kind: keys.Kind) -> None:
    key = keys.generate(kind)
    keys.write(tmp_path / "a.key", key)
    keys.write(tmp_path / "a.pub", key.public())
    assert keys.read(tmp_path / "a.pub") == key.public()
    assert stat.S_IMODE((tmp_path / "a.pub").stat().st_mode) & 0o700 == 0o600
    assert key.id == key.public().id


def test_a_raw_key_has_no_public_part(tmp_path: Path) -> None:
    key = keys.generate("aes256")
    with pytest.raises(ConfigError, match="E723"):
        key.public()
    # HKDF-Expand of RFC 5869 written out: one block is enough for 32 bytes.
    import hashlib
    import hmac

    expanded = hmac.new(key.raw, b"vambrace-sealed/1 id\x01", hashlib.sha256).digest()
    assert key.id == expanded[:8].hex()


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    for there in (b"", b"precious"):
        path.write_bytes(there)
        with pytest.raises(ConfigError, match="E722"):
            keys.write(path, keys.generate("aes256"))
        assert path.read_bytes() == there
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="E722"):
        keys.write(path, keys.generate("aes256"))
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(ResourceError, match="E601"):
        keys.write(tmp_path / "no" / "folder", keys.generate("aes256"))


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o602, 0o660, 0o666])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.key"
    key = keys.generate("x25519")
    keys.write(path, key)
    path.chmod(mode)
    with pytest.raises(ArtifactRefused, match=f"E721.*{mode:04o}.*chmod 600"):
        keys.read(path)
    assert isinstance(again := keys.read(path, permissive=True), keys.Secret)
    assert again.raw == key.raw
    path.chmod(0o400)
    keys.read(path)
    (tmp_path / "a.pub").write_text(key.public().text())
    (tmp_path / "a.pub").chmod(mode)
    assert keys.read(tmp_path / "a.pub") == key.public()


def test_a_key_is_read_from_a_pipe() -> None:
    key = keys.generate("aes256")
    out, into = os.pipe()
    os.write(into, key.text().encode() + b"\n")
    os.close(into)
    found = keys.read(f"/dev/fd/{out}")
    os.close(out)
    assert isinstance(found, keys.Secret)
    assert found.raw == key.raw


def test_secrets_do_not_show(tmp_path: Path) -> None:
    key = keys.Secret("aes256", b"s3cret-key-of-thirty-two-bytes!!")
    shown = f"{key!r} {key!s} {key}"
    for trace in ("s3cret", key.raw.hex(), base64.b64encode(key.raw).decode()[:8]):
        assert trace not in shown
    for leak in (lambda: pickle.dumps(key), lambda: copy.copy(key), lambda: copy.deepcopy(key)):
        with pytest.raises(TypeError, match="not pickled"):
            leak()
    held = key._raw
    key.wipe()
    assert bytes(held) == bytes(32)
    key.wipe()
    with pytest.raises(ConfigError, match="wiped"):
        _ = key.raw


def line(kind: str = "aes256", size: int = 32, sort: str = "secret") -> str:
    return f"vambrace-{sort}-key/1 {kind} {base64.b64encode(bytes(range(size))).decode()}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        line() + "\n\n",
        " " + line(),
        line() + " ",
        line() + "\n" + line(),
        line().replace(" ", "  "),
        line().replace("/1", "/2"),
        line().replace("secret", "Secret"),
        line("aes128"),
        line("AES256"),
        line(size=31),
        line(size=33),
        line(size=16),
        line(sort="public"),
        line("x25519", 31, "public"),
        line("mlkem768-x25519", 32, "public"),
        line()[:-1],
        line().rstrip("="),
        line()[:-2] + "9=",  # the same 32 bytes, were the last bits let go
        line("aes256") + "=",
        line().replace("A", "-", 1),
        "x" * 100_000,
        "AGE-SECRET-KEY-1QQQ",
    ],
)
def test_anything_but_one_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ArtifactRefused, match="E720") as caught:
        keys.read(path)
    with pytest.raises(ArtifactRefused, match="E720"):
        keys.parse(text)
    if len(text) > 20:
        assert text[-15:] not in str(caught.value)


def test_other_spellings_are_of_the_same_bytes() -> None:
    """The case above with other last bits is one that a careless reader takes."""
    good, bad = line(), line()[:-2] + "9="
    assert base64.b64decode(good.split()[2]) == base64.b64decode(bad.split()[2])
    assert isinstance(keys.parse(good), keys.Secret)
    assert isinstance(keys.parse(good + "\r\n"), keys.Secret)


@given(
    st.text(max_size=80)
    | st.builds(lambda a, b: line()[:a] + b + line()[a + 1 :], st.integers(0, 70), st.text(max_size=2))
)
def test_text_is_a_key_or_refused(text: str) -> None:
    try:
        key = keys.parse(text)
    except ArtifactRefused:
        return
    assert key.text() == text.removesuffix("\n").removesuffix("\r")


def test_what_is_no_key_file(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(ArtifactRefused, match="E720"):
        keys.read(tmp_path / "binary")
    with pytest.raises(ResourceError, match="E604"):
        keys.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="E776"):
        keys.read(tmp_path / "absent")


@pytest.mark.parametrize(
    "make",
    [
        lambda: keys.Secret("aes256", bytes(16)),
        lambda: keys.Secret("aes128", bytes(16)),  # type: ignore[arg-type]
        lambda: keys.Public("aes256", bytes(32)),
        lambda: keys.Public("x25519", bytes(33)),
        lambda: keys.generate("rsa"),  # type: ignore[arg-type]
    ],
)
def test_keys_of_other_kinds_and_sizes_are_refused(make) -> None:  # noqa: ANN001
    with pytest.raises(VambraceError, match="E724"):
        make()
