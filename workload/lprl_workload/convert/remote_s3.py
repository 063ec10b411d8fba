"""A prefix of an S3-compatible store as a Remote. Needs boto3 (the `s3` extra); credentials come from AWS_* or the pod's identity."""

import base64
import re
from collections.abc import Iterator
from typing import Any

from lprl_api.errors import UserError
from lprl_api.spec.sources import S3Source
from lprl_workload.convert.files import MAX_FILES, is_wanted
from lprl_workload.convert.remote import CHUNK_BYTES, ChangedDownload, InterruptedDownload, RemoteFile

_ACCESS = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403", "401")
_ABSENT = ("NoSuchBucket", "NoSuchKey", "404")


class S3Remote:
    """The files directly under a prefix."""

    def __init__(self, source: S3Source) -> None:
        try:
            import boto3.session
            import botocore.exceptions
            from botocore.config import Config
        except ImportError as error:
            raise UserError("source.s3: boto3 is not installed in this image", "install lprl[s3]") from error
        self._errors = botocore.exceptions
        self._source = source
        self._bucket, _, prefix = source.uri.removeprefix("s3://").partition("/")
        self._prefix = prefix.strip("/") + "/"
        # Stores at an address of their own seldom resolve BUCKET.HOST names.
        style = {"addressing_style": "path"} if source.endpoint else {}
        config = Config(
            connect_timeout=10, read_timeout=60, retries={"max_attempts": 3, "mode": "standard"}, s3=style, max_pool_connections=16
        )
        try:
            self._client = boto3.session.Session().client("s3", endpoint_url=source.endpoint, region_name=source.region, config=config)
        except (ValueError, botocore.exceptions.BotoCoreError) as error:
            raise UserError(f"source.s3: {error}", "check source.s3.endpoint and region") from error

    @property
    def description(self) -> str:
        """The URI."""
        return self._source.uri

    def list(self) -> tuple[RemoteFile, ...]:
        """Return the wanted files under the prefix with sizes, etags and the digests the store knows."""
        found: list[RemoteFile] = []
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix, Delimiter="/")
            for page in pages:
                names = [str(entry["Key"])[len(self._prefix) :] for entry in page.get("Contents", ())]
                found += [self._head(name) for name in names if is_wanted(name)]
                if len(found) > MAX_FILES:
                    break
        except (self._errors.ClientError, self._errors.BotoCoreError) as error:
            raise self._explained(error) from error
        return tuple(found)

    def _head(self, name: str) -> RemoteFile:
        """Ask for one object: its digest is an MD5 only where the store did not encrypt it with a key of its own or upload it in parts."""
        head = self._client.head_object(Bucket=self._bucket, Key=self._prefix + name, ChecksumMode="ENABLED")
        etag = str(head["ETag"])
        plain = re.fullmatch(r'"?([0-9a-f]{32})"?', etag)
        md5 = plain[1] if plain and head.get("ServerSideEncryption", "AES256") == "AES256" and "SSECustomerAlgorithm" not in head else None
        checksum = head.get("ChecksumSHA256") if head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT" else None
        sha256 = base64.b64decode(checksum).hex() if checksum and "-" not in checksum else None
        return RemoteFile(name, int(head["ContentLength"]), etag, sha256=sha256, md5=md5)

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """Yield bytes from `offset` on, of the very object that was listed."""
        try:
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._prefix + file.name, Range=f"bytes={offset}-", IfMatch=file.version
            )
            yield from _checked(answer, file, offset)
        except (self._errors.ClientError, self._errors.BotoCoreError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, self._errors.NoCredentialsError | self._errors.PartialCredentialsError):
            return UserError(f"{self.description}: no AWS credentials", "set source.s3.secret, or give the pod an identity")
        if isinstance(error, self._errors.NoRegionError):
            return UserError(f"{self.description}: no region", "set source.s3.region")
        if not isinstance(error, self._errors.ClientError):
            return InterruptedDownload(f"{type(error).__name__}: {error}")
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in ("PreconditionFailed", "412"):
            return ChangedDownload(str(error))
        if code in _ACCESS:
            return UserError(f"{self.description}: access denied ({code})", "check the keys of source.s3.secret and the bucket's policy")
        if code in _ABSENT:
            return UserError(f"{self.description}: not found ({code})", "check bucket and prefix of source.s3.uri")
        return InterruptedDownload(str(error))


def _checked(answer: Any, file: RemoteFile, offset: int) -> Iterator[bytes]:
    """Yield the body of a ranged answer; a store that ignored the range is read from the start."""
    start = str(answer.get("ContentRange") or "bytes 0-").removeprefix("bytes ").partition("-")[0]
    if start not in ("0", str(offset)):
        raise ChangedDownload(f"{file.name}: asked from byte {offset}, the store answered from {start}")
    skip = offset - int(start)
    for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
        yield chunk[skip:]
        skip = max(0, skip - len(chunk))
