"""A repository of the Hugging Face Hub (or a mirror with its API) as a Remote: listing by API, bytes by ranged requests."""

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.errors import RevisionNotFoundError as NoRevision
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from lprl_api.errors import UserError
from lprl_api.spec.sources import HuggingFaceSource
from lprl_workload.convert.remote import ChangedDownload, InterruptedDownload, RemoteFile

TOKEN_ENV = "HF_TOKEN"
TIMEOUT_S = 60.0
_NO_ACCESS = "give the right repo, and for a private or gated one a token in source.huggingFace.tokenSecret"


class HubRemote:
    """One revision of a repository, pinned to its commit by the first listing.

    The token comes from HF_TOKEN. It is sent only where the source names a secret for it, or to the default Hub; the
    client drops it on redirects to other hosts.
    """

    def __init__(self, source: HuggingFaceSource) -> None:
        self._source = source
        if source.endpoint is not None and urlsplit(source.endpoint).scheme not in ("http", "https"):
            raise UserError(f"source.huggingFace.endpoint: {source.endpoint!r}; needs an http or https address")
        if source.token_secret is not None and not os.environ.get(TOKEN_ENV):
            raise UserError(
                f"source.huggingFace.tokenSecret: {TOKEN_ENV} is not set in this process", f"set {TOKEN_ENV}, or remove tokenSecret"
            )
        may_send = source.token_secret is not None or source.endpoint is None
        self._token: str | bool = (os.environ.get(TOKEN_ENV) or False) if may_send else False
        self._commit = source.revision

    @property
    def description(self) -> str:
        """Repository and revision."""
        return f"{self._source.repo}@{self._commit}"

    def list(self) -> tuple[RemoteFile, ...]:
        """Return the files of the revision with sizes and digests; pins the commit."""
        api = HfApi(endpoint=self._source.endpoint, token=self._token)
        try:
            info = api.model_info(self._source.repo, revision=self._commit, files_metadata=True, timeout=TIMEOUT_S)
        except (HTTPError, OfflineModeIsEnabled, ValueError) as error:
            raise self._explained(error) from error
        self._commit = str(info.sha or self._commit)
        return tuple(_remote_file(sibling) for sibling in info.siblings or ())

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """Yield bytes from `offset` on."""
        url = hf_hub_url(self._source.repo, file.name, revision=self._commit, endpoint=self._source.endpoint)
        headers = build_hf_headers(token=self._token, library_name="lprl")
        headers |= {"Range": f"bytes={offset}-", "Accept-Encoding": "identity"}
        try:
            with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as response:
                if response.status_code >= 400:
                    response.read()
                hf_raise_for_status(response)
                yield from _body(response, file, offset)
        except (HTTPError, OfflineModeIsEnabled) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        what = self.description
        if isinstance(error, OfflineModeIsEnabled):
            return UserError(f"{what}: HF_HUB_OFFLINE forbids the download", "unset HF_HUB_OFFLINE")
        if isinstance(error, NoRevision):
            return UserError(
                f"source.huggingFace.revision: {self._source.revision!r} is not in {self._source.repo}", "name a branch, tag or commit"
            )
        if isinstance(error, GatedRepoError):
            return UserError(f"source.huggingFace.repo: {self._source.repo} is gated", f"accept its terms, then {_NO_ACCESS}")
        if isinstance(error, RepositoryNotFoundError):
            return UserError(f"source.huggingFace.repo: {self._source.repo} not found or not accessible", _NO_ACCESS)
        status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0
        if status in (401, 403):
            return UserError(f"{what}: access denied (HTTP {status})", _NO_ACCESS)
        if status in (404, 410):
            return UserError(f"{what}: not found (HTTP {status})", "check repo, revision and endpoint")
        if isinstance(error, ValueError) and not isinstance(error, HTTPError):
            return UserError(f"{what}: {error}", "check source.huggingFace.repo and endpoint")
        return InterruptedDownload(f"{type(error).__name__}: {str(error)[:300]}")


def _remote_file(sibling: Any) -> RemoteFile:
    """Return a listed file; a file without digest is known by its size only."""
    nbytes = int(sibling.lfs.size if sibling.lfs else sibling.size or 0)
    sha256 = str(sibling.lfs.sha256) if sibling.lfs else None
    git_sha1 = str(sibling.blob_id) if sibling.blob_id and not sibling.lfs else None
    version = sha256 or git_sha1 or f"size-{nbytes}"
    return RemoteFile(str(sibling.rfilename), nbytes, version, sha256=sha256, git_sha1=git_sha1)


def _body(response: Any, file: RemoteFile, offset: int) -> Iterator[bytes]:
    """Yield what a ranged answer holds from `offset` on, also where the server ignored the range."""
    skip = 0 if response.status_code == 206 else offset
    if response.status_code == 206:
        start = response.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
        if start != str(offset):
            raise ChangedDownload(f"{file.name}: asked from byte {offset}, the server answered from {start or 'nowhere'}")
    # As the bytes arrive: a chunk of a fixed size would be lost whole when the connection breaks inside it.
    for chunk in response.iter_bytes():
        if skip >= len(chunk):
            skip -= len(chunk)
            continue
        yield chunk[skip:]
        skip = 0
