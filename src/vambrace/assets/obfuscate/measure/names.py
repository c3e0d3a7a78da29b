"""What the text in a model file tells: names of the original, words, and how much like noise the rest looks.

Text is everything that a file's author chose: names of models, producers, domains, graphs, nodes, values, weights,
functions and free sizes, documentation and metadata. Types of operators, their attributes and what those may say
("nearest") belong to the standard and are left out.

Three kinds of leakage are counted: texts of the original that stand in the other file as they were; words of the
original (at least three letters in a row, torn out of its names at capitals, digits and underscores); and words of the
trade, such as "conv" or "attention", which tell what a part is even where the original never said so. Words of five
letters and more are looked for anywhere. Shorter ones are looked for between marks ("add_1", "/fc/add"), and count
where there are more of them than chance puts among so many names of random letters and digits (Poisson, 1 %): a
thousand names of three characters hold an "add" or a "net" that tells nobody anything.

Inputs and outputs of the model are named by whoever calls it. Whether they keep the original's names is counted apart.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.operators import STANDARD

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Names", "WORDS", "leaked", "texts", "words"]

_TRADE = """
activation adaptive add affine alexnet anchor attention attn auto autoencoder avg avgpool backbone base batch
batchnorm bbox bert bias block body bottleneck box branch cell channel class classifier cls concat conv convolution
cross dec decoder deconv dense depthwise detect detector dist down downsample drop dropout embed embedding enc
encoder expand expert feature features feed ffn filter fire fpn flatten fuse fusion gamma gate gelu global gru head
hidden identity image images inception input inverted kernel key keypoint keypoints kps landmark last layer
layernorm layers linear logit logits loss lstm main mask max maxpool mean mixer mlp mobilenet model module net
neck network norm normalization onnx out output pad patch pixel plain point pointwise pool pooling pos position
post pre probs projection proj pytorch query reduce relu res residual resize resnet rnn scale score scores self
sequential shortcut sigmoid silu skip softmax spatial squeeze stage stem stride sub swish tanh tensorflow token
torch torchvision trans transformer transition unet unit up upsample value var variance vgg vision weight weights
yolo yunet
"""
WORDS = frozenset(_TRADE.split())
"""Words of the trade."""

_SHORTEST, _ANYWHERE = 3, 5
_LONGEST = 40  # characters; longer names hold no short word by chance
_MANY = 150  # words: no chance puts so many
_SURPRISE = 0.01
_TORN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What `leaked` finds in a file about another one.

    Attributes:
        texts: distinct texts in the file.
        originals: distinct texts of the original.
        kept: those of the original that stand in the file, as they were.
        kept_words: distinct words of the original's that stand in the file.
        original_words: distinct words of the original.
        trade_words: distinct words of the trade in the file.
        entropy: bits a character of the file's texts, from the frequencies of characters; about 4 for hexadecimal
            digits that are drawn evenly, 0 for no text.
        original_entropy: the same of the original.
        documented: texts of documentation and metadata in the file.
        interface: inputs and outputs of the model that have the names they had in the original.
        examples: a few texts and words that leak.
    """

    texts: int
    originals: int
    kept: int
    kept_words: int
    original_words: int
    trade_words: int
    entropy: float
    original_entropy: float
    documented: int
    interface: int
    examples: tuple[str, ...]

    @property
    def leakage(self) -> float:
        """Share of the original's texts and words, together, that can be read in the file; 0 where it had none."""
        told = self.originals + self.original_words
        return (self.kept + self.kept_words) / told if told else 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing of the original and no word of the trade can be read, outside of the interface."""
        return not (self.kept or self.kept_words or self.trade_words or self.documented)

    def as_json(self) -> dict[str, object]:
        """As JSON data."""
        found: dict[str, object] = asdict(self)
        return found | {"examples": list(self.examples), "leakage": self.leakage, "clean": self.clean}


def leaked(original: ModelProto, other: ModelProto) -> Names:
    """What `other` tells in words about `original`."""
    mine, theirs = texts(original), texts(other)
    ends = [{each.name for each in (*model.graph.input, *model.graph.output)} for model in (original, other)]
    interface = {name for name in ends[0] & ends[1] if name}
    for name in interface:
        mine.pop(name, None)
        theirs.pop(name, None)
    # Empty text and text without a letter, such as "123", says nothing of its own: counters collide by chance.
    telling = {text for text in mine if re.search("[A-Za-z]", text) and len(text) >= _SHORTEST}
    kept = telling & set(theirs)
    own_words = {word for text in mine for word in words(text)}
    standing = _standing(WORDS | own_words, theirs)
    trade, shared = standing & WORDS, standing & own_words
    return Names(
        texts=len(theirs),
        originals=len(telling),
        kept=len(kept),
        kept_words=len(shared),
        original_words=len(own_words),
        trade_words=len(trade),
        entropy=_entropy(theirs),
        original_entropy=_entropy(mine),
        interface=len(interface),
        documented=sum(1 for kind, text in _walk(other) if kind == "documentation" and text),
        examples=tuple(sorted(kept)[:3] + sorted(trade | shared)[:3]),
    )


def texts(model: ModelProto) -> Counter[str]:
    """Every distinct text of a model's author, with how often it stands there."""
    return Counter(text for _, text in _walk(model) if text)


def words(text: str) -> list[str]:
    """Words of at least three letters, in lower case: "layer1_convBN" gives layer, conv (BN is too short)."""
    return [word.lower() for word in _TORN.findall(text) if len(word) >= _SHORTEST]


_NAMES = {
    "ModelProto": ("producer_name", "producer_version", "domain"),
    "GraphProto": ("name",),
    "NodeProto": ("name", "input", "output", "overload"),
    "ValueInfoProto": ("name",),
    "TensorProto": ("name",),
    "FunctionProto": ("name", "domain", "input", "output", "overload", "attribute"),
    "Dimension": ("dim_param",),
}


def _walk(model: ModelProto) -> Iterator[tuple[str, str]]:
    """(kind, text) of every message inside the model, without recursion; operator types stay out."""
    waiting: list[Any] = [model]
    while waiting:
        message = waiting.pop()
        kind = message.DESCRIPTOR.name
        if kind == "StringStringEntryProto":
            yield from (("documentation", str(message.key)), ("documentation", str(message.value)))
            continue
        for name in _NAMES.get(kind, ()):
            value = getattr(message, name)
            yield from (("name", str(each)) for each in ([value] if isinstance(value, str) else value))
        if kind == "OperatorSetIdProto" and message.domain not in STANDARD:
            yield "name", str(message.domain)
        for field, value in message.ListFields():
            if field.name == "quant_parameter_tensor_names":  # its keys belong to the standard
                yield from (("name", str(each.value)) for each in value)
            elif field.name == "doc_string":
                yield "documentation", value
            elif field.message_type is not None:
                waiting += [value] if hasattr(value, "DESCRIPTOR") else list(value)


def _standing(wanted: frozenset[str], found: Counter[str]) -> set[str]:
    """Which of the words stand in the texts."""
    whole = "\n".join(found).lower()
    long = {word for word in wanted if len(word) >= _ANYWHERE and word in whole}
    short = {word for word in wanted if len(word) < _ANYWHERE}
    tokens = re.findall("[a-z0-9]+", whole)
    bare = [token.rstrip("0123456789") for token in tokens]
    seen = [word for word in bare if word in short]
    lengths = Counter(len(word) for word in short)
    # Of 36 characters, how often a word and nothing but digits after it would come up.
    expected = math.fsum(
        count * 10.0 ** (len(token) - length) / 36.0 ** len(token)
        for token in tokens
        if len(token) <= _LONGEST
        for length, count in lengths.items()
        if length <= len(token)
    )
    below = math.fsum(expected**k / math.factorial(k) for k in range(min(len(seen), _MANY))) * math.exp(-expected)
    return long | (set(seen) if seen and 1.0 - below < _SURPRISE else set())


def _entropy(found: Counter[str]) -> float:
    characters = Counter(character for text in found for character in text)
    total = sum(characters.values())
    return -math.fsum(n / total * math.log2(n / total) for n in characters.values()) if total else 0.0
