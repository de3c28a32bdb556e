"""ModelStore: whole versions or none, whoever is killed; nothing outside the folder; errors of one line."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tiny_policy import write_policy

from sac_ae_ros.core import model_store, policy_file
from sac_ae_ros.core.errors import ModelError, SacAeError, StoreError
from sac_ae_ros.core.model_store import Announcement, ModelStore, Version, from_json, to_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[bytes]:
    """Four different policies."""
    folder = tmp_path_factory.mktemp("policies")
    return [write_policy(folder / f"{i}.onnx", spec={"version": str(i)}).read_bytes() for i in range(4)]


@pytest.fixture
def store(tmp_path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def one_line(error: pytest.ExceptionInfo[SacAeError], *says: str) -> None:
    assert "\n" not in str(error.value)
    for words in says:
        assert words in str(error.value)


def in_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Runs Python code of a process of its own, to which sys.argv gives the arguments."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_versions_are_numbered_and_come_back_whole(store, files):
    published = [store.publish(data, "it") for data in files[:3]]
    assert [version.number for version in published] == [1, 2, 3]
    assert store.versions() == published
    assert store.latest() == published[-1]
    assert store.find(2, published[1].sha256) == published[1]
    assert [store.read(version) for version in published] == files[:3]
    assert sorted(os.listdir(store.folder)) == [f"{v.number:06d}-{v.sha256}.onnx" for v in published]
    assert all(version.path.read_bytes() == data for version, data in zip(published, files, strict=False))


def test_the_newest_bytes_again_are_no_new_version(store, files):
    assert store.publish(files[0], "it") == store.publish(files[0], "it")
    store.publish(files[1], "it")
    assert store.publish(files[0], "it").number == 3


def test_an_empty_folder_has_no_version_and_a_missing_one_is_an_error(store):
    with pytest.raises(StoreError) as error:
        store.latest()
    one_line(error, str(store.folder), "No such file", "publish a policy there first")
    store.folder.mkdir()
    assert store.latest() is None


def test_a_missing_disk_is_not_filled_in_its_place(store, files):
    with pytest.raises(StoreError) as error:
        ModelStore(store.folder / "deep").publish(files[0], "it")
    one_line(error, f"{store.folder} is no folder", "mount its disk")
    assert not store.folder.exists()


def test_what_is_no_policy_is_not_stored(store, files):
    with pytest.raises(ModelError, match="is it cut"):
        store.publish(files[0][:-400], "cut.onnx")
    assert not store.folder.exists()


def test_what_is_too_large_is_neither_stored_nor_read(store, files, monkeypatch):
    version = store.publish(files[0], "it")
    monkeypatch.setattr(policy_file, "MAX_FILE_BYTES", len(files[0]) - 1)
    with pytest.raises(StoreError, match="expected at most"):
        store.publish(files[1], "it")
    with pytest.raises(StoreError, match="expected a file of at most"):
        store.read(version)


def test_rolled_back_versions_are_gone_for_good(store, files):
    first, second = (store.publish(data, "it") for data in files[:2])
    assert store.rollback() == first
    assert store.latest() == first
    with pytest.raises(StoreError, match=r"version 2 in .* was rolled back; publish it again"):
        store.find(2, second.sha256)
    with pytest.raises(StoreError, match=r"version 2 is not in .*rolled back or deleted"):
        store.read(second)
    assert store.publish(files[1], "it").number == 3
    assert f"000002-{second.sha256}.withdrawn" in os.listdir(store.folder)


def test_the_only_version_cannot_be_rolled_back(store, files):
    version = store.publish(files[0], "it")
    with pytest.raises(StoreError, match="expected two versions or more, got 1"):
        store.rollback()
    assert store.latest() == version


def test_damaged_bytes_are_named(store, files):
    version = store.publish(files[0], "it")
    version.path.write_bytes(files[0][:-1])
    with pytest.raises(StoreError) as error:
        store.read(version)
    one_line(error, str(version.path), "damaged: delete it and publish the policy again")


def test_a_number_that_means_another_file_is_refused(store, files):
    version = store.publish(files[0], "it")
    with pytest.raises(StoreError, match=f"expected sha256 {'0' * 16}, got sha256 {version.sha256[:16]}"):
        store.find(1, "0" * 64)
    with pytest.raises(StoreError, match="no such number"):
        store.find(7, version.sha256)
    store.folder.joinpath(f"000001-{'0' * 64}.onnx").write_bytes(files[1])
    with pytest.raises(StoreError, match="expected one file of version 1, got more"):
        store.latest()


def test_links_and_other_things_are_not_followed(store, files, tmp_path):
    version = store.publish(files[0], "it")
    outside = tmp_path / "outside.onnx"
    version.path.rename(outside)
    version.path.symlink_to(outside)
    with pytest.raises(StoreError, match="expected a file, got a link"):
        store.read(version)
    version.path.unlink()
    os.mkfifo(version.path)
    with pytest.raises(StoreError, match="expected a file"):
        store.read(version)


def test_a_version_is_read_from_its_folder_whatever_its_path_says(store, files, tmp_path):
    version = store.publish(files[0], "it")
    elsewhere = tmp_path / "elsewhere.onnx"
    elsewhere.write_bytes(files[1])
    assert store.read(Version(1, version.sha256, elsewhere)) == files[0]
    with pytest.raises(StoreError, match="expected a version number"):
        store.read(Version(1, f"../{'0' * 61}", elsewhere))


def test_other_files_do_not_count(store, files):
    store.publish(files[0], "it")
    for name in ("000002.onnx", "000000-" + "0" * 64 + ".onnx", "000003-" + "0" * 63 + "G.onnx", "notes.txt", "\udcff"):
        store.folder.joinpath(name).write_bytes(b"")
    assert [version.number for version in store.versions()] == [1]
    assert store.publish(files[1], "it").number == 2


def test_an_announcement_comes_back():
    announced = Announcement(12, "0a" * 32)
    assert from_json(to_json(announced)) == announced


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[" * 400,
        '{"version": 1}',
        '{"version": true, "sha256": "%s"}' % ("0" * 64),
        '{"version": 0, "sha256": "%s"}' % ("0" * 64),
        '{"version": 1e3, "sha256": "%s"}' % ("0" * 64),
        '{"version": 1000000, "sha256": "%s"}' % ("0" * 64),
        '{"version": 1, "sha256": "%s"}' % ("A" * 64),
        '{"version": 1, "sha256": "../../etc/passwd"}',
        '{"version": 1, "sha256": "%s\\n"}' % ("0" * 64),
        '{"version": 1, "sha256": "%s", "path": "/tmp"}' % ("0" * 64),
        '{"version": 1, "sha256": "%s"}' % ("0" * 64) + " " * 500,
        "\ud800\x00",
    ],
)
def test_other_announcements_are_refused(text):
    with pytest.raises(StoreError) as error:
        from_json(text)
    one_line(error, "announcement", "expected", "got")
    assert len(str(error.value)) < 1000


PUBLISH = """
    import os, signal, sys
    from pathlib import Path
    from sac_ae_ros.core.model_store import ModelStore
    store, data, victim, call = ModelStore(sys.argv[1]), Path(sys.argv[2]).read_bytes(), sys.argv[3], int(sys.argv[4])
    real, calls = getattr(os, victim), []
    def die_here(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(os, victim, die_here)
    store.publish(data, "it")
"""


@pytest.mark.parametrize(
    ("victim", "call", "lasts"),
    [("fsync", 1, False), ("rename", 1, False), ("fsync", 2, True)],  # before the rename it is not there, then whole
)
def test_a_publisher_killed_anywhere_leaves_whole_versions(store, files, tmp_path, victim, call, lasts):
    first = store.publish(files[0], "it")
    source = tmp_path / "second.onnx"
    source.write_bytes(files[1])
    process = in_process(PUBLISH, store.folder, source, victim, call)
    assert process.wait(60) == -signal.SIGKILL, process.stderr.read()
    assert (".publishing" in os.listdir(store.folder)) is not lasts
    assert store.latest().number == (2 if lasts else 1)
    assert store.read(store.latest()) == files[1 if lasts else 0]
    assert store.read(first) == files[0]
    assert store.publish(files[2], "it").number == (3 if lasts else 2)
    assert ".publishing" not in os.listdir(store.folder)


@pytest.mark.slow
def test_several_processes_publish_at_once_while_others_read(store, files, tmp_path):
    store.publish(files[0], "it")
    for i, data in enumerate(files):
        tmp_path.joinpath(f"{i}.onnx").write_bytes(data)
    code = """
        import sys
        from pathlib import Path
        from sac_ae_ros.core.model_store import ModelStore
        sources = [Path(name).read_bytes() for name in sys.argv[2:]]
        for i in range(20):
            print(ModelStore(sys.argv[1]).publish(sources[i % 2], "it").number)
    """
    sources = [[tmp_path / f"{i}.onnx" for i in pair] for pair in ((0, 1), (2, 3))]
    processes = [in_process(code, store.folder, *pair) for pair in sources]
    reads = 0
    while any(process.poll() is None for process in processes):
        assert store.read(store.latest()) in files
        reads += 1
    numbers = [int(line) for process in processes for line in process.communicate()[0].split()]
    assert [process.returncode for process in processes] == [0, 0]
    assert reads > 10
    assert len(numbers) == 40
    assert [version.number for version in store.versions()] == list(range(1, max(numbers) + 1))


def test_a_full_disk_leaves_nothing_half_written(store, files):
    first = store.publish(files[0], "it")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(files[1]) // 2, hard))  # Python ignores SIGXFSZ: write fails instead
    try:
        with pytest.raises(StoreError) as error:
            store.publish(files[1], "it")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    one_line(error, "cannot publish to", "File too large", "free some space")
    assert os.listdir(store.folder) == [first.path.name]


def test_a_folder_that_is_a_file(store, files):
    store.folder.write_bytes(b"")
    with pytest.raises(StoreError, match="Not a directory; give a folder"):
        store.publish(files[0], "it")


def test_a_publisher_that_is_stuck_is_named(store, files, monkeypatch):
    store.publish(files[0], "it")
    monkeypatch.setattr(model_store, "LOCK_PATIENCE_S", 0.05)
    with store._locked(folder := os.open(store.folder, os.O_RDONLY)), pytest.raises(StoreError) as error:
        store.publish(files[1], "it")
    os.close(folder)
    one_line(error, "another process has been publishing for 0.05 s")
    assert store.publish(files[1], "it").number == 2


def test_no_file_stays_open(store, files):
    store.publish(files[0], "it")
    before = len(os.listdir("/proc/self/fd"))
    for data in files:
        store.read(store.publish(data, "it"))
    store.rollback()
    assert len(os.listdir("/proc/self/fd")) == before
