"""Recipients and identities together: who opens what, what is refused before any work, and what changed stanzas do."""

from __future__ import annotations

import base64
import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vambrace.assets.seal import keys, recipients, stanzas
from vambrace.assets.seal.kms import Kms, Local
from vambrace.assets.seal.recipients import (
    Argon2id,
    Key,
    Passphrase,
    PrivateKey,
    PublicKey,
    Scrypt,
    as_identity,
    as_recipient,
    candidates,
    refusal,
)
from vambrace.errors import ArtifactRefused, ConfigError, ResourceError

FILE_KEY, BINDING = bytes(range(32)), bytes(range(100, 132))
QUICK = {"argon2id": Argon2id(memory_kib=8192, passes=1, lanes=1), "scrypt": Scrypt(log_n=10)}
KINDS = ("key", "argon2id", "scrypt", "x25519", "mlkem768-x25519", "kms")
_SECRET = {kind: keys.Secret(kind, bytes([number]) * 32) for number, kind in enumerate(keys.KINDS)}


def pair(kind: str, name: str = "a"):
    """A recipient of a kind and the identity that opens; another name, another secret."""
    if kind in QUICK:
        return Passphrase(f"passphrase {name}", kdf=QUICK[kind]), Passphrase(f"passphrase {name}")
    secret = (name * 32).encode()
    if kind == "key":
        return Key(secret), Key(secret)
    if kind == "kms":
        return Kms(Local(secret), context={"model": "m"}), Kms(Local(secret))
    key = keys.Secret(kind, secret)
    return PublicKey(key.public()), PrivateKey(key)


@pytest.fixture(scope="module")
def stanza_of() -> dict[str, dict[str, object]]:
    return {kind: pair(kind)[0].wrap(FILE_KEY, BINDING) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_identity_opens_and_no_other(kind: str, stanza_of: dict[str, dict[str, object]]) -> None:
    everyone = [*stanza_of.values()]
    _, identity = pair(kind)
    assert [*candidates([identity], everyone, BINDING)] == [FILE_KEY] * (2 if kind in QUICK else 1)
    assert [*identity.unwrap([stanza_of[kind]], BINDING)] == [FILE_KEY]
    # For another file, with another secret, by identities of other kinds: nothing.
    assert [*identity.unwrap([stanza_of[kind]], bytes(32))] == []
    assert [*pair(kind, "b")[1].unwrap([stanza_of[kind]], BINDING)] == []
    for other in KINDS:
        if other != kind and not {other, kind} <= {*QUICK}:
            assert [*pair(other)[1].unwrap([stanza_of[kind]], BINDING)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_stanzas_are_alike(kind: str) -> None:
    recipient, _ = pair(kind)
    one, two = (recipient.wrap(FILE_KEY, BINDING) for _ in range(2))
    assert one["wrapped"] != two["wrapped"]
    assert one.get("salt", 1) != two.get("salt", 2)
    for stanza in (one, two):
        assert base64.b64encode(FILE_KEY).decode()[:12] not in str(stanza)


@pytest.mark.parametrize("kind", ["key", "x25519", "mlkem768-x25519"])
def test_hints_choose_and_are_left_out_when_asked(kind: str) -> None:
    recipient, identity = pair(kind)
    named = recipient.wrap(FILE_KEY, BINDING)
    assert named["id"] == identity.hint
    assert len(identity.hint) == 16
    hidden = type(recipient)(recipient.key, anonymous=True).wrap(FILE_KEY, BINDING)
    assert set(hidden) == set(named) - {"id"}
    assert [*identity.unwrap([hidden], BINDING)] == [FILE_KEY]
    # A hint is trusted for nothing: a false one neither hides a recipient nor opens one.
    false = named | {"id": "0" * 16}
    assert [*identity.unwrap([false], BINDING)] == [FILE_KEY]
    stranger = pair(kind, "b")[0].wrap(bytes(32), BINDING) | {"id": identity.hint}
    assert [*identity.unwrap([stranger, named], BINDING)] == [FILE_KEY]
    # The one with the hint comes first.
    again = recipient.wrap(b"x" * 32, BINDING)
    assert next(identity.unwrap([hidden, false, again], BINDING)) == b"x" * 32


@pytest.mark.parametrize("kind", KINDS)
def test_every_changed_byte_of_a_stanza_is_noticed(kind: str, stanza_of: dict[str, dict[str, object]]) -> None:
    """Each byte of each binary field, one bit of it: the wrapped key does not come out, and nothing else does."""
    _, identity = pair(kind)
    for field in ("salt", "wrapped"):
        if field not in stanza_of[kind]:
            continue
        data = base64.b64decode(str(stanza_of[kind][field]))
        for at in range(len(data)):
            changed = bytearray(data)
            changed[at] ^= 1 << (at % 8)
            stanza = stanza_of[kind] | {field: base64.b64encode(changed).decode()}
            # X25519 (RFC 7748) lets the highest bit of a public key go, but HPKE hashes the key as it stands.
            assert [*identity.unwrap([stanza], BINDING)] == [], (field, at)


@pytest.mark.parametrize("kind", KINDS)
def test_malformed_stanzas_of_known_kinds_are_refused(kind: str, stanza_of: dict[str, dict[str, object]]) -> None:
    good = stanza_of[kind]
    bad: list[dict[str, object]] = [good | {"extra": 1}]
    bad += [{name: value for name, value in good.items() if name != lacking} for lacking in set(good) - {"id", "type"}]
    odd = ("=", "\ud800", "ü" * 16)
    for name in set(good) - {"type"}:
        bad += [good | {name: value} for value in (None, True, 1.0, "", [], {"a": 1}, -1.5, *odd)]
    for name in {"salt", "wrapped"} & set(good):
        text, data = str(good[name]), base64.b64decode(str(good[name]))
        bad += [good | {name: text + "\n"}, good | {name: " " + text}, good | {name: text.rstrip("=") + "===="}]
        if kind != "kms":
            bad += [good | {name: base64.b64encode(each).decode()} for each in (data[:-1], data + b"\0", b"")]
    if "id" in good:
        bad += [good | {"id": each} for each in ("0" * 15, "0" * 17, "0" * 15 + "A", "0" * 16 + "\n")]
    if kind == "kms":
        bad += [good | {"context": {"vambrace-binding": BINDING.hex()}}, good | {"key": "k" * 2049}]
        bad += [good | {"wrapped": base64.b64encode(bytes(16_385)).decode()}]
    stranger = pair("key", "b")[1]
    for stanza in bad:
        if kind == "kms" and any(
            isinstance(stanza.get(name), str) and stanza[name] in odd for name in ("provider", "key")
        ):
            continue  # any text may name a service
        with pytest.raises(ArtifactRefused, match="E725"):
            recipients.check_bounds([stanza])
        # Also by identities of another kind: a file with a malformed recipient is refused whole.
        with pytest.raises(ArtifactRefused, match="E725"):
            next(stranger.unwrap([stanza_of["key"], stanza], BINDING))
    assert len(bad) > 10


@pytest.mark.parametrize("stanza", [None, 1, "key", [], {}, {"type": None}, {"type": 1}, {"type": ["key"]}])
def test_what_is_no_stanza_is_refused(stanza: object) -> None:
    with pytest.raises(ArtifactRefused, match="E725"):
        recipients.check_bounds([stanza])  # type: ignore[list-item]


def test_unknown_kinds_are_passed_over(stanza_of: dict[str, dict[str, object]]) -> None:
    unknown = {"type": "of-the-future", "salt": 7, "whatever": [{}]}
    everyone = [unknown, *stanza_of.values(), {"type": "KEY"}]
    recipients.check_bounds(everyone)
    for kind in ("key", "x25519"):
        assert [*candidates([pair(kind)[1]], everyone, BINDING)] == [FILE_KEY]


def hashed(kind: str, **costs: int) -> dict[str, object]:
    stanza = pair(kind)[0].wrap(FILE_KEY, BINDING)
    return stanza | costs


BEYOND = [
    [("argon2id", {"memory_kib": 8191})],
    [("argon2id", {"memory_kib": 2_097_153})],
    [("argon2id", {"memory_kib": 2**53})],
    [("argon2id", {"memory_kib": -1})],
    [("argon2id", {"passes": 0})],
    [("argon2id", {"passes": 17})],
    [("argon2id", {"lanes": 0})],
    [("argon2id", {"lanes": 17})],
    [("argon2id", {"memory_kib": 2_097_152, "passes": 4})],
    [("argon2id", {"memory_kib": 2_097_152, "passes": 3}), ("argon2id", {})],
    [("argon2id", {"memory_kib": 2_097_152, "passes": 3}), ("scrypt", {})],
    [("argon2id", {"memory_kib": 2_097_152})] * 4,
    [("scrypt", {"log_n": 9})],
    [("scrypt", {"log_n": 21})],
    [("scrypt", {"log_n": 2**40})],
    [("scrypt", {"r": 7})],
    [("scrypt", {"r": 9})],
    [("scrypt", {"p": 0})],
    [("scrypt", {"p": 17})],
    [("scrypt", {"log_n": 20, "p": 7})],
    [("scrypt", {"log_n": 20, "p": 6}), ("scrypt", {})],
    [("scrypt", {})] * 5,
    [("scrypt", {})] * 3 + [("argon2id", {})] * 2,
]
WITHIN = [
    [("argon2id", {"memory_kib": 2_097_152, "passes": 3, "lanes": 16})],
    [("argon2id", {"memory_kib": 8192, "passes": 16, "lanes": 1})],
    [("scrypt", {"log_n": 20, "p": 6})],
    [("scrypt", {"log_n": 10, "p": 16})],
    [("scrypt", {"log_n": 20})] * 4,
    [("argon2id", {"memory_kib": 2_097_152})] * 3,
]


@pytest.mark.parametrize("costs", BEYOND)
def test_work_beyond_bounds_is_refused_before_any(
    costs: list[tuple[str, dict[str, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    header = [pair("key")[0].wrap(FILE_KEY, BINDING), *(hashed(kind, **each) for kind, each in costs)]

    def work(*_: object) -> bytes:
        raise AssertionError("something was computed")

    monkeypatch.setattr(Passphrase, "_hashed", work)
    monkeypatch.setattr(Key, "_wrapping", work)
    # Whoever opens: also one whose own recipient is innocent.
    for identities in ([Passphrase("passphrase a")], [pair("key")[1]], []):
        with pytest.raises(ArtifactRefused, match="E726"):
            [*candidates(identities, header, BINDING)]
    for identity in (Passphrase("passphrase a"), pair("key")[1], pair("x25519")[1], pair("kms")[1]):
        with pytest.raises(ArtifactRefused, match="E726"):
            [*identity.unwrap(header, BINDING)]


@pytest.mark.parametrize("costs", WITHIN)
def test_work_within_bounds_passes(costs: list[tuple[str, dict[str, int]]]) -> None:
    recipients.check_bounds([hashed(kind, **each) for kind, each in costs])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_json_in_place_of_a_field_is_refused_or_opens_nothing_wrong(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([kind for kind in KINDS if kind != "mlkem768-x25519"]))
    good = _MADE.setdefault(kind, pair(kind)[0].wrap(FILE_KEY, BINDING))
    field = data.draw(st.sampled_from([*good, "more"]))
    stanza = good | {field: data.draw(JSON)}
    try:
        found = [*pair(kind)[1].unwrap([stanza], BINDING)]
    except ArtifactRefused as error:
        found = [error.code]
    assert found in ([], [FILE_KEY], ["E725"], ["E726"])


_MADE: dict[str, dict[str, object]] = {}


@pytest.mark.parametrize("kind", ["aes256", "x25519", "mlkem768-x25519"])
def test_values_stand_for_recipients_and_identities(tmp_path: Path, kind: keys.Kind) -> None:
    key = _SECRET[kind]
    keys.write(tmp_path / "k", key)
    seal = [key, tmp_path / "k", str(tmp_path / "k"), as_recipient(key)]
    unlock = [key, tmp_path / "k", str(tmp_path / "k"), as_identity(key)]
    if kind == "aes256":
        seal += [key.raw, bytearray(key.raw), memoryview(key.raw)]
        unlock += [key.raw, bytearray(key.raw), memoryview(key.raw)]
    else:
        keys.write(tmp_path / "p", key.public())
        seal += [key.public(), key.public().text(), tmp_path / "p"]
        with pytest.raises(ConfigError, match="E723"):
            as_identity(tmp_path / "p")
    for one, other in itertools.zip_longest(seal, unlock, fillvalue=key):
        assert [*as_identity(other).unwrap([as_recipient(one).wrap(FILE_KEY, BINDING)], BINDING)] == [FILE_KEY]


def test_values_that_stand_for_nobody(tmp_path: Path) -> None:
    keys.write(tmp_path / "k", _SECRET["ed25519"])
    for value in (_SECRET["ed25519"], _SECRET["ed25519"].public(), tmp_path / "k"):
        for turn in (as_recipient, as_identity):
            with pytest.raises(ConfigError, match=r"E723.*ed25519.*sign and verify"):
                turn(value)
    for value in (b"short", bytes(33), None, 7, [bytes(32)], Local(bytes(32)), tmp_path / "absent", object()):
        for turn in (as_recipient, as_identity):
            with pytest.raises(ConfigError, match="E724"):
                turn(value)
    with pytest.raises(ConfigError, match="E723"):
        as_identity(_SECRET["x25519"].public())
    with pytest.raises(ConfigError, match="E723"):
        Key(_SECRET["x25519"])
    for wrong in (_SECRET["aes256"], _SECRET["ed25519"]):
        with pytest.raises(ConfigError, match="E723"):
            PrivateKey(wrong)
        with pytest.raises(ConfigError, match="E723"):
            PublicKey(wrong)


def test_a_passphrase_in_the_place_of_a_path_is_not_repeated() -> None:
    for turn in (as_recipient, as_identity):
        with pytest.raises(ConfigError, match=r"E724.*Passphrase\(") as caught:
            turn("hunter2hunter2")
        shown: BaseException | None = caught.value
        assert "hunter2" not in str(shown)
        assert shown.__suppress_context__


@pytest.mark.parametrize(
    ("identities", "kinds", "code", "words"),
    [
        ([("argon2id", "b")], ["argon2id", "key"], "E727", "1 argon2id, 1 key"),
        (
            [("argon2id", "b")],
            ["key", "x25519"],
            "E729",
            "a passphrase, for a file whose recipients are 1 key, 1 x25519",
        ),
        ([("key", "b")], ["argon2id"], "E729", "a secret key"),
        ([("x25519", "b")], ["mlkem768-x25519"], "E729", "public key x25519"),
        ([("x25519", "b")], ["x25519", "x25519"], "E728", "2 x25519"),
        ([("key", "b")], ["key"], "E728", "key"),
        ([("kms", "b")], ["kms"], "E728", "'test' of 'local'"),
        ([("argon2id", "b"), ("key", "b")], ["argon2id", "key"], "E728", "passphrase"),
        ([("argon2id", "b"), ("key", "b")], ["argon2id"], "E727", "passphrase"),
        ([("key", "a")], ["key"], "E737", "id of this key"),
        ([("x25519", "a")], ["x25519", "key"], "E737", "id of this key"),
    ],
)
def test_why_nothing_opens(
    identities: list[tuple[str, str]],
    kinds: list[str],
    code: str,
    words: str,
    stanza_of: dict[str, dict[str, object]],
) -> None:
    given = [pair(kind, name)[1] for kind, name in identities]
    error = refusal(given, [stanza_of[kind] for kind in kinds])
    assert error.code == code
    assert words in error.seen
    for secret in ("passphrase b", "bbbb", "aaaa"):
        assert secret not in str(error)


def test_an_identity_is_described_whole(stanza_of: dict[str, dict[str, object]]) -> None:
    identity = pair("x25519", "b")[1]
    seen = refusal([identity], [stanza_of["x25519"]]).seen
    assert f"<{seen.partition(', which')[0]}>" == repr(identity)
    assert seen.count("<") == seen.count(">") == 1


def test_what_a_header_calls_its_kinds_is_not_repeated() -> None:
    error = refusal([pair("key")[1]], [{"type": "\x1b[2Jhttp://evil"}])
    assert "1 of another kind" in error.seen
    assert "evil" not in str(error)


def test_an_identity_that_cannot_be_tried_hinders_no_other(stanza_of: dict[str, dict[str, object]]) -> None:
    class Away(Local):
        def unwrap(self, wrapped: bytes, context: object) -> bytes | None:
            raise ResourceError("E733", seen="no network", expected="one", fix="wait")

    header = [stanza_of["kms"], stanza_of["key"]]
    away = Kms(Away(bytes(32)))
    found = candidates([away, pair("key")[1]], header, BINDING)
    assert next(found) == FILE_KEY
    with pytest.raises(ResourceError, match="E733"):
        next(found)


def test_passphrases_are_tried_last(monkeypatch: pytest.MonkeyPatch, stanza_of: dict[str, dict[str, object]]) -> None:
    monkeypatch.setattr(Passphrase, "_hashed", lambda *_: pytest.fail("hashed needlessly"))
    header = [stanza_of["argon2id"], stanza_of["key"]]
    assert next(candidates([pair("argon2id")[1], pair("key")[1]], header, BINDING)) == FILE_KEY


def test_many_recipients_in_one_header() -> None:
    everyone = [pair("x25519", chr(97 + n))[0].wrap(FILE_KEY, BINDING) for n in range(26)]
    everyone += [pair("key", chr(97 + n))[0].wrap(FILE_KEY, BINDING) for n in range(26)]
    for name in "az":
        for kind in ("x25519", "key"):
            assert [*candidates([pair(kind, name)[1]], everyone, BINDING)] == [FILE_KEY]


def test_nothing_secret_in_a_repr() -> None:
    for kind in KINDS:
        for each in pair(kind, "q"):
            assert "qqqq" not in repr(each)
            assert "passphrase q" not in repr(each)


def test_a_key_stanza_is_that_of_the_format() -> None:
    """RFC 5869 by HMAC written out, and the cipher with nonce and associated data as the page says."""
    import hashlib
    import hmac

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key = b"k" * 32
    stanza = Key(key).wrap(FILE_KEY, BINDING)
    salt, wrapped = (base64.b64decode(str(stanza[name])) for name in ("salt", "wrapped"))
    prk = hmac.new(salt, key, hashlib.sha256).digest()
    wrapping = hmac.new(prk, b"vambrace-sealed/1 key" + b"\x01", hashlib.sha256).digest()
    assert AESGCM(wrapping).decrypt(bytes(12), wrapped, b"vambrace-sealed/1 key " + BINDING) == FILE_KEY
    assert set(stanza) == {"type", "salt", "wrapped", "id"}


def test_bindings_have_their_size() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        stanzas.label("key", b"short")
