"""AWS KMS by boto3, against moto's stand-in: encryption contexts, other keys, refusals and lost networks."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

import pytest

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto")

from vambrace.assets.seal.aws import Aws  # noqa: E402
from vambrace.assets.seal.kms import Kms  # noqa: E402
from vambrace.errors import MissingExtra, ResourceError  # noqa: E402

FILE_KEY, BINDING = bytes(range(32)), bytes(range(100, 132))
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Generator[Any]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }.items():
        monkeypatch.setenv(name, value)
    with moto.mock_aws():
        yield boto3.client("kms")


def new_key(client: Any) -> str:
    return client.create_key()["KeyMetadata"]["Arn"]


def test_round_trip(client: Any) -> None:
    arn = new_key(client)
    client.create_alias(AliasName="alias/models", TargetKeyId=arn)
    for name in (arn, arn.rsplit("/", 1)[1], "alias/models"):
        stanza = Kms(Aws(name), context={"model": "m"}).wrap(FILE_KEY, BINDING)
        assert (stanza["provider"], stanza["key"], stanza["context"]) == ("aws", name, {"model": "m"})
        # Sealed under an alias, opened by the ARN, with a client of the caller's own.
        assert [*Kms(Aws(arn, client=client)).unwrap([stanza], BINDING)] == [FILE_KEY]


def test_another_context_or_file_opens_nothing(client: Any) -> None:
    kms = Kms(Aws(new_key(client)), context={"model": "m"})
    stanza = kms.wrap(FILE_KEY, BINDING)
    free = Kms(kms.provider)
    assert [*free.unwrap([stanza], bytes(32))] == []
    assert [*free.unwrap([stanza | {"context": {"model": "n"}}], BINDING)] == []
    assert [*free.unwrap([stanza | {"wrapped": stanza["wrapped"][:-8] + "AAAAAAA="}], BINDING)] == []


def test_the_context_goes_to_the_service_as_encryption_context(client: Any) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    class Recording:
        def __getattr__(self, name: str):
            def ask(**given: Any) -> Any:
                asked.append((name, given))
                return getattr(client, name)(**given)

            return ask

    arn = new_key(client)
    kms = Kms(Aws(arn, client=Recording()), context={"model": "m"})
    [*kms.unwrap([kms.wrap(FILE_KEY, BINDING)], BINDING)]
    context = {"model": "m", "vambrace-binding": BINDING.hex()}
    assert [(name, given["KeyId"], given["EncryptionContext"]) for name, given in asked] == [
        ("encrypt", arn, context),
        ("decrypt", arn, context),
    ]


class Refusing:
    """A client whose every answer is this error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def encrypt(self, **_: Any) -> Any:
        raise self.error

    decrypt = encrypt


@pytest.mark.parametrize("code", ["InvalidCiphertextException", "IncorrectKeyException"])
def test_a_ciphertext_of_another_key_opens_nothing(client: Any, code: str) -> None:
    """What AWS says of it (moto does not look at KeyId when it decrypts)."""
    from botocore.exceptions import ClientError

    stanza = Kms(Aws(new_key(client))).wrap(FILE_KEY, BINDING)
    refusing = Refusing(ClientError({"Error": {"Code": code, "Message": ""}}, "Decrypt"))
    assert [*Kms(Aws("k", client=refusing)).unwrap([stanza], BINDING)] == []
    with pytest.raises(ResourceError, match=f"E733.*{code}"):
        Kms(Aws("k", client=refusing)).wrap(FILE_KEY, BINDING)


def test_refusals_and_lost_networks_are_said(client: Any) -> None:
    from botocore.exceptions import ClientError, EndpointConnectionError, ParamValidationError

    stanza = Kms(Aws(new_key(client))).wrap(FILE_KEY, BINDING)
    with pytest.raises(ResourceError, match=r"E733.*encrypt.*NotFoundException"):
        Kms(Aws("alias/absent")).wrap(FILE_KEY, BINDING)
    for error, words in (
        (ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "Decrypt"), "AccessDenied"),
        (EndpointConnectionError(endpoint_url="https://kms"), "EndpointConnectionError"),
        (ParamValidationError(report=f"wrong: {FILE_KEY!r}"), "ParamValidationError"),
        (ClientError({}, "Decrypt"), "an error"),
    ):
        kms = Kms(Aws("k", client=Refusing(error)))
        for run in (lambda kms=kms: kms.wrap(FILE_KEY, BINDING), lambda kms=kms: next(kms.unwrap([stanza], BINDING))):
            with pytest.raises(ResourceError, match=f"E733.*{words}") as caught:
                run()
            assert repr(FILE_KEY)[2:-1] not in str(caught.value)


class Answering:
    """A client with one answer to everything."""

    def __init__(self, answer: object) -> None:
        self.encrypt = self.decrypt = lambda **_: answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "E733.*without"),
        ({}, "E733.*without"),
        ([], "E733.*without"),
        ({"CiphertextBlob": None, "Plaintext": None}, "E733.*without"),
        ({"CiphertextBlob": 5, "Plaintext": 32}, "E734.*a int"),
        ({"CiphertextBlob": "text", "Plaintext": "text"}, "E734.*a str"),
        ({"CiphertextBlob": b"", "Plaintext": bytes(31)}, "E734.*bytes"),
    ],
)
def test_answers_that_hold_no_key_are_refused(client: Any, answer: object, words: str) -> None:
    """A number was taken for as many zeros, and 32 of them for a file key; others ended in errors of Python."""
    stanza = Kms(Aws(new_key(client))).wrap(FILE_KEY, BINDING)
    kms = Kms(Aws("k", client=Answering(answer)))
    with pytest.raises(ResourceError, match=words):
        kms.wrap(FILE_KEY, BINDING)
    with pytest.raises(ResourceError, match=words):
        [*kms.unwrap([stanza], BINDING)]


def test_without_credentials_or_region(monkeypatch: pytest.MonkeyPatch, client: Any) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with pytest.raises(ResourceError, match=r"E733.*NoRegion"):
        Aws("k")
    assert Aws("k", region="eu-west-1").name == "aws"


@pytest.mark.parametrize("endpoint", ["localhost:4566", "http://[bad"])
def test_an_endpoint_that_is_no_url(endpoint: str, monkeypatch: pytest.MonkeyPatch, client: Any) -> None:
    """A ValueError of boto3 came out."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ResourceError, match="E733"):
        Aws("alias/models")


def test_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtra, match=r"E112.*vambrace\[kms\]"):
        Aws("k")
