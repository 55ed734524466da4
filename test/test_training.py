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

"""Training sees what the engine sees: the same kept tokens, the same logits; and it resumes."""

from dataclasses import replace
import random
import re
from types import SimpleNamespace

from infmllm_ros.bundled.scenes import KEYS, TOPICS
from infmllm_ros.bundled.scenes.words import PLACES
from infmllm_ros.engine import load_model, make_policy, StreamingSession
import numpy as np
import pytest
import torch
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from training.clips import Mix, Writer  # noqa: I100
from training.eyes import ALWAYS, Eyes, FACTS, look, SORTS, truths
from training.lessons import MemoryLesson, noise_runs, Phase, Score
from training.model import make_config, make_model, make_tokenizer, write_folder
from training.part import IGNORE, NOTHING, Part
from training.runs import render_run
from training.stream import Memory
from training.train import mix, OLDEST, polish_mix, words_mix
from training.trainer import Trainer

SHAPE = {
    'vision': {'image_size': 64, 'patch_size': 16, 'hidden_size': 32, 'intermediate_size': 64,
               'num_hidden_layers': 1, 'num_attention_heads': 2},
    'text': {'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 3,
             'num_attention_heads': 4, 'num_key_value_heads': 2},
}
TOLD = (('the target is the blue cup', 'the code is seven'),
        ('remember the base is the attic', 'the visitor is emma'))
FRAMES = 30


@pytest.fixture(scope='module', autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope='module')
def untrained(tmp_path_factory):
    """Make a model whose random weights are large enough for wrong positions to show."""
    tokenizer = make_tokenizer()
    model = make_model(make_config(tokenizer, SHAPE), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    folder = tmp_path_factory.mktemp('model')
    write_folder(model, tokenizer, folder, torch.float32)
    return model, folder


def part(ids, lengths, pictures=None, markers=None, asks=None):
    """Make a part of a few streams, with one branch that follows them."""
    batch, width = ids.shape
    none = torch.zeros(batch, 0, dtype=torch.long)
    markers, asks = none if markers is None else markers, none if asks is None else asks
    branch = torch.zeros_like(asks)
    labels = torch.cat((torch.full_like(ids, IGNORE), branch), 1)
    blank = torch.full_like(ids, NOTHING)
    return Part(
        ids, lengths, blank if pictures is None else pictures, blank, markers,
        torch.zeros(batch, markers.shape[1], 1), asks,
        (lengths - 1)[:, None].expand(-1, asks.shape[1]), branch,
        torch.arange(asks.shape[1]).expand(batch, -1), labels,
        torch.zeros(batch, 1, 1, dtype=torch.bool), torch.zeros(batch, 1, dtype=torch.bool),
        torch.full((batch, width + asks.shape[1], 2), NOTHING))


def test_training_stream_keeps_and_predicts_what_the_engine_does(untrained):
    model, folder = untrained
    loaded = load_model(folder)
    policies = [make_policy('saddle', budget=budget, window='marker', recent=recent,
                            discount=discount, bias=.002)
                for budget, recent, discount in ((40, .3, .9), (48, .25, 0.))]
    sessions = [StreamingSession(loaded, policy, max_question=16, max_answer=8, chunk=16)
                for policy in policies]
    prompt = loaded.adapter.prompt
    images = np.random.default_rng(0).integers(0, 255, (2, FRAMES, 64, 64, 3), dtype=np.uint8)
    features = look(model, torch.from_numpy(images).flatten(0, 1)).flatten(0, 1)
    memory = Memory(model, policies, protected=1)
    one = torch.ones(2, dtype=torch.long)
    memory.read(part(prompt.prefix('').expand(2, 1), one), None)
    for frame in range(FRAMES):
        for row, session in enumerate(sessions):
            session.observe(images[row, frame])
        ids = loaded.adapter.encode(loaded.model, images[0, frame], 0.).ids.expand(2, -1)
        first = torch.tensor([[frame], [FRAMES + frame]]) * 4
        pictures = torch.cat((first + torch.arange(4), -torch.ones_like(first)), 1)
        memory.read(part(ids, 5 * one, pictures, 4 * one[:, None]), features)
        if frame in (3, 15):
            texts = [TOLD[row][frame > 3] for row in range(2)]
            for session, text in zip(sessions, texts, strict=True):
                session.tell(text)
            told = [prompt.text(text) for text in texts]
            memory.read(part(torch.nn.utils.rnn.pad_sequence(told, batch_first=True),
                             torch.tensor(list(map(len, told)))), None)
        for row, session in enumerate(sessions):
            assert torch.equal(session.kept(0)[0], memory.index[row][memory.valid[row]])
    assert sessions[0].stats().tokens_evicted > 100
    question, word = prompt.question('what is the target'), prompt.text('cup')
    outcome = memory.read(
        part(word.expand(2, 1), one, asks=question.expand(2, -1)), None, evict=False)
    for row, session in enumerate(sessions):
        expected = session.logits(torch.cat((word, question)))[1:]
        torch.testing.assert_close(outcome.logits[outcome.places[:, 0] == row], expected,
                                   atol=2e-5, rtol=1e-4)
    outcome.logits.sum().backward()
    assert model.get_decoder().layers[0].self_attn.k_proj.weight.grad.norm() > 0


def test_steps_of_the_memory_lesson_lower_its_loss():
    tokenizer = make_tokenizer()
    model = make_model(make_config(tokenizer, SHAPE), 1)
    writer = Writer(tokenizer.get_vocab(), 4)
    lesson = MemoryLesson(
        model, writer, noise_runs(4, 8, 0), torch.randn(4, 8, 4, 32), [Phase(1.01, (8,), 4, 1.)],
        (40,), words_mix)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):      # the same batch again and again
        loss = lesson.step(random.Random(5), 0., Score())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - .5


def test_questions_of_a_batch_have_the_answers_of_the_scene():
    tokenizer = make_tokenizer()
    words = {index: word for word, index in tokenizer.get_vocab().items()}
    runs = [render_run(kind, 3, 24, 48) for kind in ('drive', 'bench')]
    writer = Writer(tokenizer.get_vocab(), 4)
    frame, asked = 0, 0
    for piece, _ in writer.batch(runs, replace(mix(24), asks=6), random.Random(1)):
        stream = piece.ids.shape[1]
        for row, run in enumerate(runs):
            places = piece.markers[row].tolist()
            for branch in range(int(piece.branches[row].max()) + 1 if stream > 1 else 0):
                mine = (piece.branches[row] == branch).nonzero()[:, 0]
                text = ' '.join(words[i] for i in piece.ask_ids[row, mine].tolist())
                last = words[int(piece.labels[row, stream + mine[-1]])]
                ordinal = frame + places.index(int(piece.anchors[row, mine[0]]))
                assert last == '<end>' and text.startswith('<ask> ')
                question, answer = text[6:].split(' <answer> ')
                if question == 'what is on the left':
                    asked += 1
                    assert answer == run.now[ordinal]['left']
        frame += len(places) if stream > 1 else 0
    assert frame == 24 and asked > 0


def test_evidence_of_an_answer_is_the_newest_telling_and_what_is_said_points_at_its_key():
    tokenizer = make_tokenizer()
    words = {index: word for word, index in tokenizer.get_vocab().items()}
    writer = Writer(tokenizer.get_vocab(), 4)
    plan = replace(words_mix(8), part=8, first=10, tells=.5)
    opening, (piece, kinds) = writer.batch(noise_runs(3, 8, 0), plan, random.Random(3))
    memory = Memory(make_model(make_config(tokenizer, SHAPE), 0), [None] * 3, protected=1)
    memory.read(opening[0], None)
    target = memory._evidence(piece)
    ids = torch.cat((opening[0].ids, piece.ids), 1)
    told = 0
    for row in range(3):
        text = [words[i] for i in ids[row, :1 + int(piece.lengths[row])].tolist()]
        for place, key in enumerate(piece.keys[row].tolist()):
            assert key[1] == NOTHING
            if key[0] >= 0:
                every = torch.cat((piece.ids[row], piece.ask_ids[row])).tolist()
                near = [i for i in range(place) if words[every[i]] in KEYS]
                assert key[0] == near[-1]
        for branch in range(int(piece.branches[row].max()) + 1):
            mine = (piece.branches[row] == branch).nonzero()[:, 0]
            seen = 1 + int(piece.anchors[row, mine[0]]) + 1
            asked = [words[i] for i in piece.ask_ids[row, mine].tolist()]
            key = next(word for word in asked if word in KEYS)
            says = [place for place in range(seen) if text[place] == key and text[place + 1] in (
                'is',) and text[place - 1] == 'the']
            answer = asked[asked.index('<answer>') + 1:]
            rows = mine[len(asked) - len(answer) - 1:-1]
            for at, word in zip(rows.tolist(), answer, strict=True):
                found = target[row, at].nonzero()[:, 0].tolist()
                if answer == ['none']:
                    assert found == [0] and not says      # the start of the stream
                else:
                    told += 1
                    assert found and {text[i] for i in found} == {word}
                    assert says[-1] < found[0] <= says[-1] + 4
    assert told > 20 and len(kinds) > 20


def test_evidence_of_what_was_seen_are_the_tokens_that_show_it():
    tokenizer = make_tokenizer()
    words = tokenizer.get_vocab()
    writer = Writer(words, 4, sights=Eyes.sights())
    run = render_run('bench', 5, 64, 48)
    names = {number: word for word, number in words.items()}
    asked = {'put': 0, 'taken': 0}
    dice = random.Random(2)
    past = Mix(64, part=4, asks=20., shares=(0, 1, 0, 0), remembered=0)
    parts = writer.batch([run], past, dice)
    for before, (part, kinds) in zip(range(-5, 60, 4), parts, strict=True):
        for branch in range(len(kinds)):
            at = (part.branches[0] == branch).nonzero()[:, 0]
            text = ' '.join(names[int(part.ask_ids[0, i])] for i in at)
            question, _, answer = text.removeprefix('<ask> ').partition(' <answer> ')
            now = before + int((part.markers[0] <= part.anchors[0, at[0]]).sum())
            refs = part.wanted[0, branch].nonzero()[:, 0].tolist()
            tokens = {divmod(ref - 1, 4) for ref in refs}
            put = re.fullmatch('where (was|did) the (.*) (put|stand)', question)
            if answer == 'none':
                continue
            if put:
                assert part.both_heads[0, branch]
                stood = [frame for frame in range(now + 1) if run.now[frame][answer] == put[2]]
                last = [frame for frame in stood
                        if set(range(frame, stood[-1])) <= set(stood)]
                assert tokens == {(frame, PLACES.index(answer)) for frame in last}
                asked['put'] += bool(tokens)
            elif question.startswith('what was taken away'):
                (frame, slot), = tokens
                assert slot == 3 and frame <= now and not part.both_heads[0, branch]
                assert run.now[frame - 1]['hold'] == answer != run.now[frame]['hold']
                assert answer not in (run.now[frame][place] for place in PLACES)
                asked['taken'] += 1
    assert min(asked.values()) > 10


def test_what_came_first_is_to_be_looked_at_more_in_the_last_lesson():
    writer = Writer(make_tokenizer().get_vocab(), 4, sights=Eyes.sights())
    run, found = render_run('bench', 5, 256, 48), {}
    first = next(facts['first'] for facts in run.back if 'first' in facts)
    value, (frame, *_) = first
    place = next(place for place in PLACES if run.now[frame][place] == value)
    seen = 1 + 4 * frame + PLACES.index(place)
    for lesson in (mix, polish_mix):
        *_, (last, _) = writer.batch([run], lesson(256), random.Random(0))
        live = last.live[0, 0]
        assert set(live.unique().tolist()) == {0., 1., live[seen].item()}
        found[lesson] = live[seen].item(), (live > 0).sum().item()
    assert found[mix][0] == 1 < found[polish_mix][0] == OLDEST
    assert found[mix][1] == found[polish_mix][1] > 3


def test_the_last_lesson_asks_more_often_for_cones_that_are_to_be_added_up():
    tokenizer = make_tokenizer()
    writer, run = Writer(tokenizer.get_vocab(), 4), render_run('drive', 5, 64, 48)
    since = tokenizer.get_vocab()['since']
    asked = []
    for lesson in (mix, polish_mix):
        parts = writer.batch([run], replace(lesson(64), asks=20.), random.Random(0))
        asked.append(sum(since in ids.tolist()
                         for part, kinds in parts for ids in (
                             part.ask_ids[0][part.branches[0] == branch]
                             for branch in range(len(kinds)))))
    assert 1.5 * asked[0] < asked[1] > 20


def test_the_markers_loss_is_the_divergence_from_what_is_to_be_looked_at(untrained):
    memory = Memory(untrained[0], [None], protected=1)
    refs, live = torch.tensor([[0, 1, 1, NOTHING, 2, 3]]), torch.tensor([[[1., 4., 0., 1.]]])
    given = replace(part(torch.zeros(1, 6, dtype=torch.long), torch.tensor([6]),
                         markers=torch.tensor([[4]])), refs=refs, live=live)
    weights = torch.rand(3, 1, 1, 6).softmax(-1)
    sees = torch.tensor([[[True, True, True, True, True, False]]])      # not the last token
    look = SimpleNamespace(weights=list(weights), marker_sees=sees)
    wanted = torch.tensor([1., 4., 4.]) / 9
    (mean,), *layers = (torch.nn.functional.kl_div(
        one[0, 0, :3].log(), wanted, reduction='sum')[None]
        for one in (weights.mean(0), *weights[1:]))
    expected = mean + .5 * torch.cat(layers).mean()
    torch.testing.assert_close(memory._supervise(given, look), expected)


def test_every_visible_fact_has_a_token_of_its_own_and_its_truth_is_that_of_the_scene():
    for kind, topics in TOPICS.items():
        visible = {topic.name for topic in topics if topic.kind == 'now' and topic.name != 'where'}
        assert {name for world, name, _ in FACTS if world == kind} - set(ALWAYS) == visible
        taken = [(token, sort) for (world, _, sort), (token, _) in FACTS.items() if world == kind]
        assert len(taken) == len(set(taken))
        run = render_run(kind, 5, 60, 48)
        for row, shown in zip(truths(run), run.now, strict=True):
            said = {}
            for truth, (world, name, sort) in zip(row, FACTS, strict=True):
                assert (truth == -100) == (world != kind)
                if world == kind:
                    said.setdefault(name, []).append(SORTS[sort][truth - 1] if truth else 'none')
            shown = {**ALWAYS, **shown}
            assert all(set(words) == {'none'} if shown[name] == 'none'
                       else ' '.join(words) == shown[name] for name, words in said.items())


def test_the_second_heads_look_at_a_distance_before_anything_is_learned():
    model = make_model(make_config(make_tokenizer()), 0)
    decoder = model.get_decoder()
    blank = torch.zeros(1, 601, model.config.text_config.hidden_size)
    cos, sin = decoder.rotary_emb(blank, torch.arange(601)[None])
    for number, layer in enumerate(decoder.layers):
        attention = layer.self_attn
        query, key = (proj(blank).view(1, 601, -1, attention.head_dim).transpose(1, 2)
                      for proj in (attention.q_proj, attention.k_proj))
        query, key = apply_rotary_pos_emb(query, key, cos, sin)
        logits = attention.scaling * (query[0, 1, -1] @ key[0, 1].T).flip(0)    # by distance
        if number < 2:      # at the four vision tokens before a status token, or a question
            assert logits.argmax() in range(1, 6)
            assert logits[1:6].min() > logits[12:].max() + 2
        else:               # the nearer the better
            assert (logits[[0, 5, 10, 20, 50, 100, 300]].diff() < 0).all()
            assert logits[5] - logits[300] > 8


@torch.no_grad()
def test_the_first_heads_hand_on_words_and_find_them_anywhere_before_anything_is_learned():
    model = make_model(make_config(make_tokenizer()), 0)
    decoder = model.get_decoder()
    words = torch.nn.functional.rms_norm(decoder.embed_tokens.weight[:12].detach(), (128,))

    def of(*numbers):       # a token that holds some words, as the norm before attention leaves it
        return torch.nn.functional.rms_norm(words[list(numbers)].sum(0), (128,))

    first, last = decoder.layers[0].self_attn, decoder.layers[-1].self_attn
    size = first.head_dim
    handed = first.o_proj.weight[:, :size] @ (
        first.v_proj.weight[:size] @ (words[0] + words[1]) / 2)
    alike = torch.nn.functional.cosine_similarity(handed[None], words)
    assert alike[:2].min() > alike[2:].max() + .1

    cos, sin = decoder.rotary_emb(words, torch.arange(401)[None])
    for distance in (1, 20, 150, 400):
        logits = []
        for token in (of(0, 1, 2), of(0, 3, 2), of(4, 1, 5), of(6, 7, 8)):
            pair = torch.zeros(2, 401, size)
            pair[0, distance] = last.q_proj.weight[:size] @ of(0, 1, 9)
            pair[1, 0] = last.k_proj.weight[:size] @ token
            query, key = apply_rotary_pos_emb(pair[:1, None], pair[1:, None], cos, sin)
            logits.append(float(last.scaling * query[0, 0, distance] @ key[0, 0, 0]))
        assert logits[0] > max(logits[1:]) + 2      # both words, not one
        assert min(logits[1:3]) > logits[3]         # one word, not none


@pytest.mark.parametrize('memory', [0., .5])
def test_training_resumes_where_it_stopped(tmp_path, memory):
    tokenizer = make_tokenizer()
    writer = Writer(tokenizer.get_vocab(), 4)
    noise = torch.randn(4, 8, 4, 32, generator=torch.Generator().manual_seed(0))

    def trainer(work):
        model = make_model(make_config(tokenizer, SHAPE), 1)
        lesson = MemoryLesson(model, writer, noise_runs(4, 8, 0), noise,
                              [Phase(.5, (4,), 4), Phase(1.01, (8,), 4, .5)], (40,), words_mix)
        return lesson, Trainer('words', {'decoder': model.get_decoder()}, work, 0, 4, 1e-3,
                               torch.device('cpu'), memory)

    (tmp_path / 'whole').mkdir()
    lesson, whole = trainer(tmp_path / 'whole')
    step, after, checked = whole.step, [], []

    def weights():
        return whole.parameters[-1].detach().clone()

    whole.step = lambda lesson: (step(lesson), after.append(weights()))[0]
    whole.run(lesson, 4, lambda: checked.append(weights()))
    assert weights().equal(after[-1])
    mean = after[0]
    for one in after[1:]:
        mean = memory * mean + (1 - memory) * one
    torch.testing.assert_close(checked, [mean])
    lesson, torn = trainer(tmp_path)
    for _ in range(2):
        torn.step(lesson)
    torn.save()
    lesson, resumed = trainer(tmp_path)
    assert resumed.done == 2
    resumed.run(lesson, 4, lambda: False)
    assert whole.finished and resumed.finished
    for one, two in zip(whole.parameters, resumed.parameters, strict=True):
        assert torch.equal(one, two)
