"""Data to options: strict types, located messages, translated words, schemas that agree with the reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace.core.fields import annotation_at, attribute_docs, choices_of, is_text_form, length_of
from vambrace.core.options import Duration, Norm, Options, Ratio, require
from vambrace.core.refusal import closest, unknown_key
from vambrace.core.spec import read, schema_of
from vambrace.core.synonyms import KEYS, VALUES
from vambrace.errors import AccessError, ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Options):
    """Where a search begins.

    Attributes:
        radius: how far out.
    """

    radius: Ratio
    kind: Literal["ball", "box"] = "ball"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Options):
    """A method like any other.

    More about it.

    Attributes:
        norm: how changes are
            measured.
        eps: largest change.
        low, high: the two ends.
    """

    norm: Norm = "linf"
    eps: Ratio = 8 / 255
    steps: int = 40
    step_size: Ratio | None = None
    random_start: bool = True
    sizes: tuple[int, ...] = ()
    pair: tuple[Ratio, Ratio] | None = None
    channels: Literal[1, 3] | None = None
    start: Start | None = None
    starts: tuple[Start, ...] = ()
    extras: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    wait: Duration = 0.0
    name: str = ""
    low: float = 0.0
    high: float = 1.0

    needs: ClassVar[int] = 3

    def __post_init__(self) -> None:
        require(self.eps > 0, seen=f"eps {self.eps}", expected="eps > 0", fix="raise eps")


class TestGood:
    def test_defaults(self):
        assert read(Method, {}) == Method()

    def test_every_form(self):
        data = {
            "norm": "l2", "eps": "2/255", "steps": 3, "step_size": 1, "random_start": False, "sizes": [1, 2],
            "pair": ["0", 1], "channels": 3, "start": {"radius": "1/2"}, "starts": [{"radius": 1, "kind": "box"}],
            "extras": {"a": True, "b": 1, "c": 1.5, "d": "x"}, "wait": "1m30s", "name": "é",
        }  # fmt: skip
        expected = Method(
            norm="l2", eps=2 / 255, steps=3, step_size=1.0, random_start=False, sizes=(1, 2), pair=(0.0, 1.0),
            channels=3, start=Start(radius=0.5), starts=(Start(radius=1.0, kind="box"),),
            extras={"a": True, "b": 1, "c": 1.5, "d": "x"}, wait=90.0, name="é",
        )  # fmt: skip
        found = read(Method, data)
        assert found == expected
        assert [type(value) for value in found.extras.values()] == [bool, int, float, str]
        assert isinstance(found.step_size, float)
        jsonschema.validate(data, schema_of(Method))

    @given(
        st.builds(
            Method,
            norm=st.sampled_from(["l0", "l1", "l2", "linf"]),
            eps=st.floats(1e-9, 1e6),
            steps=st.integers(0, 10**6),
            step_size=st.none() | st.floats(0, 10),
            random_start=st.booleans(),
            sizes=st.lists(st.integers(-5, 5), max_size=3).map(tuple),
            pair=st.none() | st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
            channels=st.sampled_from([None, 1, 3]),
            start=st.none() | st.builds(Start, radius=st.floats(0, 1), kind=st.sampled_from(["ball", "box"])),
            starts=st.lists(st.builds(Start, radius=st.floats(0, 1)), max_size=2).map(tuple),
            name=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
        )
    )
    def test_as_json_and_read_are_inverse(self, value):
        data = value.as_json()
        assert read(Method, data) == value
        jsonschema.validate(data, schema_of(Method))


BAD = [
    ({"alpha": 0.1}, "E165", "check[1].alpha: unknown key for attack pgd", "did you mean `step_size`?"),
    ({"nb_iter": 3}, "E165", "check[1].nb_iter: unknown key", "did you mean `steps`?"),
    ({"eps_iter": 3}, "E165", "check[1].eps_iter", "did you mean `step_size`?"),
    ({"Epsilon": 3}, "E165", "check[1].Epsilon", "did you mean `eps`?"),
    ({"stepz": 3}, "E165", "check[1].stepz", "did you mean `steps`?"),
    ({"random-start": True}, "E165", "check[1].random-start", "did you mean `random_start`?"),
    ({"zzz": 3}, "E165", "check[1].zzz", "remove `zzz`"),
    ({"start": {"radius": 1, "knd": "box"}}, "E165", "check[1].start.knd", "did you mean `kind`?"),
    ({"starts": [{"radius": 1}, {"radius": 1, "size": 3}]}, "E165", "check[1].starts[1].size", "remove `size`"),
    ({"norm": "Linf"}, "E166", 'check[1].norm = "Linf"', 'did you mean "linf"?'),
    ({"norm": "inf"}, "E166", 'check[1].norm = "inf"', 'did you mean "linf"?'),
    ({"norm": 2}, "E166", "check[1].norm = 2", 'did you mean "l2"?'),
    ({"norm": "L_2"}, "E166", 'check[1].norm = "L_2"', 'did you mean "l2"?'),
    ({"norm": "zzz"}, "E166", 'check[1].norm = "zzz"', "choose one of them"),
    ({"norm": None}, "E166", "check[1].norm = null", "choose one of them"),
    ({"channels": 2}, "E166", "check[1].channels = 2", "choose one of them"),
    ({"channels": True}, "E166", "check[1].channels = true", ""),
    ({"eps": True}, "E166", "check[1].eps = true", "write the number"),
    ({"eps": [1]}, "E166", "check[1].eps = [1]", "a number"),
    ({"eps": "8/0"}, "E102", "check[1].eps: '8/0'", "fraction"),
    ({"eps": "x"}, "E102", "check[1].eps: 'x'", "fraction"),
    ({"eps": 0}, "E103", "check[1]: eps 0", "raise eps"),
    ({"steps": 1.0}, "E166", "check[1].steps = 1.0", "a whole number"),
    ({"steps": True}, "E166", "check[1].steps = true", "write the number"),
    ({"steps": "3"}, "E166", 'check[1].steps = "3"', "remove the quotes"),
    ({"random_start": 1}, "E166", "check[1].random_start = 1", "true or false"),
    ({"random_start": "true"}, "E166", 'check[1].random_start = "true"', "remove the quotes"),
    ({"sizes": 3}, "E166", "check[1].sizes = 3", "write [3]"),
    ({"sizes": [1, "x"]}, "E166", 'check[1].sizes[1] = "x"', "a whole number"),
    ({"pair": [0]}, "E166", "check[1].pair = [0]", "count the values"),
    ({"pair": [0, 1, 2]}, "E166", "check[1].pair = [0, 1, 2]", "count the values"),
    ({"pair": [0, "y"]}, "E102", "check[1].pair[1]: 'y'", "fraction"),
    ({"start": {}}, "E167", "check[1].start.radius is missing", "add radius = ..."),
    ({"start": []}, "E166", "check[1].start = []", "a table"),
    ({"extras": {"a": [1]}}, "E166", "check[1].extras.a = [1]", "true or false or a whole number"),
    ({"wait": "10"}, "E107", "check[1].wait: '10'", "unit"),
    ({"name": 3}, "E166", "check[1].name = 3", "text in quotes"),
    ({"name": "a\0"}, "E160", "check[1]: name", "remove that character"),
    ({"eps": float("nan")}, "E160", "check[1]: eps", "finite"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "code", "seen", "fix"), BAD, ids=[str(row[0]) for row in BAD])
def test_bad(data, code, seen, fix):
    with pytest.raises(ConfigError) as caught:
        read(Method, data, where="check[1]", called="attack pgd")
    assert caught.value.code == code
    assert caught.value.seen.startswith(seen)
    assert fix in caught.value.fix


@pytest.mark.parametrize("row", [row for row in BAD if row[1] in {"E165", "E166", "E167"}], ids=str)
def test_the_schema_refuses_it_too(row):
    if row[0] in ({"channels": True}, {"steps": 1.0}):
        return  # JSON Schema cannot tell 1.0 from 1; Python's validator also takes True for 1 in an enum
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(row[0], schema_of(Method))


class TestMessages:
    def test_an_unknown_key_explains_a_missing_one(self):
        with pytest.raises(ConfigError, match="E165"):
            read(Start, {"radios": 1})

    def test_the_rest_is_named(self):
        with pytest.raises(ConfigError) as caught:
            read(Method, {"steps": "x", "norm": "y", "eps": True, "name": 1, "low": "z"}, where="check[0]")
        assert caught.value.seen.count("check[0]") == 4

    def test_what_is_missing_says_what_it_is(self):
        with pytest.raises(ConfigError) as caught:
            read(Start, {}, where="a")
        assert caught.value.expected == "how far out."

    def test_long_values_are_cut(self):
        with pytest.raises(ConfigError) as caught:
            read(Method, {"steps": "x" * 500})
        assert len(caught.value.seen) < 120

    def test_another_error_keeps_its_kind(self):
        @dataclass(frozen=True, kw_only=True)
        class Picky(Options):
            def __post_init__(self):
                raise AccessError("E110", seen="a", expected="b", fix="c")

        with pytest.raises(AccessError, match="E110: here: a"):
            read(Picky, {}, where="here")

    def test_a_class_whose_types_cannot_be_found_names_the_repair(self):
        @dataclass(frozen=True, kw_only=True)
        class Lost(Options):
            other: NoSuchType = None  # noqa: F821

        with pytest.raises(ConfigError, match="E164") as caught:
            read(Lost, {})
        assert "TYPE_CHECKING" in caught.value.fix

    def test_unknown_key_with_no_keys(self):
        assert unknown_key("a", [], where="x").expected == "no keys"

    def test_closest(self):
        assert closest("Step-Size", ["steps", "step_size"]) == "step_size"
        assert closest("q", ["steps"]) is None


class TestFields:
    def test_docs(self):
        docs = attribute_docs(Method)
        assert docs == {
            "norm": "how changes are measured.",
            "eps": "largest change.",
            "low": "the two ends.",
            "high": "the two ends.",
        }
        assert attribute_docs(int) == {}

    def test_docs_of_a_base(self):
        class Named(Method):
            """Only the word about one field is its own.

            Attributes:
                eps: largest change, smaller here.
            """

        assert attribute_docs(Named) == attribute_docs(Method) | {"eps": "largest change, smaller here."}

    def test_schema_speaks(self):
        schema = schema_of(Method)
        assert schema["description"] == "A method like any other."
        assert schema["properties"]["norm"]["description"] == "how changes are measured."
        assert schema["additionalProperties"] is False
        assert "needs" not in schema["properties"]

    def test_annotations(self):
        assert annotation_at(Method, ["start"]) is Start
        assert annotation_at(Method, ["starts", 3, "radius"]) == Ratio
        assert annotation_at(Method, ["extras", "a"]) is None
        assert is_text_form(annotation_at(Method, ["pair", 0]))
        assert not is_text_form(annotation_at(Method, ["low"]))
        assert choices_of(Norm) == ["l0", "l1", "l2", "linf"]
        assert length_of(annotation_at(Method, ["pair"])) == 2
        assert length_of(annotation_at(Method, ["sizes"])) is None


def test_synonyms_are_lower_case_and_lead_to_house_words():
    assert all(key == key.lower() for key in (*KEYS, *VALUES))
    assert not set(KEYS) & set(KEYS.values()), "a word cannot be both foreign and ours"
