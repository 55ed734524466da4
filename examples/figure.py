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

"""
Draw how long each policy remembers a told fact: ``python examples/figure.py [OUT.png]``.

The engine without ROS, in cells as in a notebook (``# %%``): a small version of the figure in
docs/memory_exam.md. Needs matplotlib; takes a minute or two.
"""

# %% Settings: the bundled model, whose answers are right or wrong, and three policies.
import argparse
from collections import defaultdict
from itertools import islice

from infmllm_ros.bundled import MODEL, MODEL_BUDGET, MODEL_POLICY
from infmllm_ros.bundled.scenes import Episode
from infmllm_ros.engine import load_model, make_policy, StreamingModel, StreamingSession

FRAME_TOKENS = 5  # of the bundled model
POLICIES = {
    'saddle': MODEL_POLICY,
    'streaming_llm': {},
    'recent_frames': {'frames': MODEL_BUDGET // FRAME_TOKENS},
}
AGES = (5, 20, 35, 50, 100, 200)  # [frames] since the fact was told
FACTS = (('target', 'red cube'), ('code', 'seven'), ('operator', 'anna'), ('base', 'garage'))


# %% One stream: tell four facts, watch on, and ask for them again at each age.
def recall(model: StreamingModel, policy: str, seed: int, ages: tuple[int, ...] = AGES,
           ) -> dict[int, float]:
    """Return the share of facts that are known at each age; answers leave no trace."""
    session = StreamingSession(
        model, make_policy(policy, budget=MODEL_BUDGET, **POLICIES[policy]),
        max_question=32, max_answer=8)
    episode, shares = Episode('drive', seed, keys=0), {}
    for step in islice(episode, 10):
        session.observe(step.frame, step.ordinal * 10**9)
    facts = [episode.tell(key, value) for key, value in FACTS]
    for fact in facts:
        session.tell(fact.text)
    for age in range(1, max(ages) + 1):
        step = next(episode)
        session.observe(step.frame, step.ordinal * 10**9)
        if age in ages:
            right = [session.answer(f'what is the {fact.key}').text.strip() == fact.value
                     for fact in facts]
            shares[age] = sum(right) / len(right)
    return shares


# %% All policies over several streams.
def run(seeds: range, ages: tuple[int, ...] = AGES) -> dict[str, dict[int, float]]:
    """Average over streams; seeds from 2,000,000 on are of scenes that were not trained on."""
    model, means = load_model(MODEL, device='cpu'), {}
    for policy in POLICIES:
        found = defaultdict(list)
        for seed in seeds:
            for age, share in recall(model, policy, seed, ages).items():
                found[age].append(share)
        means[policy] = {age: sum(shares) / len(shares) for age, shares in found.items()}
        print(f'{policy:14}', '  '.join(f'{age}: {mean:.2f}' for age, mean in
                                        means[policy].items()), flush=True)
    return means


# %% The figure.
def draw(means: dict[str, dict[int, float]], path: str) -> None:
    """Draw a line for each policy."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(5, 3.4), layout='constrained')
    axes = figure.subplots()
    for policy, shares in means.items():
        axes.plot(list(shares), list(shares.values()), 'o-', label=policy)
    axes.axvline(MODEL_BUDGET / FRAME_TOKENS, color='.7', ls=':')
    axes.set(xscale='log', ylim=(-.03, 1.03), xlabel='frames since the fact was told',
             ylabel='right answers')
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('out', nargs='?', default='recall.png')
    parser.add_argument('--streams', type=int, default=3)
    arguments = parser.parse_args()
    draw(run(range(2_000_000, 2_000_000 + arguments.streams)), arguments.out)
