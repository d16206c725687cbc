"""Constrained text from the real model: always of the form, also where the model makes no sense."""

import json
import os
import re
import subprocess
import sys

import pytest
from paths import ROOT

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "born": {"type": "integer", "minimum": 1800, "maximum": 2020},
        "fields": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 3},
        "prize": {"anyOf": [{"enum": ["physics", "chemistry"]}, {"type": "null"}]},
    },
    "required": ["name", "born", "fields", "prize"],
}
jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def model(smollm2_path):
    from rustllm.models.load import load_model

    return load_model(smollm2_path)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
def test_a_schema_is_kept(model, temperature):
    for seed in range(3):
        text = model.generate(
            "Marie Curie as JSON: ",
            json_schema=SCHEMA,
            temperature=temperature,
            seed=seed,
            max_tokens=400,
        )
        out = text.text()
        assert text.finish_reason == "stop"
        jsonschema.validate(json.loads(out), SCHEMA)


def test_a_pattern_is_kept(model):
    pattern = r"\d{4}-\d{2}-\d{2}: [A-ZÀ-Ý][a-zà-ÿ]{2,12}(, .{1,5})?"
    for seed in range(6):
        text = model.generate("When? ", regex=pattern, temperature=3.0, seed=seed, max_tokens=80)
        out = text.text()
        assert text.finish_reason == "stop" and re.fullmatch(pattern, out), out


def test_guessing_ahead_gives_the_same_text(model):
    options = {"json_schema": SCHEMA, "temperature": 0.7, "seed": 5, "max_tokens": 200}
    plain = model.generate("JSON: ", **options).text()
    assert model.generate("JSON: ", draft="lookup", **options).text() == plain


def test_the_command_line(smollm2_path, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))

    def run(*args):
        return subprocess.run(
            [sys.executable, "-m", "rustllm", "generate", *args],
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            timeout=120,
        )

    done = run("--json-schema", str(schema), "Describe Marie Curie.")
    assert done.returncode == 0, done.stderr
    jsonschema.validate(json.loads(done.stdout), SCHEMA)
    done = run("--regex", "[0-9]{1,2} legs", "How many legs has a dog?")
    assert re.fullmatch("[0-9]{1,2} legs\n", done.stdout), done.stderr
    done = run("--regex", "[0-9]{500}", "-n", "3", "x")
    assert done.returncode == 2 and "cut after 3 tokens" in done.stderr
    done = run("--regex", "(", "x")
    assert done.returncode == 2 and "a group without an end" in done.stderr
    schema.write_text('{"not": {}}')
    done = run("--json-schema", str(schema), "x")
    assert done.returncode != 0 and "'not'" in done.stderr and "Traceback" not in done.stderr
