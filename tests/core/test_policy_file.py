"""A policy file is vetted in a process of its own: whatever becomes of that one is one error here."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import onnx
import pytest
from hostile_policy import CHECKS_OFF, KINDS, checks_off, write_hostile
from onnx import helper
from tiny_policy import write_policy

from sac_ae_ros.core import policy_file
from sac_ae_ros.core.errors import ModelError, SpecError
from sac_ae_ros.core.policy_file import read_bytes, vet

ROOT = Path(__file__).resolve().parents[2]


def test_paths_that_are_no_file(tmp_path):
    (tmp_path / "empty.onnx").touch()
    os.mkfifo(tmp_path / "pipe")
    kinds = {"": "folder", "empty.onnx": "empty file", "no": "cannot read", "pipe": "pipe or device"}
    for path, says in [(tmp_path / name, says) for name, says in kinds.items()] + [(Path("/dev/zero"), "or device")]:
        with pytest.raises(ModelError, match=says):
            read_bytes(path)


def test_a_file_over_the_cap(tmp_path, monkeypatch):
    monkeypatch.setattr(policy_file, "MAX_FILE_BYTES", 100)
    with pytest.raises(ModelError, match="larger file"):
        read_bytes(write_policy(tmp_path / "big.onnx"))


def test_a_good_file_gives_its_contract_and_what_to_load(tmp_path):
    data = write_policy(tmp_path / "it.onnx").read_bytes()
    vetted = vet(data, "it")
    assert (vetted.spec.name, vetted.weights) == ("tiny", ())
    assert vetted.data is data


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_file_is_one_error(tmp_path, kind):
    with pytest.raises(ModelError) as caught:
        vet(write_hostile(tmp_path / "it.onnx", kind).read_bytes(), "it")
    assert KINDS[kind] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("kind", "says"), CHECKS_OFF.items())
def test_what_the_checks_do_not_know_ends_the_child_alone(tmp_path, monkeypatch, kind, says):
    """The same files, and no check that knows them: only the process and its limits are left."""
    monkeypatch.setenv("PYTHONPATH", checks_off(tmp_path))
    monkeypatch.setattr(policy_file, "CPU_S", 2)
    monkeypatch.setattr(policy_file, "MEMORY_BYTES", 300 << 20)
    with pytest.raises(ModelError) as caught:
        vet(write_hostile(tmp_path / "it.onnx", kind).read_bytes(), "it")
    assert says in str(caught.value)


def test_a_file_that_takes_too_long_is_left(tmp_path, monkeypatch):
    data = write_policy(tmp_path / "it.onnx", slow_always=60).read_bytes()
    monkeypatch.setattr(policy_file, "WALL_S", 0.1)
    with pytest.raises(ModelError, match=r"not vetted within 0\.1 s"):
        vet(data, "it")


def test_what_nobody_waits_for_is_given_up(tmp_path):
    data = write_policy(tmp_path / "it.onnx", slow_always=60).read_bytes()
    begun_s = time.monotonic()
    with pytest.raises(ModelError, match="given up"):
        vet(data, "it", given_up=lambda: time.monotonic() > begun_s + 0.2)
    assert time.monotonic() < begun_s + 2


def test_the_errors_of_the_contract_keep_their_class(tmp_path):
    model = onnx.load(write_policy(tmp_path / "it.onnx"))
    del model.metadata_props[:]
    with pytest.raises(
        SpecError, match=r"without 'sac_ae_ros.policy_spec' in its metadata is not supported; supported are policies"
    ):
        vet(model.SerializeToString(), "it")


def test_what_a_file_says_is_shown_escaped_and_cut(tmp_path):
    model = onnx.load(write_policy(tmp_path / "it.onnx"))
    model.graph.node.append(helper.make_node("\x1b[2JBad\n[ERROR]" + "x" * 10**7, ["action"], ["x"]))
    with pytest.raises(ModelError) as caught:
        vet(model.SerializeToString(), "\x1bit\n")
    assert str(caught.value).startswith("\\x1bit\\n: the operators '\\x1b[2JBad\\n[ERROR]xxx")
    assert len(str(caught.value)) < 400


def test_a_child_that_cannot_start_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    with pytest.raises(ModelError, match="in a process of its own"):
        vet(b"x", "it")


def test_a_package_that_the_child_lacks_is_named(tmp_path, monkeypatch):
    (tmp_path / "onnx.py").write_text("raise ModuleNotFoundError('no onnx', name='onnx')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ModuleNotFoundError) as caught:
        vet(b"x", "it")
    assert caught.value.name == "onnx"


def test_a_folder_that_holds_python_files_is_not_searched_for_modules(tmp_path, monkeypatch):
    """Where somebody else's files lie, `sac-ae info` may be called too."""
    (tmp_path / "onnx.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert vet(write_policy(tmp_path / "it.onnx").read_bytes(), "it").spec.name == "tiny"


def test_an_answer_that_is_none_is_one_error(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import os; os.write(1, b'{]'); os._exit(0)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ModelError, match="expected an answer of the process that vets it, got none"):
        vet(b"x", "it")


def test_the_child_does_not_outlive_its_parent(tmp_path):
    slow = write_policy(tmp_path / "it.onnx", slow_always=60)
    code = f"from sac_ae_ros.core.policy import OnnxPolicy; OnnxPolicy.load({str(slow)!r})"
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    end_s = time.monotonic() + 20
    while not (found := children.read_text().split()):
        assert time.monotonic() < end_s, "no child"
        time.sleep(0.01)
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    while Path(f"/proc/{found[0]}").exists():
        assert time.monotonic() < end_s, "it outlived its parent"
        time.sleep(0.01)


def test_vetting_parses_nothing_here(tmp_path):
    """Neither onnx, nor any of the file's parts but the contract."""
    path = write_policy(tmp_path / "it.onnx")
    code = f"from sac_ae_ros.core.policy import OnnxPolicy; OnnxPolicy.load({str(path)!r})\n"
    code += "import sys; print('onnx' in sys.modules, 'google.protobuf' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


def test_several_threads_at_once(tmp_path):
    data = write_policy(tmp_path / "it.onnx").read_bytes()
    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.append(vet(data, "it").spec.name)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == ["tiny"] * 4
