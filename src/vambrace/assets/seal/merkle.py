"""The Merkle tree over a sealed file's chunks (RFC 6962, section 2.1): one hash that stands for all of them.

    >>> tree = Tree()
    >>> tree.add(leaf(b"first chunk")); tree.add(leaf(b"second chunk"))
    >>> tree.root() == node(leaf(b"first chunk"), leaf(b"second chunk"))
    True

Leaves and nodes are hashed behind different first bytes, so that no inner node passes for a chunk. What is fed here is
the ciphertext as it stands in the file: docs/formats/sealed-v1.md, "Trailer".
"""

from __future__ import annotations

import hashlib

__all__ = ["SIZE", "Tree", "leaf", "node"]

SIZE = 32  # bytes of a leaf, a node and a root


def leaf(*record: bytes | bytearray | memoryview) -> bytes:
    """The hash of one chunk, 32 bytes; a chunk may be given in parts (frame, ciphertext, tag)."""
    digest = hashlib.sha256(b"\x00")
    for part in record:
        digest.update(part)
    return digest.digest()


def node(left: bytes, right: bytes) -> bytes:
    """The hash of two neighbouring nodes, 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """The same tree, grown leaf by leaf in memory of at most one node for each power of two.

    Attributes:
        count: leaves so far.
    """

    def __init__(self) -> None:
        self.count = 0
        # Complete subtrees from left to right; their sizes are the powers of two in `count`, falling.
        self._complete: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Put a leaf, as `leaf` gives it, to the right of the others."""
        self.count += 1
        joined, rest = leaf, self.count
        while not rest & 1:
            joined, rest = node(self._complete.pop(), joined), rest >> 1
        self._complete.append(joined)

    def root(self) -> bytes:
        """The root over the leaves so far, 32 bytes; more may follow. Of no leaves: SHA-256 of nothing."""
        if not self._complete:
            return hashlib.sha256().digest()
        found = self._complete[-1]
        for left in reversed(self._complete[:-1]):
            found = node(left, found)
        return found
