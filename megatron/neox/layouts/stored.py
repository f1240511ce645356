"""A model at rest: its architecture, its tokenizer and its whole tensors, whatever files they stand in.

Every format that is read opens as a `StoredModel`, and every format that is written takes one, so that any of them
converts into any other::

    neox, huggingface, gguf  ──open──>  StoredModel  ──write──>  neox, huggingface, gguf, ctranslate2

The names, shapes and layer numbers in between are those of our own layers on one rank (`models/gpt_neox.py`):

==========  ==============================================================  ==========================================
number      name                                                            shape of the weight
==========  ==============================================================  ==========================================
0           word_embeddings.weight, position_embeddings.weight (learned)    [V, h], [positions, h]
2 .. L + 1  input_layernorm.*, post_attention_layernorm.*                   [h]
2 .. L + 1  attention.query_key_value.*                                     [3 h, h], rows by head [n, 3, d];
                                                                            grouped: [(n + 2 g) d, h], [Q; K; V]
2 .. L + 1  attention.dense.*                                               [h, h]
2 .. L + 1  mlp.dense_h_to_4h.*                                             [m, h]; gated: [2 m, h], [value; gate]
2 .. L + 1  mlp.dense_4h_to_h.*                                             [h, m]
L + 3       norm.*                                                          [h]
L + 4       final_linear.weight, absent where weights are tied              [V, h]
==========  ==============================================================  ==========================================

A norm's parameters are weight and bias (layernorm), scale (rmsnorm) or g (scalenorm).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from megatron.neox.config import ModelConfig, TokenizerConfig


@dataclass(frozen=True)
class StoredModel:
    """What a file format holds of a model.

    Args:
        kind: what the files were found to be, for people: "Hugging Face folder of a gpt_neox, 2 shards".
        path: file or folder that was opened.
        model: the architecture, padded_vocab_size (the rows of the embedding) among it.
        tokenizer: which tokenizer, its files' paths included; none where the format carries none.
        read_layer: whole tensors of a layer by name, from its number. In the stored type, on the CPU, perhaps
            mapped into memory; raises CheckpointError where they are absent or damaged.
        step: training step of the weights; 0 where the format does not tell.
    """

    kind: str
    path: Path
    model: ModelConfig
    tokenizer: TokenizerConfig | None
    read_layer: Callable[[int], dict[str, Tensor]]
    step: int = 0

    @property
    def layer_numbers(self) -> list[int]:
        """Numbers of the layers that hold tensors, in order."""
        count = self.model.num_layers
        head = [] if self.model.tie_weights else [count + 4]
        return [0, *range(2, count + 2), count + 3, *head]
