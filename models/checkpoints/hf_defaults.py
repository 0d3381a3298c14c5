"""What transformers' classes fill in for keys that a config.json or a processor's config leaves out."""

from typing import Any

_ENCODER: dict[str, Any] = {
    "image_size": 224,
    "num_channels": 3,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
}
# By model type.
_MODELS: dict[str, dict[str, Any]] = {
    "vivit": _ENCODER
    | {"num_frames": 32, "tubelet_size": [2, 16, 16], "hidden_act": "gelu_fast", "layer_norm_eps": 1e-6},
    "videomae": _ENCODER
    | {
        "patch_size": 16,
        "num_frames": 16,
        "tubelet_size": 2,
        "layer_norm_eps": 1e-12,
        "use_mean_pooling": True,
    },
    "timesformer": _ENCODER
    | {
        "patch_size": 16,
        "num_frames": 8,
        "layer_norm_eps": 1e-6,
        "attention_type": "divided_space_time",
    },
    "vit": _ENCODER | {"patch_size": 16, "layer_norm_eps": 1e-12},
}
_PROCESSOR: dict[str, Any] = {
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
    "offset": False,
    "image_mean": 0.5,
    "image_std": 0.5,
    "resample": 2,
}
_IMAGENET: dict[str, Any] = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# By the beginning of a processor's class; a folder may have another model's processor.
_PROCESSORS: dict[str, dict[str, Any]] = {
    "Vivit": {"size": {"shortest_edge": 256}, "offset": True, "rescale_factor": 1 / 127.5},
    "VideoMAE": {"size": {"shortest_edge": 224}},
    "TimesformerVideo": {"size": {"shortest_edge": 224}, **_IMAGENET},
    "ViT": {"size": {"height": 224, "width": 224}, "do_center_crop": False},
    "DeiT": {"size": {"height": 256, "width": 256}, "resample": 3},
    "VJEPA2": {"size": {"shortest_edge": 292}, **_IMAGENET},
}
# A model type's processor where the config names none that is known.
_USUAL = {
    "vivit": "Vivit",
    "videomae": "VideoMAE",
    "timesformer": "VideoMAE",
    "vit": "ViT",
    "vjepa2": "VJEPA2",
}


def complete_config(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """A model's config with what its class fills in."""
    return _MODELS[kind] | _stated(config)


def complete_processor(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """A processor's config with what its class fills in; ``kind`` is the model's type."""
    named = str(config.get("video_processor_type") or config.get("image_processor_type") or "")
    prefix = next((each for each in _PROCESSORS if named.startswith(each)), _USUAL.get(kind, ""))
    return _PROCESSOR | _PROCESSORS.get(prefix, {}) | _stated(config)


def _stated(config: dict[str, Any]) -> dict[str, Any]:
    """Without keys that are null, which stand for the default."""
    return {key: value for key, value in config.items() if value is not None}
