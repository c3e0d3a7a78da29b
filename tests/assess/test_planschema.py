"""The published schema of plans is what the code says, and refuses what the reader refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import pytest

from assess.plan_mistakes import MINIMAL, MISTAKES
from vambrace.assess import planschema

SCHEMA = json.loads(planschema.FILE.read_text())
SCHEMA_CANNOT_SAY = {"E101", "E103", "E107", "E160", "E168", "E197", "E198", "E530", "E102", "E171"}


@pytest.mark.parametrize("change", [row[0] for row in MISTAKES if row[1] not in SCHEMA_CANNOT_SAY], ids=str)
def test_what_the_reader_refuses_is_refused(change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**MINIMAL, **change}, SCHEMA)


class TestSchema:
    def test_the_file_is_what_the_code_says(self):
        """After a change of options: python -m vambrace.assess.planschema."""
        assert planschema.plan_schema() == SCHEMA

    def test_it_is_a_schema(self):
        jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def test_it_is_in_the_package(self):
        assert planschema.FILE.parent == Path(sys.modules["vambrace.assess.plan"].__file__).parent
