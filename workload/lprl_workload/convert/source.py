"""ModelSource -> local folder: a folder of a volume as it is, or a download that is made complete first."""

from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.model.source_folder import source_folder
from lprl_api.spec.sources import ModelSource
from lprl_workload.config import resolve
from lprl_workload.convert.download import download, is_complete
from lprl_workload.convert.files import CONFIG
from lprl_workload.convert.remote import DownloadProgress, OnDownload, Remote

__all__ = ["resolve_source"]


def _silent(_: DownloadProgress) -> None:
    """Report nothing."""


def resolve_source(source: ModelSource, on_progress: OnDownload = _silent) -> Path:
    """Return the source as a folder of this machine, downloading what is missing.

    Raises UserError for a wrong or unreachable source, StorageFullError when it does not fit, InterruptedDownload when the
    connection stays broken: running it again goes on where it stopped.
    """
    place = source_folder(source)
    folder = resolve(place)
    if source.hugging_face is not None or source.s3 is not None:
        if not is_complete(folder):
            download(_remote(source), folder, on_progress)
        return folder
    if not (folder / CONFIG).is_file():
        found = "no such folder" if not folder.is_dir() else f"no {CONFIG} in it"
        raise UserError(f"source {place}: {found} ({folder})", "name the folder of a Hugging Face model inside the volume")
    return folder


def _remote(source: ModelSource) -> Remote:
    """Return the client of a remote source; its library is imported only here."""
    if source.hugging_face is not None:
        from lprl_workload.convert.remote_hub import HubRemote

        return HubRemote(source.hugging_face)
    if source.s3 is not None:
        from lprl_workload.convert.remote_s3 import S3Remote

        return S3Remote(source.s3)
    raise AssertionError("a folder needs no remote")
