"""The same weights in transformers' GPT-NeoX, to compare with."""

from __future__ import annotations

from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from tests.tiny_models import VOCAB_SIZE, TinyLanguageModel


def twin_of(model: TinyLanguageModel) -> GPTNeoXForCausalLM:
    """transformers' model with the weights of a tiny one (rotary, untied), without the rows of padding."""
    config = model.config
    twin = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.mlp_size,
            max_position_embeddings=config.max_position_embeddings,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": config.rotary_emb_base,
                "partial_rotary_factor": config.rotary_pct,
            },
            use_parallel_residual=config.gpt_j_residual,
            hidden_act="gelu",
            layer_norm_eps=config.layernorm_epsilon,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    ).eval()
    names = {"00.word_embeddings": "gpt_neox.embed_in", "05.norm": "gpt_neox.final_layer_norm"}
    head = "lm_head" if hasattr(twin, "lm_head") else "embed_out"
    names |= {"06.final_linear": head, "02": "gpt_neox.layers.0", "03": "gpt_neox.layers.1"}
    state = {}
    for name, value in model.net.layers.state_dict().items():
        ours = next(prefix for prefix in names if name.startswith(prefix))
        wide = value.shape[0] == VOCAB_SIZE + 40
        state[names[ours] + name.removeprefix(ours)] = value[:VOCAB_SIZE] if wide else value
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("rotary" in name for name in missing), missing
    return twin
