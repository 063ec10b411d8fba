"""A handle is opened on the receiver's own number of the sender's GPU, wherever torch keeps that number among its arguments."""

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.multiprocessing import reductions

from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.sync import cuda_ipc
from lprl_workload.sync.cuda_ipc import BucketHandle, open_handle


def as_now(tensor_cls: str, tensor_size: int, storage_cls: str, dtype: str, storage_device: int, storage_handle: str) -> Any:
    return ("as now", storage_device, storage_handle)


def otherwise(storage_handle: str, storage_device: int, tensor_cls: str) -> Any:
    return ("otherwise", storage_device, storage_handle)


def renamed(storage_handle: str, gpu: int) -> Any:
    raise AssertionError("opened by guess")


ARGUMENTS = {as_now: ("T", 8, "S", "uint8", 0, "memory"), otherwise: ("memory", 0, "T"), renamed: ("memory", 0)}


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process sees the sender's GPU 0 as its own 1, as with another CUDA_VISIBLE_DEVICES."""
    uuids = ["other", "shared"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=uuids[index]))


def opened(monkeypatch: pytest.MonkeyPatch, rebuild: Any, uuid: str = "shared") -> Any:
    monkeypatch.setattr(reductions, "rebuild_cuda_tensor", rebuild)
    return open_handle(BucketHandle((), uuid, ARGUMENTS[rebuild])).data


@pytest.mark.parametrize("rebuild", [as_now, otherwise])
def test_the_device_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, rebuild: Any) -> None:
    assert opened(monkeypatch, rebuild)[1:] == (1, "memory")


def test_torchs_own_function_is_taken_where_sglang_put_another_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reductions, "_rebuild_cuda_tensor_original", as_now, raising=False)
    monkeypatch.setattr(reductions, "rebuild_cuda_tensor", lambda *args: as_now(*args))
    assert open_handle(BucketHandle((), "shared", ARGUMENTS[as_now])).data[1:] == (1, "memory")


def test_a_torch_that_calls_it_otherwise_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="storage_device is no argument of rebuild_cuda_tensor; found storage_handle, gpu"):
        opened(monkeypatch, renamed)


def test_a_gpu_this_process_does_not_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightMismatchError, match="GPU elsewhere of the sender is not visible"):
        opened(monkeypatch, as_now, "elsewhere")


def test_the_installed_torch_has_the_argument() -> None:
    assert cuda_ipc._DEVICE_ARGUMENT in inspect.signature(reductions.rebuild_cuda_tensor).parameters
