"""What is written reads back equal, whatever the plan and whatever the notes say."""

from __future__ import annotations

import json
import tomllib

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from assess.plan_mistakes import MINIMAL, PGD
from vambrace.assess import planschema
from vambrace.assess.methods import read_check
from vambrace.assess.plan import DataSpec, GateSpec, ModelSpec, Plan, RunSpec, TrustSpec
from vambrace.assess.reading import parse_plan
from vambrace.assess.writing import toml_value, write_commented_toml
from vambrace.core.contract import InputContract

SCHEMA = json.loads(planschema.FILE.read_text())


def parse(table, **changes):
    return parse_plan({**table, **changes}, base="/base", where="plan.toml")


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
shares = st.floats(0, 1)
models = st.builds(
    ModelSpec,
    source=words,
    factory=words,
    factory_args=st.dictionaries(words, st.one_of(st.booleans(), st.integers(-9, 9), shares, words), max_size=3),
    outputs=st.sampled_from(["logits", "probabilities"]),
)
contracts = st.builds(
    InputContract,
    bounds=st.none() | st.tuples(st.floats(-9, 0), st.floats(1, 255)),
    mean=st.just((0.5, 0.25)),
    std=st.just((8 / 255, 1.0)),
    classes=st.lists(words, max_size=40, unique=True).map(tuple),
    layout=st.sampled_from([None, "NCHW", "features"]),
)
runs = st.builds(
    RunSpec,
    threads=st.none() | st.integers(1, 9),
    budget=st.none()
    | st.integers(1, 10**6).map(float)
    | st.floats(0.001, 1000).map(lambda each: round(each, 3))
    | st.floats(1e-6, 1e9),
    out=words,
)
gate = st.builds(
    GateSpec, metric=st.just("a-*.b@0.3"), min=shares, required=st.booleans(), use=st.sampled_from(["value", None])
)
gates = st.none() | st.lists(gate, max_size=2).map(tuple)
sources = st.builds(DataSpec, source=words, limit=st.none() | st.integers(1, 9))
checks = st.lists(
    st.sampled_from(
        [
            {"check": "clean"},
            {"attack": "pgd", "eps": ["2/255", 0.3, 1.5], "step_size": "1/255"},
            {"attack": "apgd", "norm": "l2", "eps": 3, "steps": 9, "named": False},
            {"perturb": "rotate", "limit": 3},
            {"check": "membership", "required": False},
        ]
    ),
    unique_by=str,
    max_size=5,
).map(lambda tables: tuple(read_check(table, "") for table in tables))
plans = st.builds(
    Plan,
    profile=st.sampled_from(["smoke", "ci", "full"]),
    seed=st.integers(0, 2**53),
    model=models,
    contract=contracts,
    data=st.fixed_dictionaries({}, optional=dict.fromkeys(("eval", "members", "nonmembers"), sources)),
    trust=st.builds(TrustSpec, code=st.lists(words, max_size=2).map(tuple)),
    run=runs,
    checks=checks,
    gates=gates,
    base=st.just("/base"),
)
numbers = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), words)
trees = st.recursive(
    numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


class TestWriting:
    @settings(max_examples=40)
    @given(
        plans,
        st.dictionaries(st.sampled_from(["", "model", "contract.bounds", "check.clean", "gate"]), st.text(max_size=40)),
    )
    def test_what_is_written_reads_back_equal(self, plan, notes):
        table = tomllib.loads(write_commented_toml(plan, notes))
        assert parse_plan(table, base=plan.base, where="x") == plan
        jsonschema.validate(table, SCHEMA)

    @given(trees)
    def test_values(self, value):
        assert tomllib.loads(f"x = {toml_value(value)}") == {"x": value}

    def test_no_note_leaves_its_comment(self):
        note = 'see\n[model]\nsource = "evil"\r\nx\x00y\u2028seed = 9'
        plan = parse(MINIMAL)
        text = write_commented_toml(plan, dict.fromkeys(("", "model", "model.source", "contract", "run", "gate"), note))
        assert parse_plan(tomllib.loads(text), base=plan.base, where="x") == plan

    def test_it_speaks(self):
        text = write_commented_toml(
            parse(MINIMAL, check=[PGD | {"eps": ["2/255", 0.3]}]), {"check.pgd-linf": "chosen by hand"}
        )
        assert 'eps = ["2/255", 0.3]' in text
        short = write_commented_toml(parse(MINIMAL, check=[PGD | {"eps": [0.2, 0.4, 8 / 255]}]))
        assert 'eps = ["8/255", 0.2, 0.4]' in short, "0.2 is 51/255, and nobody would write that"
        assert "# chosen by hand\n[[check]]" in text
        assert "# (height, width) the model needs; left out: as stored." in text
        assert "the profile's own gates decide" in text
        assert max(map(len, text.splitlines())) <= 120

    def test_long_lists_are_broken(self):
        plan = parse(MINIMAL, contract={"classes": [f"class number {i}" for i in range(1000)]})
        text = write_commented_toml(plan)
        assert max(map(len, text.splitlines())) <= 120
        assert parse_plan(tomllib.loads(text), base=plan.base, where="x") == plan
