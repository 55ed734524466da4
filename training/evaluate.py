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
How right the answers of a model folder are, through the engine, on unseen scenes.

``python -m training.evaluate FOLDER --frames 400 --budget 128``: a few streams of each world; told
facts are given at the start, in the middle (overwriting some) and asked at the end; the others
are asked all along. Every policy is asked the same questions.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
import random
from typing import Any

from infmllm_ros.bundled.scenes import Episode, KEYS, Question
from infmllm_ros.engine import load_model, make_policy, StreamingSession

POLICIES: dict[str, dict[str, Any]] = {
    'saddle': {'window': 'marker', 'scope': 'all', 'reduce': 'mean', 'bias': .002},
    'streaming_llm': {},
}
FIRST_SEED = 2_000_000  # training draws its seeds below


@dataclass(frozen=True)
class Plan:
    """
    An evaluation.

    Parameters
    ----------
    frames : int
        Of each stream.
    streams : int
        Of each world.
    every : int
        Frames between two moments of asking.
    facts : int
        Facts told at the start; a third of them are overwritten in the middle, and as many new
        ones told.
    pace : float
        Of the scenes.
    """

    frames: int = 400
    streams: int = 4
    every: int = 5
    facts: int = 4
    pace: float = 1.


def ask(session: StreamingSession, text: str, answer: str) -> bool:
    """Ask; whether the answer is right, word for word."""
    return session.answer(text, max_tokens=4).text.strip() == answer


def stream(session: StreamingSession, episode: Episode, plan: Plan, seed: int,
           ) -> Iterable[tuple[str, str, int | None, bool]]:
    """Run one stream: kind, topic, age in frames, right or wrong of every question."""
    dice = random.Random(seed)
    keys = dice.sample(sorted(KEYS), plan.facts + plan.facts // 3)
    early, late = keys[:plan.facts], keys[plan.facts:]
    again, new = early[0], early[1:1 + plan.facts // 3]

    def tell(names: Iterable[str]) -> None:
        for key in names:
            session.tell(episode.tell(key, dice.choice(KEYS[key])).text)

    def told(kind: str, name: str) -> tuple[str, str, int | None, bool] | None:
        for question in episode.questions(('told', 'again')):
            if question.name == f'told:{name}':
                if kind == 'again':
                    episode.note(question)
                right = ask(session, question.text, question.answer)
                return kind, 'told', question.age_frames, right
        return None

    for step in (next(episode) for _ in range(plan.frames)):
        session.observe(step.frame, step.ordinal * 10**9)
        if step.ordinal == 2:
            tell(early)
        if step.ordinal == plan.frames // 2:
            tell([*new, *late])
        if step.ordinal > 3 and step.ordinal % plan.every == 0:
            for kind in ('now', 'back', 'no'):
                question: Question | None = episode.ask((kind,))
                if question is not None:
                    right = ask(session, question.text, question.answer)
                    yield kind, question.topic, question.age_frames, right
        if step.ordinal > 3 and step.ordinal % 50 == 0:
            asked = told('again', again)
            if asked is not None:
                yield asked
    for name in early[1:] + late:
        place = 'late' if name in late else 'new' if name in new else 'told'
        asked = told(place, name)
        if asked is not None:
            yield asked


def evaluate(folder: str, plan: Plan, budget: int, policies: Iterable[str] = POLICIES,
             fields: dict[str, Any] | None = None) -> dict[str, dict[str, list[bool]]]:
    """
    Evaluate a model folder.

    Returns
    -------
    dict
        Policy -> kind, and ``kind:topic`` -> right or wrong of each question. Kinds are those of
        the scenes, with 'told' (told at the start, silent since), 'new' (overwritten in the
        middle), 'late' (told in the middle).
    """
    model = load_model(folder)
    results = {}
    for name in policies:
        found = results[name] = defaultdict(list)
        for seed in range(FIRST_SEED, FIRST_SEED + plan.streams):
            for kind in ('drive', 'bench'):
                own = {**POLICIES[name], **(fields or {})} if name == 'saddle' else POLICIES[name]
                session = StreamingSession(
                    model, make_policy(name, budget=budget, **own),
                    max_question=16, max_answer=8, chunk=16)
                episode = Episode(kind, seed, pace=plan.pace, keys=0)
                for label, topic, _, right in stream(session, episode, plan, seed):
                    found[label].append(right)
                    found[f'{label}:{kind}:{topic}'].append(right)
    return results


def main() -> None:
    """Read the command line, print a table."""
    parser = argparse.ArgumentParser(description='Evaluate a model on unseen scenes.')
    parser.add_argument('folder')
    parser.add_argument('--frames', type=int, default=400)
    parser.add_argument('--streams', type=int, default=4, help='of each world')
    parser.add_argument('--budget', type=int, default=128, help='tokens a layer may keep')
    parser.add_argument('--discount', type=float, default=0.)
    parser.add_argument('--pace', type=float, default=1.)
    parser.add_argument('--topics', action='store_true', help='also by topic')
    options = parser.parse_args()
    plan = Plan(options.frames, options.streams, pace=options.pace)
    results = evaluate(options.folder, plan, options.budget,
                       fields={'discount': options.discount})
    print(f'{options.frames} frames, budget {options.budget} tokens, '
          f'{2 * options.streams} streams')
    for name, found in results.items():
        for label, rights in sorted(found.items(), key=lambda item: (':' in item[0], item[0])):
            if ':' not in label or options.topics:
                print(f'{name:14} {label:28} {sum(rights) / len(rights):.3f}  n={len(rights)}')


if __name__ == '__main__':
    main()
