# Copyright 2026 The infmllm_ros authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Text decoders of any family: those that rotate are the plain model, the others are refused."""

import json
from pathlib import Path
import re

from infmllm_ros.bundled.tiny_text import PLAIN
from infmllm_ros.engine import BudgetError, inspect_model, ModelError
from infmllm_ros.engine.models.examine import examine
import numpy as np
import pytest
from tape import generate_plainly
import torch
import transformers
from zoo import changed, FAMILIES, folder, load, ONE_HEAD, plain, session, words

TOLERANCE = 1e-4
PAGE = (Path(__file__).parents[2] / 'docs/models.md').read_text()
OTHERS = [family for family in PLAIN if family not in FAMILIES]     # those are in the matrix
SHAPE = {
    'vocab_size': 512, 'hidden_size': 64, 'intermediate_size': 128, 'num_hidden_layers': 2,
    'num_attention_heads': 4, 'num_key_value_heads': 4, 'max_position_embeddings': 4096,
    'pad_token_id': 0, 'bos_token_id': 1, 'eos_token_id': 2,
}
LATENT = {'kv_lora_rank': 16, 'q_lora_rank': 16, 'qk_rope_head_dim': 8, 'qk_nope_head_dim': 8,
          'v_head_dim': 16}
GROUPS = {'n_routed_experts': 4, 'num_experts_per_tok': 2, 'n_group': 1, 'topk_group': 1,
          'moe_intermediate_size': 32}
# model_type -> (fields of its config, what the refusal says)
REFUSED = {
    'gpt_oss': ({'head_dim': 16, 'num_local_experts': 4, 'num_experts_per_tok': 2},
                'layer 0 attends with s_aux .attention sinks'),
    'gemma2': ({'head_dim': 16}, 'layer 0 attends with softcap .a cap'),
    'vaultgemma': ({'head_dim': 16}, 'layer 0 attends with softcap'),
    'deepseek_v3': ({**LATENT, **GROUPS}, 'layer 0 has 4 KV heads of 16 .*4 of 8.*MLA'),
    'minicpm3': ({**LATENT, 'v_head_dim': 12}, 'keys of 16 channels and values of 12.*MLA'),
    'hy_v4': ({}, "layer 0 .*'indexed_attention'"),
    'deepseek_v4': ({}, "layer 0 .*'heavily_compressed_attention'"),
    'llama4_text': ({'head_dim': 16}, "'chunked_attention'"),
    'nanochat': ({}, 'layer 0 rotates in an unknown way'),
    'hunyuan_v1_dense': ({'head_dim': 16}, 'layer 0 rotates in an unknown way'),    # norms after
    'doge': ({}, 'layer 0 attends with a mask of its own'),
    'nemotron': ({}, 'layer 0 attends by code of its own'),
    'gpt2': ({}, 'no rotary embedding.*ALiBi'),
    'bloom': ({}, 'no rotary embedding.*ALiBi'),
    'mpt': ({}, 'no rotary embedding.*ALiBi'),
    'falcon': ({'alibi': True}, 'falcon .*unknown way'),
    'opt': ({}, 'no rotary embedding'),
    'mamba': ({}, "layer 0 of mamba is 'linear_attention' of an unknown kind"),
}


@pytest.mark.parametrize('family', OTHERS)
def test_logits_and_answers_are_those_of_the_plain_model(family):
    model, reference = load(family), plain(family)
    target = session(family, 'saddle', 700, chunk=37)
    ids = words(model, 150, 1)
    found = torch.cat((target.logits(ids[:60]), target.logits(ids[60:])))
    prompt = model.adapter.prompt
    whole = torch.cat((prompt.prefix('Be brief.'), ids))
    with torch.no_grad():
        expected = reference(input_ids=whole[None]).logits[0, -150:]
    assert (found - expected).abs().max() <= TOLERANCE
    assert expected.std() > 1000 * TOLERANCE
    answer = target.answer('Where is the cup?', max_tokens=8)
    whole = torch.cat((whole, prompt.question('Where is the cup?')))
    stops = sorted(prompt.stop_ids)
    said = generate_plainly(reference, {'input_ids': whole[None]}, len(whole), stops, 8)
    assert list(answer.token_ids) == [i for i in said if i not in stops]


@pytest.mark.parametrize('family', OTHERS)
def test_logits_after_evictions_are_those_of_the_kept_tokens(family):
    changes = json.loads(ONE_HEAD)
    if 'sliding_window_pattern' in PLAIN[family]:
        changes['layer_types'] = ['full_attention']
    changes = changed(**changes)
    model, reference = load(family, changes), plain(family, changes)
    target = session(family, 'random', 120, changes=changes)
    stream = model.adapter.prompt.prefix('Be brief.')
    for number in range(8):
        told = words(model, 30, number)
        target.tell(told)
        stream = torch.cat((stream, told))
    assert target.stats().evictions >= 3
    kept, asked = stream[target.kept(0)[0]], words(model, 12, 99)
    with torch.no_grad():
        expected, wrong = (
            reference(input_ids=torch.cat((held, asked))[None]).logits[0, -12:]
            for held in (kept, torch.cat((kept[:20], kept[21:]))))
    found = target.logits(asked)
    assert (found - expected).abs().max() <= TOLERANCE
    assert (found - wrong).abs().max() > 10 * TOLERANCE


@pytest.mark.parametrize('family', ['ernie4_5', 'glm'])
def test_adjacent_channels_may_turn_by_a_table_of_halves(family):
    rope = load(family).rope
    size = 16 if family == 'ernie4_5' else 8        # GLM turns half of each head
    angle = np.arange(50)[:, None] * 10000.0 ** (-np.arange(0, size, 2) / size)
    if family == 'ernie4_5':
        theta = load(family).config.rope_parameters['rope_theta']
        angle = np.arange(50)[:, None] * theta ** (-np.arange(0, size, 2) / size)
    (layer,) = set(rope.layers.values())
    cos = rope.tables(50, torch.float32)[layer.table].cos[:50].numpy()
    assert layer.kind == 'interleaved'
    assert np.abs(cos - np.cos(np.repeat(angle, 2, 1))).max() < 1e-5


def test_layers_without_rotation_are_told_apart():
    kinds = [layer.kind for layer in load('smollm3').rope.layers.values()]
    assert kinds == ['half', 'none', 'half']


def test_part_of_a_head_may_turn():
    rope = load('gpt_neox').rope
    assert rope.tables(50, torch.float32)[rope.layers[0].table].cos.shape[1] == 8     # of 32


# -------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize('family', REFUSED)
def test_what_cannot_be_streamed_is_refused_before_the_weights_with_the_reason(family, tmp_path):
    fields, reason = REFUSED[family]
    config = transformers.AutoConfig.for_model(family, **{**SHAPE, **fields})
    config.save_pretrained(tmp_path)        # neither weights nor a tokenizer
    with pytest.raises(ModelError) as refusal:
        inspect_model(tmp_path)
    message = str(refusal.value)
    assert '\n' not in message and repr(family) in message and 'llama' in message
    assert re.search(reason, message), message
    (shown,) = (row for row in PAGE.splitlines() if row.startswith('| ') and f'`{family}`' in row)
    assert shown.split('`')[-2] in message


def test_a_model_that_sees_without_an_adapter_is_refused(tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'mllama'}))
    with pytest.raises(ModelError, match="'mllama'.*beside text"):
        inspect_model(tmp_path)


@pytest.mark.parametrize('family', ['llama', 'smolvlm', 'qwen3_vl'])
def test_a_family_that_is_known_is_examined_too(family, tmp_path, monkeypatch):
    """A checkpoint's language model may be of any kind, whatever stands around it."""
    import infmllm_ros.engine.models.examine as examination
    monkeypatch.setattr(examination, 'RopeMap', lambda *_: (_ for _ in ()).throw(
        ModelError('layer 0 rotates in an unknown way')))
    with pytest.raises(ModelError, match='layer 0 rotates'):
        inspect_model(folder(family))


def test_the_examination_leaves_the_config_and_the_random_state_alone():
    config = transformers.AutoConfig.from_pretrained(folder('smollm3'))
    before, state = config.to_dict(), torch.get_rng_state()
    attention = config._attn_implementation
    examine(config)
    assert config.to_dict() == before and config._attn_implementation == attention
    assert torch.get_rng_state().equal(state)


def test_a_big_model_is_examined_without_its_memory():
    """One layer of each kind, of a model of 280 billion weights, in little time and memory."""
    import resource
    config = transformers.Qwen3MoeConfig(
        hidden_size=8192, num_hidden_layers=94, num_attention_heads=64, num_key_value_heads=4,
        head_dim=128, num_experts=128, moe_intermediate_size=1024, vocab_size=151936)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    examine(config)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 2**20      # KiB


def test_queries_that_grow_with_their_position_bound_the_context():
    """Ministral 3 scales queries by 1 + beta log(1 + p // 16384): one, for any p below."""
    changes = changed(rope_parameters={
        'rope_type': 'yarn', 'rope_theta': 10000.0, 'factor': 16.0, 'llama_4_scaling_beta': 0.1,
        'original_max_position_embeddings': 512, 'mscale': 1.0, 'mscale_all_dim': 1.0,
        'beta_fast': 32.0, 'beta_slow': 1.0})
    assert load('ministral3', changes).spec.context_limit == 512
    session('ministral3', 'saddle', 400, changes=changes, chunk=64)
    with pytest.raises(BudgetError, match='context limit 512'):
        session('ministral3', 'saddle', 500, changes=changes, chunk=64)
