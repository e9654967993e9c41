"""An encrypted queue on a laptop, with the commands of the how-to guide."""

import json
import stat
from pathlib import Path
from typing import Any

import yaml

from tests.integration.galley_local.dev_process import galley
from tests.support.command import Said

HANDLERS = """
from galley import task

@task(queue="sums")
def add(a: int, b: int) -> int:
    return a + b
"""

FILES = """
apiVersion: galley.dev/v1alpha1
kind: TaskQueue
metadata: {name: sums}
spec:
  worker: {modules: [sums]}
  encryption: {secretName: sum-keys}
---
apiVersion: galley.dev/v1alpha1
kind: Task
metadata: {name: three}
spec: {queueName: sums, handler: add, input: {a: 1, b: 2}}
---
apiVersion: galley.dev/v1alpha1
kind: Task
metadata: {name: wrong, annotations: {galley.dev/expect: Failed}}
spec: {queueName: sums, handler: add, input: {a: 1, b: secret-word}, retry: {attempts: 1}}
"""


async def test_a_queue_is_encrypted_with_the_commands_of_the_guide(tmp_path: Path) -> None:
    (tmp_path / "sums.py").write_text(HANDLERS)
    (tmp_path / "queues.yaml").write_text(FILES)
    keys = tmp_path / "keys.yaml"

    async def run(*words: str) -> Said:
        return await galley(tmp_path, *words)

    said = await run("dev", "queues.yaml", "--until-done")
    assert said.code == 2
    assert "queue 'sums' is encrypted, and no keys are given for it" in said.err
    assert "galley keys new sum-keys --write keys.yaml" in said.err

    assert (await run("keys", "new", "sum-keys", "--id", "k1", "--write", "keys.yaml")).code == 0
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    again = await run("keys", "new", "sum-keys", "--write", "keys.yaml")
    assert (again.code, "cannot be written: File exists" in again.err) == (2, True)

    said = await run("dev", "queues.yaml", "--keys", "sums=keys.yaml", "--until-done")
    assert said.code == 0, said
    assert "1 Succeeded, 1 Failed (expected)" in said.out
    store = b"".join(file.read_bytes() for file in (tmp_path / ".galley/nats").rglob("*") if file.is_file())
    assert b"galley.result.default.sums" in store
    assert b"secret-word" not in store

    shown = await run("show", "sums/three", "--keys", "keys.yaml")
    assert "Result:\n  3\n" in shown.out
    blind = await run("show", "sums/three")
    assert "Result" not in blind.out
    assert "Encrypted: with key k1" in blind.out
    assert (
        "not shown: the outcome of task sums/three is encrypted with key 'k1'; keys at hand: none"
        in blind.err
    )
    document = json.loads((await run("show", "sums/three", "-o", "json")).out)
    assert document["encryptedWith"] == "k1"
    assert "result" not in document
    listed = json.loads((await run("get", "tasks", "sums", "-o", "json")).out)
    assert {each["encryptedWith"] for each in listed} == {"k1"}
    letter = await run("show", "sums/wrong", "--keys", "sums=keys.yaml")
    assert '"b": "secret-word"' in letter.out

    used = json.loads((await run("keys", "usage", "sums", "-o", "json")).out)
    assert used == [{"key": "k1", "tasks": 0, "later": 0, "records": 2, "dead letters": 1}]


async def test_keys_are_rotated_one_step_after_the_other(tmp_path: Path) -> None:
    async def secret(*words: str) -> dict[str, Any]:
        said = await galley(tmp_path, "keys", "new", "sum-keys", *words)
        assert said.code == 0, said
        (tmp_path / "keys.yaml").write_text(said.out)
        found: dict[str, Any] = yaml.safe_load(said.out)
        assert found["metadata"] == {"name": "sum-keys", "labels": {"galley.dev/workers": "allowed"}}
        entries: dict[str, Any] = found["stringData"]
        return entries

    first = await secret("--id", "k1")
    assert first.keys() == {"primary", "k1"}
    second = await secret("--id", "k2", "--add-to", "keys.yaml", "--not-primary")
    assert second == first | {"k2": second["k2"]}
    third = await secret("--id", "k3", "--add-to", "keys.yaml")
    assert third == second | {"primary": "k3", "k3": third["k3"]}
    for words, problem in (
        (("--id", "k3", "--add-to", "keys.yaml"), "there is a key 'k3' already"),
        (("--id", "a.b"), "'a.b' cannot be the id of a key"),
        (("--add-to", "nothing.yaml"), "No such file"),
    ):
        said = await galley(tmp_path, "keys", "new", "sum-keys", *words)
        assert (said.code, problem in said.err) == (2, True), said
    (tmp_path / "kms.yaml").write_text("kind: Secret\nstringData: {provider: transit}")
    said = await galley(tmp_path, "keys", "new", "sum-keys", "--add-to", "kms.yaml")
    assert "the keys of kms.yaml are in a key service" in said.err
