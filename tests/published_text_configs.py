"""What the published `config.json` of full-size text encoders say of their shape, and how many parameters that makes.

Facts of the published files; what shapes nothing (dropout, token ids, versions) is left out. CLIP ViT-L was checked
with copies of its file on the Hub. ruCLIP (tests/weights/test_openai_clip.py) has its names, its fields and its 77
tokens from the published code (ai-forever/ru-clip), the 768 numbers of a ViT-L/14's embedding from the table in
open-metric-learning; the width of its hidden states, OpenAI's own for ViT-L/14, is nowhere stated, and so unverified.
"""

from typing import Any

Config = dict[str, Any]

CLIP_L: Config = {
    "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_act": "quick_gelu",
    "hidden_size": 768, "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 77,
    "num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768, "vocab_size": 49408, "eos_token_id": 2,
}  # fmt: skip
# Of Stable Diffusion 2.1, whose file lacks the last of 24 layers.
OPENCLIP_H = CLIP_L | {
    "hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
    "num_hidden_layers": 23, "projection_dim": 512,
}  # fmt: skip
OPENCLIP_BIGG = CLIP_L | {
    "architectures": ["CLIPTextModelWithProjection"], "hidden_act": "gelu", "hidden_size": 1280,
    "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32, "projection_dim": 1280,
    "eos_token_id": 49407,
}  # fmt: skip
METACLIP_2_HUGE: Config = {
    "architectures": ["MetaClip2TextModelWithProjection"], "model_type": "metaclip_2_text_model",
    "hidden_act": "quick_gelu", "hidden_size": 1024, "intermediate_size": 4096, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77, "num_attention_heads": 16, "num_hidden_layers": 24, "projection_dim": 1024,
    "vocab_size": 901629, "eos_token_id": 2,
}  # fmt: skip
CLIP = {
    "clip-vit-large-patch14": (CLIP_L, 123_060_480),
    "open_clip vit-h (SD 2.1)": (OPENCLIP_H, 340_387_840),
    "open_clip vit-bigg": (OPENCLIP_BIGG, 694_659_840),
    "metaclip-2-worldwide-huge-quickgelu": (METACLIP_2_HUGE, 1_226_706_944),
}

XLM_R_LARGE: Config = {
    "architectures": ["XLMRobertaForMaskedLM"], "model_type": "xlm-roberta", "hidden_act": "gelu", "hidden_size": 1024,
    "intermediate_size": 4096, "layer_norm_eps": 1e-05, "max_position_embeddings": 514, "num_attention_heads": 16,
    "num_hidden_layers": 24, "pad_token_id": 1, "position_embedding_type": "absolute", "type_vocab_size": 1,
    "vocab_size": 250002,
}  # fmt: skip
E5_LARGE = XLM_R_LARGE | {"architectures": ["XLMRobertaModel"]}
E5_BASE = E5_LARGE | {
    "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12,
}  # fmt: skip
E5_SMALL: Config = {
    "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "hidden_size": 384,
    "intermediate_size": 1536, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "num_attention_heads": 12,
    "num_hidden_layers": 12, "pad_token_id": 0, "position_embedding_type": "absolute", "type_vocab_size": 2,
    "vocab_size": 250037,
}  # fmt: skip
BERT = {
    "xlm-roberta-large": (XLM_R_LARGE, 558_840_832),
    "multilingual-e5-large": (E5_LARGE, 558_840_832),
    "multilingual-e5-base": (E5_BASE, 277_453_056),
    "multilingual-e5-small": (E5_SMALL, 117_505_920),
}

# AltCLIP-m9 has the same. All three as read in an audit of the files on the Hub (revisions 17788d7, 41d03cb, 4e7c13d);
# that m18 projects to the 1024 of its teacher, OpenCLIP ViT-H/14, FlagAI's `modeling_berts_m18.py` says too.
ALTCLIP: Config = {
    "model_type": "altclip_text_model", "hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096,
    "layer_norm_eps": 1e-05, "max_position_embeddings": 514, "num_attention_heads": 16, "num_hidden_layers": 24,
    "pad_token_id": 1, "project_dim": 768, "type_vocab_size": 1, "vocab_size": 250002,
}  # fmt: skip
ALTCLIPS = {
    "AltCLIP": (ALTCLIP, 559_630_080),
    "AltCLIP-m9": (ALTCLIP, 559_630_080),
    "AltCLIP-m18": (ALTCLIP | {"project_dim": 1024}, 559_892_480),
}

MT5_XL: Config = {
    "architectures": ["MT5ForConditionalGeneration"], "model_type": "mt5", "d_ff": 5120, "d_kv": 64, "d_model": 2048,
    "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-06, "num_decoder_layers": 24, "num_heads": 32,
    "num_layers": 24, "relative_attention_num_buckets": 32, "vocab_size": 250112,
}  # fmt: skip
T5_V1_1_XXL = MT5_XL | {
    "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_ff": 10240, "d_model": 4096,
    "num_heads": 64, "vocab_size": 32128,
}  # fmt: skip
UMT5_XXL = T5_V1_1_XXL | {
    "architectures": ["UMT5ForConditionalGeneration"], "model_type": "umt5", "vocab_size": 256384,
}  # fmt: skip
T5 = {
    "mt5-xl": (MT5_XL, 1_669_958_656),
    "t5-v1_1-xxl": (T5_V1_1_XXL, 4_762_310_656),
    "umt5-xxl": (UMT5_XXL, 5_680_910_336),
}
