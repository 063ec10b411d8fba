"""`finalise`: publishes a conversion, and measures what it does to the model's answers where the job asked for that.

The figures lie beside the converted folder, so that a killed finalise, or another job with the same wish, does not measure again.
What is wrong with the texts does not fail this process: conversions are shared, and only the job that named the texts is to fail.
Publishing needs no torch; only measuring imports it.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from lprl_api.base import Contract
from lprl_api.errors import UserError
from lprl_api.names import ExitCode, Reason
from lprl_api.spec.operations import ConversionVerify
from lprl_api.text import shortened
from lprl_api.wire.answers import Answers, ConversionAnswers, settings_digest
from lprl_api.wire.runconfig import ConvertConfig
from lprl_workload.config import load_contract, resolve
from lprl_workload.convert.console import ProgressLine, Tick
from lprl_workload.convert.digest import digest_file
from lprl_workload.convert.disk import human_bytes
from lprl_workload.convert.options import config_option
from lprl_workload.convert.source import resolve_source
from lprl_workload.convert.writer import write_atomically
from lprl_workload.process.arguments import parser
from lprl_workload.process.cpus import available_cpus
from lprl_workload.process.loading import loading
from lprl_workload.process.termination import write_termination

TOLD = 400
"""Characters of a piece of advice, or of a problem, in a message of 4096 bytes."""


class StoredAnswers(Contract):
    """The file beside a converted folder."""

    content_key: str
    prompts_digest: str
    """Of the file of texts: an edited one is measured again."""
    settings: ConversionVerify
    answers: Answers


def finalise_command(argv: Sequence[str]) -> int:
    """Publish a conversion."""
    options = parser(
        "finalise",
        "Check the reports of all shards and that the source did not change, write index, config.json and error report, then\n"
        "manifest.json, and rename TARGET.partial to TARGET. Then compare its answers with the source's, where the configuration\n"
        "has a file of texts (verify). Run again after a kill, it goes on.",
        "  python -m lprl_workload finalise --config convert.json",
    )
    config_option(options, "ConvertConfig")
    config = load_contract(options.parse_args(argv).config, ConvertConfig)
    with loading(keep=True):
        from lprl_workload.convert.finalise import published_error, run_finalise
    line = ProgressLine()
    manifest = run_finalise(config, line.download)
    size = sum(record.nbytes for record in manifest.files)
    answers = None if config.verify is None else measured(config, config.verify, line)
    line.close()
    message = f"{config.target}: {len(manifest.source_shards)} shards, {human_bytes(size)}, {config.format.kind}"
    write_termination(Reason.CONVERTED, message, answers=answers, largest_error=published_error(resolve(config.target)))
    return ExitCode.OK


def measured(config: ConvertConfig, wish: ConversionVerify, line: ProgressLine) -> ConversionAnswers:
    """Return what the conversion does to the answers, stored or measured now; a user's mistake becomes its `problem`."""
    settings = settings_digest(wish)
    file = answers_file(resolve(config.target), settings)
    try:
        prompts = resolve(wish.prompts)
        if not prompts.is_file():
            raise UserError(f"prompts {wish.prompts.volume}:{wish.prompts.path}: no such file", "check the volume and the path")
        digest = digest_file(prompts)
        answers = _stored(file, config.content_key, digest)
        if answers is None:
            answers = _compare(config, wish, prompts, line)
            stored = StoredAnswers(content_key=config.content_key, prompts_digest=digest, settings=wish, answers=answers)
            write_atomically(file, stored.model_dump_json(by_alias=True, indent=1).encode())
    except UserError as error:
        return ConversionAnswers(settings=settings, problem=shortened(f"{error.message}; {error.remedy}", TOLD))
    place = Path(config.target.path).with_name(file.name)
    told = tuple(advice.model_copy(update={"text": shortened(advice.text, TOLD)}) for advice in answers.advice)
    return ConversionAnswers(settings=settings, distance=answers.distance, advice=told, file=f"{config.target.volume}:{place}")


def answers_file(target: Path, settings: str) -> Path:
    """Return where the figures of a converted folder lie: beside it, as a manifest lists what is in it."""
    return target.with_name(f"{target.name}.answers-{settings}.json")


def _stored(file: Path, content_key: str, digest: str) -> Answers | None:
    try:
        found = StoredAnswers.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return found.answers if (found.content_key, found.prompts_digest) == (content_key, digest) else None


def _compare(config: ConvertConfig, wish: ConversionVerify, prompts: Path, line: ProgressLine) -> Answers:
    with loading(keep=True):
        import torch

        from lprl_workload.compare.compare import Wanted, compare_folders
        from lprl_workload.compare.texts import Reading
    torch.set_num_threads(config.threads or available_cpus())
    started: dict[str, float] = {}

    def on_pass(what: str, done: int, total: int) -> None:
        since = time.monotonic() - started.setdefault(what, time.monotonic())
        line.show(Tick(f"answers, {what}", done, total, 0, since, "layer passes"))

    rows = wish.prompts.first_row, wish.prompts.last_row
    reading = Reading(wish.prompt_key, wish.response_key, wish.apply_chat_template, rows, wish.max_tokens)
    source = resolve_source(config.source)
    return compare_folders(resolve(config.target), source, prompts, Wanted(reading, wish.sensitivity_texts), on_pass)
