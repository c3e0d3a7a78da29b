"""AWS KMS as provider of wrapped file keys, by boto3 (extra `kms`).

Requests carry the file key, encrypted by TLS; so does the debug log of botocore, in clear, if somebody turns that on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from vambrace.core.extras import require
from vambrace.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Aws"]

_REFUSED: Final = object()
# What KMS says of a ciphertext that is another key's, was changed, or comes with another context.
_NOT_OURS: Final = frozenset({"IncorrectKeyException", "InvalidCiphertextException"})


class Aws:
    """One symmetric key of AWS KMS (operations Encrypt and Decrypt; the context becomes `EncryptionContext`).

    Args:
        key: its id, ARN, or alias (`alias/NAME`); as given it stands in the header of what is sealed.
        client: a boto3 client of `kms`; None makes one from the usual settings, that waits 5 s to connect and 10 s to
            read, and tries three times.
        region: for that client; None: from the settings.

    Raises:
        MissingExtra: E112, when boto3 is not installed.
        ResourceError: E733, when no client can be made, as without a region.
    """

    name = "aws"

    def __init__(self, key: str, *, client: Any = None, region: str | None = None) -> None:  # noqa: ANN401  boto3 has no types
        self.key = key
        boto3, botocore = require("boto3", extra="kms"), require("botocore", extra="kms")
        self._errors = require("botocore.exceptions", extra="kms")
        if client is None:
            require("botocore.config", extra="kms")
            settings = botocore.config.Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 3})
            try:
                client = boto3.client("kms", region_name=region, config=settings)
            except (self._errors.BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
                raise self._failed("no client", type(error).__name__, error) from error
        self._client = client

    def wrap(self, file_key: bytes, context: Mapping[str, str]) -> bytes:
        """See `kms.Provider`."""
        answer = self._ask("encrypt", KeyId=self.key, Plaintext=file_key, EncryptionContext=dict(context))
        return self._field(answer, "encrypt", "CiphertextBlob")

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes | None:
        """See `kms.Provider`; the key is named, so that no ciphertext is opened under another key of the account."""
        answer = self._ask("decrypt", KeyId=self.key, CiphertextBlob=wrapped, EncryptionContext=dict(context))
        return None if answer is _REFUSED else self._field(answer, "decrypt", "Plaintext")

    def _field(self, answer: Any, operation: str, name: str) -> Any:  # noqa: ANN401  `Kms` looks at what it is
        # A client of the caller's own may say anything.
        found: object = cast("dict[str, object]", answer).get(name) if isinstance(answer, dict) else None
        if found is None:
            raise self._failed(operation, f"an answer without {name}")
        return found

    def _ask(self, operation: str, **given: object) -> Any:  # noqa: ANN401  boto3 has no types
        try:
            return getattr(self._client, operation)(**given)
        except self._errors.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "an error"))
            if operation == "decrypt" and code in _NOT_OURS:
                return _REFUSED
            raise self._failed(operation, code, error) from None
        except self._errors.BotoCoreError as error:
            raise self._failed(operation, type(error).__name__, error) from None

    def _failed(self, operation: str, code: str, error: Exception | None = None) -> ResourceError:
        # botocore's own words for wrong parameters repeat the parameters.
        words = "" if error is None or code == "ParamValidationError" else f": {error}"
        return ResourceError(
            "E733",
            seen=f"AWS KMS, {operation} with key {self.key!r}, {code}{words}"[:400],
            expected="an answer of the service",
            fix="check credentials, region, the key's name and policy (kms:Encrypt, kms:Decrypt), and the network",
        )
