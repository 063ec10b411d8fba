"""How one episode runs: a single turn, a loop with tools, or a function of the user's."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lprl_api.base import Contract, Name, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from lprl_api.spec.sources import SecretKey

ImportPath = Annotated[str, Field(max_length=256, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""package.module:function."""
CallFormat = Literal["auto", "hermes", "llama", "mistral", "deepseek", "kimi", "glm", "xml"]


class Sandbox(Contract):
    """A pod of its own for every episode that calls the tool, claimed from a warm pool of agent-sandbox."""

    warm_pool: Name = Field(description="SandboxWarmPool in the job's namespace; image, network and limits are its template's.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(8080, description="Port the sandbox answers at. Default 8080.")
    path: Annotated[str, Field(max_length=1024, pattern=r"^/[!-~]*$")] = Field("/", description="Path of its address. Default /.")
    max_concurrent: Annotated[int, Field(ge=1, le=4096)] = Field(
        16, description="SandboxClaims of this tool at a time, over the whole job; further episodes wait. Default 16."
    )
    claim_seconds: PositiveFloat = Field(60.0, description="Time limit from a claim to a sandbox that is ready, seconds. Default 60.")


class Tool(Contract):
    """One thing the model may call. One of `function`, `url` and `sandbox`."""

    name: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z_][\w-]*$")] = Field(description="What the model calls it.")
    function: ImportPath | None = Field(
        None,
        description="package.module:function, plain or async; its signature and docstring are what the model is told. Default none.",
    )
    url: str | None = Field(
        None,
        max_length=2048,
        description='Address: POST {"name": ..., "arguments": {...}}, answered by {"result": ...} or {"error": ...}. Default none.',
    )
    sandbox: Sandbox | None = Field(
        None,
        description="A sandbox that every episode claims with its first call, keeps and lets go at its end; asked as a url is. "
        "Default none.",
    )
    description: str | None = Field(
        None, max_length=4096, description="What the model is told of it. Default: the first paragraph of the function's docstring."
    )
    parameters: dict[str, Any] | None = Field(
        None, description="JSON schema of the arguments; a url and a sandbox need it. Default: from the function's signature."
    )
    headers_secret: SecretKey | None = Field(None, description="Secret key sent as the Authorization header (url). Default none.")
    timeout_seconds: PositiveFloat = Field(30.0, description="Time limit of one call, seconds. Default 30.")
    retries: NonNegativeInt = Field(
        2, description="Retries of a call that a url or a sandbox did not answer, and of a claim, with exponential back-off. Default 2."
    )


class Episode(Contract):
    """From a prompt to a rewarded sequence."""

    type: Literal["single-turn", "tools", "python"] = Field(
        "single-turn",
        description="single-turn: one response; tools: the model calls tools until it answers; python: a function of yours. "
        "Default single-turn.",
    )
    function: ImportPath | None = Field(
        None, description="package.module:function, async f(prompt, policy, tools) -> None; type python needs it. Default none."
    )
    tools: tuple[Tool, ...] = Field((), max_length=64, description="What the model may call (types tools and python). Default none.")
    call_format: CallFormat = Field("auto", description="How the model writes calls. Default auto: what its chat template makes of one.")
    max_turns: PositiveInt = Field(8, description="Turns the policy may take in an episode. Default 8.")
    max_episode_tokens: PositiveInt | None = Field(
        None,
        description="Tokens of an episode after its prompt, tools' answers included. "
        "Default: sampling.maxResponseTokens x maxTurns, or what fits the context.",
    )
    max_tool_tokens: PositiveInt = Field(1024, description="Tokens of one tool's answer; a longer one is cut, and says so. Default 1024.")
    timeout_seconds: PositiveFloat = Field(
        600.0, description="Time limit of one episode without the time in which the engine draws, seconds. Default 600."
    )
    max_failed_fraction: Annotated[NonNegativeFloat, Field(le=1)] = Field(
        0.25,
        description="Share of a step's episodes that may fail (a tool that does not answer, a time limit, an error in the function) before "
        "the attempt ends; failed ones take no part in the loss and are counted. Default 0.25.",
    )
