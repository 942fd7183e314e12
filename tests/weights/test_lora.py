"""LoRA files of every layout, merged as diffusers and peft merge them, and as the formula says."""

import json
import pathlib
import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

from pea_jax.errors import PeaError
from pea_jax.models.clip_text import CLIPText, CLIPTextConfig
from pea_jax.models.unet import UNet2DCondition, UNetConfig
from pea_jax.weights import load_unet, to_torch_names
from pea_jax.weights.abstract import without_values
from pea_jax.weights.lora import lora_components, merge_lora
from tests import tiny_sdxl
from tests.tiny_text_models import random_clip
from tests.torch_oracle import filled, randomised

ATTENTION = r"attn\d\.to_(q|k|v|out\.0)$|self_attn\.(q|k|v|out)_proj$"
EVERYTHING = rf"{ATTENTION}|proj_in$|proj_out$|ff\.net|mlp\.fc|resnets|samplers|time_emb"
TEXT = dict(
    vocab_size=40, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=6, projection_dim=8,
)  # fmt: skip
RANK, SCALE = 3, 0.7
Layers = dict[str, dict[str, tuple[torch.Tensor, torch.Tensor, float]]]


def sd15_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(4, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=2,
    )


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def networks(request) -> dict[str, torch.nn.Module]:
    if request.param == "sd15":
        return {"unet": randomised(sd15_unet()), "text_encoder": random_clip(with_projection=False, **TEXT)}
    return {
        "unet": randomised(tiny_sdxl.random_unet(16, 8, levels=3)),
        "text_encoder": random_clip(with_projection=False, **TEXT),
        "text_encoder_2": random_clip(with_projection=True, **TEXT),
    }


def ours(component: str, oracle: torch.nn.Module):
    """Our network with the oracle's weights."""
    if component == "unet":
        return filled(UNet2DCondition(UNetConfig.from_dict(dict(oracle.config))), oracle)
    weights = {name.removeprefix("text_model."): value for name, value in oracle.state_dict().items()}
    holder = torch.nn.Module()
    holder.state_dict = lambda: {name: value for name, value in weights.items() if "position_ids" not in name}
    return filled(CLIPText(CLIPTextConfig(**TEXT), component == "text_encoder_2"), holder)


def random_layers(networks: dict[str, torch.nn.Module], which: str) -> Layers:
    """Factors for all layers whose name fits `which`, by diffusers' and transformers' names."""
    generator = torch.Generator().manual_seed(1)
    layers: Layers = {}
    for component, network in networks.items():
        layers[component] = {}
        for name, module in network.named_modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and re.search(which, name):
                kernel = module.weight.shape[2:]
                down = torch.randn(RANK, module.weight.shape[1], *kernel, generator=generator)
                up = torch.randn(module.weight.shape[0], RANK, *[1] * len(kernel), generator=generator)
                if component != "unet" and not name.startswith("text_model."):
                    name = "text_model." + name
                layers[component][name] = (down, up, 2.0)
    return layers


def kohya(layers: Layers, *, sgm: bool = False) -> dict[str, torch.Tensor]:
    two = "text_encoder_2" in layers
    prefixes = {"unet": "unet", "text_encoder": "te1" if two else "te", "text_encoder_2": "te2"}
    tensors = {}
    for component, modules in layers.items():
        for name, (down, up, alpha) in modules.items():
            name = first_implementation(name) if sgm and component == "unet" else name
            key = f"lora_{prefixes[component]}_{name.replace('.', '_')}"
            tensors |= {key + ".lora_down.weight": down, key + ".lora_up.weight": up}
            tensors[key + ".alpha"] = torch.tensor(alpha)
    return tensors


INNER = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
         "conv_shortcut": "skip_connection"}  # fmt: skip


def first_implementation(name: str, layers_per_block: int = 1) -> str:
    """The name of a module of the UNet as in `sgm`: blocks counted through, resnet 0, transformer 1, sampler last."""
    if name.startswith("time_embedding"):
        return {"1": "time_embed.0", "2": "time_embed.2"}[name[-1]]
    head, *rest = name.split(".")
    if head == "mid_block":
        index = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}[".".join(rest[:2])]
        return ".".join(["middle_block", str(index), *[INNER.get(part, part) for part in rest[2:]]])
    block, kind, number, *inner = rest
    inner = [INNER.get(part, part) for part in inner] if kind == "resnets" else inner
    per_block = layers_per_block + 1
    if head == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{(int(block) + 1) * per_block}.0.op"
        place = 1 + int(block) * per_block + int(number)
        return ".".join([f"input_blocks.{place}", "0" if kind == "resnets" else "1", *inner])
    if kind == "upsamplers":
        return f"output_blocks.{int(block) * per_block + layers_per_block}.2.conv"
    place = int(block) * per_block + int(number)
    return ".".join([f"output_blocks.{place}", "0" if kind == "resnets" else "1", *inner])


def dotted(layers: Layers, down_key: str, up_key: str) -> dict[str, torch.Tensor]:
    tensors = {}
    for component, modules in layers.items():
        for name, (down, up, _) in modules.items():
            tensors |= {f"{component}.{name}.{down_key}.weight": down, f"{component}.{name}.{up_key}.weight": up}
    return tensors


def processors(layers: Layers) -> dict[str, torch.Tensor]:
    """diffusers before 0.18: `attn1.processor.to_q_lora.down.weight`, and for text `self_attn.to_q_lora`."""
    tensors = {}
    for key, value in dotted(layers, "lora.down", "lora.up").items():
        key = re.sub(r"(attn\d)\.to_(q|k|v|out)(\.0)?\.lora\.", r"\1.processor.to_\2_lora.", key)
        tensors[re.sub(r"(self_attn)\.(q|k|v|out)_proj\.lora\.", r"\1.to_\2_lora.", key)] = value
    return tensors


def without_alpha(layers: Layers) -> Layers:
    """Files that do not state alpha mean the rank."""
    return {c: {n: (d, u, float(RANK)) for n, (d, u, _) in modules.items()} for c, modules in layers.items()}


LAYOUTS = {
    "kohya": (EVERYTHING, kohya),
    "kohya of the first implementation": (EVERYTHING, lambda x: kohya(x, sgm="text_encoder_2" in x)),
    "kohya without text, as LCM-LoRA": (EVERYTHING, lambda x: kohya({"unet": x["unet"]})),
    "peft": (EVERYTHING, lambda x: dotted(x, "lora_A", "lora_B")),
    "diffusers": (ATTENTION, lambda x: dotted({"unet": x["unet"]}, "lora.down", "lora.up")),
    "diffusers with text": (
        ATTENTION,
        lambda x: (
            dotted({"unet": x["unet"]}, "lora.down", "lora.up")
            | dotted({c: m for c, m in x.items() if c != "unet"}, "lora_linear_layer.down", "lora_linear_layer.up")
        ),
    ),
    "attention processors": (ATTENTION, processors),
}


def expected(networks: dict[str, torch.nn.Module], layers: Layers, scale: float) -> dict[str, dict[str, np.ndarray]]:
    """`W + scale * alpha / rank * up @ down` of every layer."""
    result = {}
    for component, network in networks.items():
        weights = {
            name.removeprefix("text_model."): value.detach().numpy().copy()
            for name, value in network.named_parameters()
        }
        for name, (down, up, alpha) in layers.get(component, {}).items():
            change = torch.einsum("or...,ri...->oi...", up.expand(*up.shape[:2], *down.shape[2:]), down)
            weights[name.removeprefix("text_model.") + ".weight"] += scale * alpha / RANK * change.numpy()
        result[component] = weights
    return result


def fused(networks: dict[str, torch.nn.Module], path: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """What diffusers makes of the file, with peft."""
    copies = {name: type(network)(network.config) if name != "unet" else type(network).from_config(network.config)
              for name, network in networks.items()}  # fmt: skip
    for name, network in networks.items():
        copies[name].load_state_dict(network.state_dict())
    kind = StableDiffusionXLPipeline if len(networks) == 3 else StableDiffusionPipeline
    more = dict(tokenizer_2=None) if len(networks) == 3 else dict(safety_checker=None, feature_extractor=None)
    if len(networks) == 2:
        more["requires_safety_checker"] = False
    pipeline = kind(vae=None, tokenizer=None, scheduler=DDIMScheduler(), **copies, **more)
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    pipeline.fuse_lora(components=list(networks), lora_scale=SCALE)
    pipeline.unload_lora_weights()
    return {
        name: {k.removeprefix("text_model."): v.detach().numpy() for k, v in network.named_parameters()}
        for name, network in copies.items()
    }


def assert_equal(actual: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert actual.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=1e-5, err_msg=name)


def merged(
    networks: dict[str, torch.nn.Module], path: pathlib.Path, scale: float = SCALE
) -> dict[str, dict[str, np.ndarray]]:
    result = {}
    for component, oracle in networks.items():
        model = ours(component, oracle)
        if component in lora_components(path):
            merge_lora(model, path, scale=scale, component=component)
        result[component] = to_torch_names(model)
    return result


@pytest.mark.parametrize("layout", LAYOUTS)
def test_merged_as_diffusers_does(networks, layout, tmp_path):
    which, write = LAYOUTS[layout]
    layers = random_layers(networks, which)
    path = tmp_path / "lora.safetensors"
    tensors = write(layers)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    if not any("alpha" in key for key in tensors):
        layers = without_alpha(layers)
    if not any(re.match("text_encoder|lora_te", key) for key in tensors):
        layers = {"unet": layers["unet"]}
    assert lora_components(path) == list(layers)
    actual, formula, oracle = merged(networks, path), expected(networks, layers, SCALE), fused(networks, path)
    for component, network in networks.items():
        assert_equal(actual[component], formula[component])
        assert_equal(actual[component], oracle[component])
        before = {name.removeprefix("text_model."): value for name, value in network.named_parameters()}
        assert component not in layers or any(
            np.abs(actual[component][name] - value.detach().numpy()).max() > 0.1 for name, value in before.items()
        )


@pytest.fixture
def unet() -> torch.nn.Module:
    return randomised(sd15_unet())


@pytest.fixture
def layers(unet) -> Layers:
    return random_layers({"unet": unet}, EVERYTHING)


def test_every_layer_has_its_own_alpha(unet, layers, tmp_path):
    """diffusers 0.42 loses the alpha of attention layers where alphas differ; kohya's formula is followed."""
    for number, (name, (down, up, _)) in enumerate(layers["unet"].items()):
        layers["unet"][name] = (down, up, 1.0 + number % 4)
    save_file(kohya(layers), tmp_path / "lora.safetensors")
    actual = merged({"unet": unet}, tmp_path / "lora.safetensors")
    assert_equal(actual["unet"], expected({"unet": unet}, layers, SCALE)["unet"])


@pytest.mark.parametrize("names", ["add_embedding_linear_1 add_embedding_linear_2", "label_emb_0_0 label_emb_0_2"])
def test_the_embedding_of_size_and_pooled_text(tmp_path, names):
    """diffusers 0.42 knows the first implementation's names of these layers alone."""
    network = randomised(tiny_sdxl.random_unet(16, 8))
    layers = random_layers({"unet": network}, "add_embedding")
    first, second = names.split()
    tensors = {
        key.replace("add_embedding_linear_1", first).replace("add_embedding_linear_2", second): value
        for key, value in kohya(layers).items()
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    actual = merged({"unet": network}, tmp_path / "lora.safetensors")
    assert len(layers["unet"]) == 2
    assert_equal(actual["unet"], expected({"unet": network}, layers, SCALE)["unet"])


def test_alpha_in_the_metadata_of_diffusers(unet, layers, tmp_path):
    special = next(name for name in layers["unet"] if name.endswith("to_q"))
    stated = {"unet.lora_alpha": 6, "unet.r": RANK, "unet.alpha_pattern": {special: 1}, "text_encoder.lora_alpha": 9}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(stated)}
    save_file(dotted(layers, "lora_A", "lora_B"), tmp_path / "lora.safetensors", metadata)
    wanted = {name: (down, up, 1.0 if name == special else 6.0) for name, (down, up, _) in layers["unet"].items()}
    actual = merged({"unet": unet}, tmp_path / "lora.safetensors")
    assert_equal(actual["unet"], expected({"unet": unet}, {"unet": wanted}, SCALE)["unet"])


@pytest.fixture
def saved_by_peft(unet, layers, tmp_path) -> pathlib.Path:
    """The file of weights in a folder of `save_pretrained`; alpha is 2, 1 for `to_q`, and 3 for `to_k` and `to_v` of
    the cross-attention."""
    names = [name for name in layers["unet"] if re.search(EVERYTHING, name)]
    config = LoraConfig(r=RANK, lora_alpha=2, target_modules=names, alpha_pattern={"to_q": 1, r"attn2\.to_(k|v)": 3})
    network = get_peft_model(randomised(sd15_unet()), config)
    for name, module in network.base_model.model.named_modules():
        if name in layers["unet"]:
            module.lora_A.default.weight.data, module.lora_B.default.weight.data = layers["unet"][name][:2]
    network.save_pretrained(tmp_path)
    return tmp_path / "adapter_model.safetensors"


def test_what_peft_saves(unet, layers, saved_by_peft):
    """Its alpha is in a file of its own."""
    network = PeftModel.from_pretrained(randomised(sd15_unet()), saved_by_peft.parent).merge_and_unload()
    actual = merged({"unet": unet}, saved_by_peft, scale=1.0)["unet"]
    assert lora_components(saved_by_peft) == ["unet"]
    assert_equal(actual, {name: value.detach().numpy() for name, value in network.named_parameters()})
    name = "mid_block.attentions.0.proj_in.weight"
    assert np.abs(actual[name] - unet.state_dict()[name].numpy()).max() > 0.1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config: config.unlink(), "copy that beside it"),
        (lambda config: config.write_text("{"), "adapter_config.json: not the config of a LoRA"),
        (lambda config: config.write_text('{"use_rslora": true}'), "use_rslora is not supported"),
        (lambda config: config.write_text('{"alpha_pattern": {"to_(k": 1}}'), "adapter_config.json: not the config of"),
    ],
)
def test_what_peft_saves_without_its_alpha(unet, saved_by_peft, change, said):
    change(saved_by_peft.with_name("adapter_config.json"))
    with pytest.raises(PeaError) as error:
        merge_lora(ours("unet", unet), saved_by_peft)
    assert said in str(error.value) and str(saved_by_peft.parent) in str(error.value)


def test_dtype_and_the_other_parameters_stay(unet, layers, tmp_path):
    path = tmp_path / "lora.bin"
    one = {name: value for name, value in kohya(layers).items() if "mid_block_attentions_0_proj_in" in name}
    torch.save({name: value.half() for name, value in one.items()}, path)
    model = filled(UNet2DCondition(UNetConfig.from_dict(dict(unet.config)), param_dtype=jnp.bfloat16), unet)
    before = to_torch_names(model)
    merge_lora(model, path)
    after = to_torch_names(model)
    assert after["mid_block.attentions.0.proj_in.weight"].dtype == jnp.bfloat16
    changed = [name for name in before if before[name].tobytes() != after[name].tobytes()]
    assert changed == ["mid_block.attentions.0.proj_in.weight"]


def test_without_values_it_is_only_told_whether_it_fits(unet, layers, tmp_path):
    """As before a large network is read."""
    UNet2DConditionModel.from_config(unet.config).save_config(tmp_path)
    save_file(kohya(layers), tmp_path / "a.safetensors")
    name, (down, up, alpha) = next(iter(layers["unet"].items()))
    save_file(kohya({"unet": {name: (down[:, 1:].contiguous(), up, alpha)}}), tmp_path / "b.safetensors")
    with without_values():
        model = load_unet(tmp_path, "")
        merge_lora(model, tmp_path / "a.safetensors")
        with pytest.raises(PeaError, match="b.safetensors does not fit the unet: .* do not multiply to"):
            merge_lora(model, tmp_path / "b.safetensors")


def test_scale_zero_changes_nothing(unet, layers, tmp_path):
    save_file(kohya(layers), tmp_path / "lora.safetensors")
    wanted = {name: value.numpy() for name, value in unet.state_dict().items()}
    assert_equal(merged({"unet": unet}, tmp_path / "lora.safetensors", scale=0.0)["unet"], wanted)


KEY = "lora_unet_mid_block_attentions_0_proj_in"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update({f"{KEY}.lora_mid.weight": torch.ones(1)}), "LoCon with a middle factor"),
        (lambda t: t.update({f"{KEY}.hada_w1_a": torch.ones(1)}), "LoHa"),
        (lambda t: t.update({f"{KEY}.lokr_w1": torch.ones(1)}), "LoKr"),
        (lambda t: t.update({f"{KEY}.dora_scale": torch.ones(1)}), "DoRA"),
        (lambda t: t.update({f"{KEY}.diff": torch.ones(1)}), "full weight differences"),
        (lambda t: t.update({f"{KEY}.diff_b": torch.ones(1)}), "full weight differences"),
        (lambda t: t.update({f"{KEY}.w_norm": torch.ones(1)}), "LyCORIS of norms"),
        (lambda t: t.update({f"{KEY}.on_input": torch.ones(1)}), "IA3"),
        (lambda t: t.update({"clip_g": torch.ones(1)}), "textual inversion (clip_g) is not supported, only LoRA"),
        (lambda t: t.update({"ip_adapter.1.to_k_ip.weight": torch.ones(1)}), "IP-Adapter"),
        (lambda t: t.update({"model.diffusion_model.x": torch.ones(1)}), "1 keys of no known LoRA layout"),
        (lambda t: t.update({"something.else": torch.ones(1)}), "1 keys of no known LoRA layout (something.else)"),
        (lambda t: t.pop(f"{KEY}.lora_up.weight"), "factors is missing for mid_block.attentions.0.proj_in"),
        (lambda t: t.update({f"{KEY}.alpha": torch.ones(2)}), "an alpha of shape [2]"),
        (lambda t: t.update({f"{KEY}.alpha": torch.tensor(torch.nan)}), "proj_in.weight: numbers that are not finite"),
        (lambda t: t[f"{KEY}.lora_up.weight"].fill_(torch.inf), "proj_in.weight: numbers that are not finite"),
        (lambda t: t.update({"base_model.model.text_model.lora_A.weight": torch.ones(1)}), "1 keys of no known LoRA"),
        (lambda t: t.update({f"{KEY}.lora_up.weight": torch.ones(5, RANK, 1, 1)}), "do not multiply to [8, 8, 1, 1]"),
        (lambda t: t.update({f"{KEY}.lora_up.weight": torch.ones(8, RANK, 1, 1, dtype=torch.int8)}), "dtype"),
        (
            lambda t: t.update({k.replace("mid_block", "mid_block_x"): t.pop(k) for k in list(t) if KEY in k}),
            "1 layers that it does not have (mid_block.x.attentions.0.proj_in.weight)",
        ),
    ],
)  # fmt: skip
def test_refusals_leave_the_model_alone(unet, layers, tmp_path, change, said):
    path, model = tmp_path / "lora.safetensors", ours("unet", unet)
    tensors = kohya(layers)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(PeaError) as error:
        merge_lora(model, path)
    message = str(error.value)
    assert said in message and str(path) in message and "\n" not in message
    for name, value in to_torch_names(model).items():
        np.testing.assert_array_equal(value, unet.state_dict()[name])


def test_the_wrong_network(unet, layers, tmp_path):
    path = tmp_path / "lora.safetensors"
    save_file(kohya(layers), path)
    with pytest.raises(PeaError, match="nothing in it for the text_encoder .only for unet"):
        merge_lora(ours("unet", unet), path, component="text_encoder")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(PeaError, match="nothing in it for the unet .it is empty"):
        merge_lora(ours("unet", unet), tmp_path / "empty.safetensors")
    with pytest.raises(PeaError, match="component='vae' must be one of"):
        merge_lora(ours("unet", unet), path, component="vae")


@pytest.mark.parametrize("missing", ["torch", "diffusers"])
def test_without_the_packages_that_translate(layers, tmp_path, missing):
    """Their absence names the extra that brings both."""
    path = tmp_path / "lora.safetensors"
    save_file(kohya(layers), path)
    script = (
        f"import pathlib, sys; sys.modules[{missing!r}] = None; from pea_jax.weights.lora_layouts import read_layers\n"
        f"try: read_layers(pathlib.Path({str(path)!r}), 'unet', 2)\nexcept Exception as error: print(error)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert 'pip install "pea_jax[torch,transformers]"' in shown and str(path) in shown and shown.count("\n") == 1
