"""GLM-4.7-Flash: the layers of DeepSeek-V3. Pure."""

from lprl_api.errors import UserError
from lprl_api.model.model_shape import ModelShape
from lprl_workload.train.megatron.families.deepseek_v3 import DEEPSEEK_V3, latent_fields
from lprl_workload.train.megatron.families.family import REMEDY, Config, Family, Fields


def whole_rotary_fields(shape: ModelShape, config: Config) -> Fields:
    """Return the fields of a model with latent attention whose rotary channels are all turned; raises UserError for others."""
    part = config["rope_parameters"].get("partial_rotary_factor", 1.0)
    if part != 1.0:
        raise UserError(f"config.json: partial_rotary_factor {part}: backends.trainer megatron trains 1.0 only of this family", REMEDY)
    return latent_fields(shape, config)


GLM4_MOE_LITE = Family("glm4_moe_lite", DEEPSEEK_V3.layer, whole_rotary_fields)
