"""Where models, prompts and checkpoints lie."""

from typing import Annotated

from pydantic import Field

from lprl_api.base import Contract, Name, NonNegativeInt, PositiveInt, RelativePath
from lprl_api.kube_names import DataKey, ObjectName


class VolumePath(Contract):
    """A folder or file inside one of `spec.volumes`."""

    volume: Name = Field(description="Name of an entry of spec.volumes.")
    path: RelativePath = Field(description="Path inside the volume, relative, without '..'.")

    def __str__(self) -> str:
        return f"{self.volume}:{self.path}"


class SecretKey(Contract):
    """One key of a Secret in the job's namespace; never a literal secret."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: DataKey = Field(description="Key inside the Secret.")


class HuggingFaceSource(Contract):
    """A repository of the Hugging Face Hub (or of a mirror with the same API)."""

    repo: Annotated[str, Field(max_length=200, pattern=r"^[\w.-]+(/[\w.-]+)?$")] = Field(description="owner/name.")
    revision: str = Field("main", max_length=200, description="Branch, tag or commit. Default main.")
    endpoint: str | None = Field(None, max_length=2048, description="Hub address; default https://huggingface.co.")
    token_secret: SecretKey | None = Field(None, description="Secret key holding an access token. Default none.")


class S3Source(Contract):
    """A prefix in an S3-compatible object store."""

    uri: Annotated[str, Field(max_length=2048, pattern=r"^s3://[^/]+/.+$")] = Field(description="s3://bucket/prefix.")
    endpoint: str | None = Field(None, max_length=2048, description="Address of an S3-compatible store; default AWS.")
    region: str | None = Field(None, max_length=64, description="Region; default the client's own.")
    secret: ObjectName | None = Field(
        None, description="Secret with keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Default: the pod's own identity."
    )


class ModelSource(Contract):
    """A Hugging Face model folder. Exactly one of (volume and path), huggingFace or s3."""

    volume: Name | None = Field(None, description="Volume holding the model folder, an entry of spec.volumes; needs path. Default none.")
    path: RelativePath | None = Field(None, description="Model folder inside the volume. Default none.")
    hugging_face: HuggingFaceSource | None = Field(None, description="Download from the Hugging Face Hub. Default none.")
    s3: S3Source | None = Field(None, description="Download from an S3-compatible store. Default none.")
    cache: VolumePath | None = Field(None, description="Folder downloads are kept in. Default: `sources` beside spec.conversion.path.")


class DataFile(Contract):
    """Prompts: JSON lines or parquet, optionally a slice of the rows."""

    volume: Name = Field(description="Volume holding the file, an entry of spec.volumes.")
    path: RelativePath = Field(description="A .jsonl or .parquet file inside the volume.")
    first_row: NonNegativeInt = Field(0, description="First row used. Default 0.")
    last_row: PositiveInt | None = Field(None, description="Row after the last one used. Default: all rows.")
