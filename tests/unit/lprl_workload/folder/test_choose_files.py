"""Which files are the model, from names and index alone: the same for a folder here and for one that is still remote."""

from pathlib import Path

import pytest

from lprl_api.errors import UserError
from lprl_workload.convert.download import download
from lprl_workload.convert.remote import RemoteFile
from lprl_workload.folder.files import INDEX_FILE, SINGLE_FILE, choose_files

VARIANT = "model.fp16.safetensors"
SHORT = ["part-1-of-2.safetensors", "part-2-of-2.safetensors"]
A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
MAP = {"a": A, "b": B}


@pytest.mark.parametrize(
    ("names", "weight_map", "wanted"),
    [
        pytest.param([SINGLE_FILE], None, [SINGLE_FILE], id="one-file"),
        pytest.param([A, B, INDEX_FILE], MAP, [A, B], id="index"),
        pytest.param([A, B, "model-00003-of-00003.safetensors"], MAP, [A, B], id="index-and-a-leftover"),
        pytest.param([SINGLE_FILE, A, B], None, [SINGLE_FILE], id="one-file-and-old-shards"),
        pytest.param([SINGLE_FILE], {"a": SINGLE_FILE}, [SINGLE_FILE], id="index-names-the-one-file"),
        pytest.param([SINGLE_FILE, VARIANT, f"{VARIANT}.index.json"], None, [SINGLE_FILE], id="variant-beside"),
        pytest.param([A, B, "adapter_model.safetensors", "optimizer.safetensors"], None, [A, B], id="training-state"),
        pytest.param(["pytorch_model.safetensors"], None, ["pytorch_model.safetensors"], id="another-name"),
        pytest.param(SHORT, None, SHORT, id="short-numbers"),
        pytest.param([".model.safetensors.swp", "._model.safetensors", "x.safetensors"], None, ["x.safetensors"], id="hidden"),
    ],
)  # fmt: skip
def test_files_that_are_the_model(names: list[str], weight_map: dict[str, str] | None, wanted: list[str]) -> None:
    files, notes = choose_files("m", names, weight_map)
    assert list(files) == wanted
    left = [n for n in names if n.endswith(".safetensors") and n not in files and not n.startswith(".")]
    assert all(any(name in note for note in notes) for name in left), "what is not read is said"


@pytest.mark.parametrize(
    ("names", "weight_map", "match", "remedy"),
    [
        pytest.param([], None, "no .safetensors files", "complete the download", id="nothing"),
        pytest.param(["config.json", "tokenizer.json"], None, "no .safetensors files", "complete the download", id="no-weights-yet"),
        pytest.param([SINGLE_FILE, A, B], MAP, f"reads {SINGLE_FILE}, {INDEX_FILE} names {A}, {B}", "remove", id="fine-tune-over-base"),
        pytest.param([SINGLE_FILE, A], {"a": A}, "two models", "fine-tune saved over its base", id="one-shard-beside-one-file"),
        pytest.param([A], MAP, f"{B}: missing, but named", "complete the download", id="shard-missing"),
        pytest.param([A.upper(), B], MAP, f"{A}: missing", "upper and lower case|complete", id="case-of-a-shard"),
        pytest.param([A, B], MAP | {"c": "sub/x.safetensors"}, "no plain .safetensors file name", "download", id="subfolder"),
        pytest.param([A, B], MAP | {"c": "..safetensors"}, "no plain .safetensors file name", "download", id="hidden-file"),
        pytest.param([A, B], MAP | {"c": "x.bin"}, "no plain .safetensors file name", "download", id="pickle-in-index"),
        pytest.param([B], None, f"{A}: missing .1 of 2", "complete the download", id="numbers-incomplete"),
        pytest.param([A, B, "model-00001-of-00001.safetensors"], None, "two models", "keep one", id="two-counts"),
        pytest.param([A, B, "model-00003-of-00002.safetensors"], None, "3 files are numbered as 2", "keep one", id="too-many-numbers"),
        pytest.param(["adapter_model.safetensors"], None, "only adapter_model", "merge the adapter", id="adapter-alone"),
        pytest.param(["model.int8.safetensors.index.json", A, B], None, "index of a variant", "folder of its own", id="variant-alone"),
    ],
)  # fmt: skip
def test_files_that_are_no_model_or_two(names: list[str], weight_map: dict[str, str] | None, match: str, remedy: str) -> None:
    with pytest.raises(UserError, match=match) as refused:
        choose_files("m", names, weight_map)
    assert any(part in refused.value.remedy for part in remedy.split("|"))


class FakeHub:
    """Files of a repository, as a remote lists and reads them."""

    description = "hub/model"

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def list(self) -> tuple[RemoteFile, ...]:
        return tuple(RemoteFile(name, len(data), "1") for name, data in self._files.items())

    def read(self, file: RemoteFile, start: int):  # type: ignore[no-untyped-def]
        yield self._files[file.name][start:]


def test_a_repository_with_two_models_is_refused_before_its_weights_are_downloaded(tmp_path: Path) -> None:
    index = b'{"weight_map": {"a": "%s"}}' % A.encode()
    hub = FakeHub({"config.json": b"{}", INDEX_FILE: index, A: b"old", SINGLE_FILE: b"new"})
    with pytest.raises(UserError, match=f"hub/model: two models: transformers reads {SINGLE_FILE}"):
        download(hub, tmp_path, lambda _: None)
    assert not (tmp_path / A).exists()


def test_only_the_model_of_a_repository_is_downloaded(tmp_path: Path) -> None:
    hub = FakeHub({"config.json": b"{}", SINGLE_FILE: b"new", "adapter_model.safetensors": b"other", "model.fp16.safetensors": b"half"})
    download(hub, tmp_path, lambda _: None)
    assert sorted(p.name for p in tmp_path.glob("*.safetensors")) == [SINGLE_FILE]
