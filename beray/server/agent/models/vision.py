"""Which models can look at pictures, by their names: no protocol tells it, and one that can't refuses the request.

A name that is not known is taken for one that can't see: then the model is told what the picture is, and goes on.
`BERAY_MODEL_VISION` decides where this guesses wrong.
"""

import re
from typing import Final

_SEES: Final = re.compile(
    r"""
    gpt-4o | gpt-4\.\d | gpt-4-turbo | gpt-[5-9] | chatgpt-4o | o1(?!-mini|-preview) | o3(?!-mini) | o4
    | claude-(?:[3-9]|opus|sonnet|haiku) | gemini
    | qwen.*(?:vl|omni) | qvq
    | glm-\d(?:\.\d)?v | kimi-k2\.5 | moonshot.*vision
    | llama-?4 | llama-?3\.2-vision | gemma-?[34](?!.*(?:270m|[:-]1b)) | mistral-small-?3\.[12] | pixtral
    | .*(?:llava|moondream|minicpm-v|internvl|molmo|smolvlm)
    | .*[-_.:](?:vl|vision|multimodal)(?![a-z])
    """,
    re.VERBOSE,
)
_BLIND: Final = re.compile(r".*(?:audio|realtime|transcribe|tts|embed)")


def sees_images(name: str, setting: str) -> bool:
    """Whether a model takes pictures.

    Args:
        name: As `provider:model`, where the model may have an owner before a `/`.
        setting: `auto`, `1` or `0`.
    """
    if setting != "auto":
        return setting == "1"
    model = name.partition(":")[2].rpartition("/")[2].lower()
    return _SEES.match(model) is not None and _BLIND.match(model) is None
