"""The strict reader: the numbered vectors, the published schema as judge, and damage of every kind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report import sample
from vambrace.core.canonical import dumps
from vambrace.core.findings import Results
from vambrace.errors import ConfigError
from vambrace.report.reading import LARGEST_FILE, parse_results, read_results
from vambrace.report.schema import schema

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "results").glob("*.json"))
JUDGE = jsonschema.Draft202012Validator(schema())
WHOLE = dumps(sample.results().as_json())


def load(path: Path) -> tuple[dict[str, Any], bytes]:
    vector = json.loads(path.read_text(encoding="utf-8"))
    text = vector["text"] if "text" in vector else json.dumps(vector["results"])
    return vector, text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector(path: Path) -> None:
    vector, content = load(path)
    if vector["expect"] == "valid":
        read = parse_results(content)
        assert parse_results(dumps(read.as_json())) == read
    else:
        with pytest.raises(ConfigError) as caught:
            parse_results(content)
        assert caught.value.code == vector["expect"]
        assert caught.value.exit_code == 2
        if vector["where"]:
            assert f" at {vector['where']}: " in caught.value.seen


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_published_schema_agrees(path: Path) -> None:
    vector, _ = load(path)
    if "results" in vector:
        expected = vector.get("schema") == "valid" or vector["expect"] == "valid"
        assert JUDGE.is_valid(vector["results"]) is expected


def test_vectors_cover_every_outcome() -> None:
    assert len(VECTORS) >= 50
    assert {load(path)[0]["expect"] for path in VECTORS} == {"valid", "E550", "E551", "E552"}


@pytest.mark.parametrize("results", [sample.results(), sample.results(classes=300), sample.passing(), sample.refused()])
def test_round_trip(results: Results, tmp_path: Path) -> None:
    content = dumps(results.as_json())
    path = tmp_path / "results.json"
    path.write_bytes(content)
    read = read_results(path)
    assert dumps(read.as_json()) == content
    assert read == results
    assert JUDGE.is_valid(json.loads(content))


def test_pretty_printed_is_the_same(tmp_path: Path) -> None:
    pretty = json.dumps(json.loads(WHOLE), indent=2, ensure_ascii=True).encode()
    assert dumps(parse_results(pretty).as_json()) == WHOLE


def test_whole_numbers_are_integers() -> None:
    text = WHOLE.replace(b'"n":1000', b'"n":1000.0')
    assert text != WHOLE
    read = parse_results(text)
    assert all(isinstance(finding.n, int) for finding in read.findings)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="E550"):
        read_results(tmp_path / "results.json")
    with pytest.raises(ConfigError, match="E550"):
        read_results(tmp_path)


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(ConfigError, match=r"E550.*bytes"):
        read_results(path)


def test_other_encodings_are_refused() -> None:
    text = WHOLE.decode()
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"):
        with pytest.raises(ConfigError, match="E550"):
            parse_results(text.encode(encoding))
    with pytest.raises(ConfigError, match="E550"):
        parse_results(WHOLE.replace(b"zero", b"z\xffro", 1))


@given(st.data())
def test_damaged_bytes_never_give_another_error(data: st.DataObject) -> None:
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["set", "cut", "drop", "insert"])):
            case "set":
                content[place] = data.draw(st.integers(0, 255))
            case "cut":
                del content[max(place, 1) :]
            case "drop":
                del content[place : place + data.draw(st.integers(1, 40))]
            case _:
                content[place:place] = data.draw(st.binary(max_size=12))
        if not content:
            break
    refusal, read = attempt(bytes(content))
    if refusal is not None:
        assert refusal.code in {"E550", "E551", "E552"}
        assert str(refusal).isprintable()
    else:
        assert read is not None
        assert parse_results(dumps(read.as_json())) == read


def attempt(content: bytes) -> tuple[ConfigError | None, Results | None]:
    try:
        return None, parse_results(content)
    except ConfigError as refusal:
        return refusal, None


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\nb", "\u202eabc", "x" * 500])
def test_messages_cannot_steer_a_terminal(name: str) -> None:
    data = json.loads(WHOLE)
    data["findings"][0][name] = 1
    with pytest.raises(ConfigError) as caught:
        parse_results(json.dumps(data).encode())
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    data = json.loads(WHOLE)
    data["data"][name] = {}
    with pytest.raises(ConfigError) as caught:
        parse_results(json.dumps(data).encode())
    assert str(caught.value).isprintable()


def test_messages_name_the_place() -> None:
    data = json.loads(WHOLE)
    data["findings"][3]["cost"]["forwards"] = "many"
    with pytest.raises(ConfigError) as caught:
        parse_results(json.dumps(data).encode())
    assert re.search(r"\$\.findings\[3\]\.cost\.forwards", caught.value.seen)
    assert "--resume" in caught.value.fix
