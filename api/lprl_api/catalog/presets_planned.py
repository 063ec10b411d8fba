"""Layouts of models that nothing here trains yet: `lprl plan NAME` says what such a job would need, `lprl init` writes none of them.

Sizes follow the preset of the nearest model. Engines are as large as SGLang's block FP8 lets them be: their matrices are cut in whole
blocks of 128.
"""

from typing import Any

from lprl_api.catalog.presets import GRAPH_SIZES, NVSHMEM, Preset, manifest_of_preset

PLANNED: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "qwen3.5-9b-fp8",
            "qwen3.5-9b",
            "Qwen3.5-9B",
            "fp8",
            1,
            8,
            trainer={"tensor": 2, "sequenceParallel": True, "maxTokensPerGpu": 9216, "attentionBackend": "flash"},
            rollout={"gpusPerEngine": 2, "memoryFraction": 0.7},
            steps=3000,
            batch=(32, 8, 256),
            reward="deepscaler",
            response_tokens=8192,
            temperature=1.0,
            evaluation=(20, 16, 16384, 1.0),
        ),
        Preset(
            "qwen3.5-35b-a3b-fp8",
            "qwen3.5-35b-a3b",
            "Qwen3.5-35B-A3B",
            "fp8",
            2,
            8,
            trainer={"pipeline": 4, "expert": 4, "deepEp": True, "maxTokensPerGpu": 10240, "attentionBackend": "flash"},
            rollout={"gpusPerEngine": 4, "expert": 4, "memoryFraction": 0.7, "cudaGraphBatchSizes": GRAPH_SIZES},
            steps=200,
            batch=(16, 8, 128),
            reward="math",
            response_tokens=8192,
            temperature=1.0,
            evaluation=(20, 16, 16384, 1.0),
            environment=NVSHMEM,
        ),
        Preset(
            "glm-4.7-flash-fp8",
            "glm-4.7-flash",
            "GLM-4.7-Flash",
            "fp8",
            2,
            8,
            trainer={"tensor": 2, "expert": 8, "sequenceParallel": True, "maxTokensPerGpu": 8192, "attentionBackend": "flash"},
            rollout={"gpusPerEngine": 2, "expert": 2, "memoryFraction": 0.7, "cudaGraphBatchSizes": GRAPH_SIZES},
            steps=200,
            batch=(32, 8, 256),
            reward="deepscaler",
            response_tokens=8192,
            temperature=1.0,
            evaluation=(20, 16, 16384, 1.0),
            environment=NVSHMEM,
        ),
        Preset(
            "glm-4.6-fp8",
            "glm-4.6",
            "GLM-4.6",
            "fp8",
            16,
            8,
            trainer={
                "tensor": 4,
                "pipeline": 4,
                "context": 2,
                "expert": 16,
                "sequenceParallel": True,
                "maxTokensPerGpu": 16384,
                "attentionBackend": "flash",
            },
            rollout={"gpusPerEngine": 4, "expert": 4, "memoryFraction": 0.8, "cudaGraphBatchSizes": GRAPH_SIZES},
            steps=300,
            batch=(32, 8, 256),
            reward="deepscaler",
            response_tokens=8192,
            temperature=0.8,
            evaluation=(10, 16, 16384, 0.7),
            accelerator="H200-141GB",
            environment=NVSHMEM,
        ),
        Preset(
            "kimi-k2.5-int4",
            "kimi-k2.5",
            "Kimi-K2.5",
            "int4-qat",
            32,
            8,
            trainer={
                "tensor": 8,
                "pipeline": 8,
                "context": 4,
                "expert": 32,
                "sequenceParallel": True,
                "lastStageLayers": 5,
                "maxTokensPerGpu": 16384,
                "attentionBackend": "flash",
            },
            rollout={"gpusPerEngine": 8, "expert": 8, "memoryFraction": 0.7, "maxConcurrency": 1024},
            steps=100,
            batch=(128, 8, 256),
            reward="math",
            response_tokens=16384,
            temperature=0.8,
            evaluation=(10, 16, 16384, 0.7),
            accelerator="H200-141GB",
            group_size=32,
            filter_groups=True,
            bucket_bytes=2 << 30,
        ),
    )
}


def planned_manifest(name: str) -> dict[str, Any]:
    """Return the manifest `lprl plan NAME` plans. Raises KeyError for an unknown name."""
    return manifest_of_preset(PLANNED[name])
