"""Key management services: what they are told, what is asked of them, and what is made of their answers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from vambrace.assets.seal.kms import Kms, Local
from vambrace.errors import ConfigError, ResourceError

FILE_KEY, BINDING = bytes(range(32)), bytes(range(100, 132))


class Listening(Local):
    """Notes what it is told; answers what it is told to."""

    def __init__(self, *, key: str = "test", wrapped: bytes | None = None, unwrapped: bytes | None = None) -> None:
        super().__init__(bytes(32), key=key)
        self.heard: list[dict[str, str]] = []
        self.wrapped, self.unwrapped = wrapped, unwrapped

    def wrap(self, file_key: bytes, context: Mapping[str, str]) -> bytes:
        self.heard.append(dict(context))
        return super().wrap(file_key, context) if self.wrapped is None else self.wrapped

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes | None:
        self.heard.append(dict(context))
        return super().unwrap(wrapped, context) if self.unwrapped is None else self.unwrapped


def test_the_service_is_told_the_binding_and_the_header_is_not() -> None:
    service = Listening()
    stanza = Kms(service, context={"model": "m"}).wrap(FILE_KEY, BINDING)
    assert stanza["context"] == {"model": "m"}
    assert stanza["provider"] == "local"
    assert stanza["key"] == "test"
    assert [*Kms(service).unwrap([stanza], BINDING)] == [FILE_KEY]
    assert service.heard == [{"model": "m", "vambrace-binding": BINDING.hex()}] * 2
    assert Kms(Local(bytes(32))).wrap(FILE_KEY, BINDING)["context"] == {}


def test_another_context_opens_nothing() -> None:
    service = Listening()
    stanza = Kms(service, context={"model": "m"}).wrap(FILE_KEY, BINDING)
    assert [*Kms(service).unwrap([stanza | {"context": {"model": "n"}}], BINDING)] == []
    assert [*Kms(service).unwrap([stanza | {"context": {}}], BINDING)] == []
    assert [*Kms(service).unwrap([stanza], bytes(32))] == []
    asked = len(service.heard)
    # An identity that insists on a context asks about no other.
    assert [*Kms(service, context={"model": "n"}).unwrap([stanza], BINDING)] == []
    assert [*Kms(service, context={}).unwrap([stanza], BINDING)] == []
    assert len(service.heard) == asked
    assert [*Kms(service, context={"model": "m"}).unwrap([stanza], BINDING)] == [FILE_KEY]


def test_only_stanzas_of_the_service_are_tried_and_those_of_the_key_first() -> None:
    service = Listening(key="mine")
    mine = Kms(service).wrap(FILE_KEY, BINDING)
    others = [mine | {"key": f"other {n}", "wrapped": "AAAA"} for n in range(3)]
    abroad = [mine | {"provider": "aws"}] * 5
    service.heard.clear()
    assert next(Kms(service).unwrap([*abroad, *others, mine], BINDING)) == FILE_KEY
    assert len(service.heard) == 1
    assert [*Kms(service).unwrap([*abroad, *others], BINDING)] == []
    assert len(service.heard) == 4


@pytest.mark.parametrize("answer", [b"", bytes(16_385), FILE_KEY, b"x" + FILE_KEY, FILE_KEY.hex(), 7])
def test_a_wrapped_key_that_fits_no_header_or_hides_nothing_is_refused(answer: bytes) -> None:
    with pytest.raises(ResourceError, match="E734") as caught:
        Kms(Listening(wrapped=answer)).wrap(FILE_KEY, BINDING)
    assert FILE_KEY.hex() not in str(caught.value)


@pytest.mark.parametrize("answer", [b"", bytes(16), bytes(33), "x" * 32, 32])
def test_an_answer_that_is_no_file_key_is_refused(answer: bytes) -> None:
    stanza = Kms(Listening()).wrap(FILE_KEY, BINDING)
    with pytest.raises(ResourceError, match="E734") as caught:
        next(Kms(Listening(unwrapped=answer)).unwrap([stanza], BINDING))
    assert "xxx" not in str(caught.value)


def test_answers_may_be_bytearrays_and_keys_are_bytes() -> None:
    stanza = Kms(Listening(wrapped=bytearray(Local(bytes(32)).wrap(FILE_KEY, {})))).wrap(FILE_KEY, BINDING)
    (found,) = Kms(Listening(unwrapped=bytearray(FILE_KEY))).unwrap([stanza], BINDING)
    assert found == FILE_KEY
    assert isinstance(found, bytes)


@pytest.mark.parametrize("context", [{"a": 1}, {1: "a"}, {"vambrace-binding": "00"}, {"a": None}])
def test_contexts_that_do_not_fit_are_refused(context: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="E736"):
        Kms(Local(bytes(32)), context=context)
    for key in ("", "k" * 2049):
        with pytest.raises(ConfigError, match="E736"):
            Kms(Local(bytes(32), key=key))


def test_short_wrapped_keys_of_the_stand_in() -> None:
    assert Local(bytes(32)).unwrap(b"short", {}) is None
