"""Content keys, and the folder a source lies in: pure functions that operator and workload must agree on."""

import pytest

from lprl_api.errors import UserError
from lprl_api.model.content_key import QUANTIZER_VERSION, content_key
from lprl_api.model.formats import Bf16, Fp8Block, Int4Group, WeightFormat
from lprl_api.model.source_folder import source_folder
from lprl_api.spec.sources import HuggingFaceSource, ModelSource, S3Source, SecretKey, VolumePath
from lprl_workload import quant

CACHE = VolumePath(volume="cache", path="sources")


def test_quantizer_version_is_the_quantizers() -> None:
    assert QUANTIZER_VERSION == quant.QUANTIZER_VERSION


def test_key_depends_on_everything_and_on_nothing_else() -> None:
    formats: list[WeightFormat] = [Bf16(), Fp8Block(), Fp8Block(scale_format="ue8m0"), Int4Group(), Int4Group(group_size=32)]
    formats.append(Int4Group(exclude_modules=("*.down_proj",)))
    keys = {content_key(f"{n:064x}", fmt, version) for n in range(2) for fmt in formats for version in ("1", "2")}
    assert len(keys) == 2 * len(formats) * 2
    assert content_key("a" * 64, Int4Group()) == content_key("a" * 64, Int4Group.model_validate({"kind": "int4-group", "groupSize": 128}))


def test_a_folder_with_exclude_lists_as_they_were_written_before_is_not_reused_and_a_bf16_one_is() -> None:
    assert content_key("a" * 64, Bf16()) == "d4731cd5486b1decb681172dd38e68268c9800c93b606b6571965fa5131535f4"
    assert content_key("a" * 64, Fp8Block()) != "f78e62bca0326818066002695fefd0e98c4a25a159b00262e0c845feff61ea5a"


def hub(**changes: object) -> ModelSource:
    return ModelSource(hugging_face=HuggingFaceSource.model_validate({"repo": "Qwen/Qwen3-4B"} | changes), cache=CACHE)


def test_download_folders_are_distinct_readable_and_free_of_secrets() -> None:
    sources = [hub(), hub(revision="v1"), hub(endpoint="http://mirror"), hub(repo="Qwen/Qwen3-8B")]
    sources += [ModelSource(s3=S3Source(uri=uri), cache=CACHE) for uri in ("s3://a/m", "s3://b/m")]
    paths = [source_folder(source).path for source in sources]
    assert len(set(paths)) == len(paths)
    assert paths[0].startswith("sources/Qwen--Qwen3-4B-")
    assert source_folder(hub(token_secret=SecretKey(name="a", key="b"))) == source_folder(hub())
    assert source_folder(ModelSource(s3=S3Source(uri="s3://a/m/"), cache=CACHE)) == source_folder(sources[4])


def test_a_folder_is_its_own_place() -> None:
    assert source_folder(ModelSource(volume="models", path="a/b")) == VolumePath(volume="models", path="a/b")


@pytest.mark.parametrize(
    ("source", "match"),
    [
        pytest.param(ModelSource(), "0 places given", id="none"),
        pytest.param(ModelSource(volume="models"), r"source\.path: missing", id="no-path"),
        pytest.param(hub().model_copy(update={"volume": "models", "path": "x"}), "2 places given", id="two"),
        pytest.param(hub().model_copy(update={"cache": None}), r"source\.cache: missing", id="no-cache"),
    ],
)
def test_refusals(source: ModelSource, match: str) -> None:
    with pytest.raises(UserError, match=match):
        source_folder(source)
