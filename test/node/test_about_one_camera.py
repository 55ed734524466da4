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

"""What is asked about one of two cameras leaves no trace in the memory: a real session."""

from infmllm_ros.node.loading import open_session
from infmllm_ros.node.parameters import snapshot
from infmllm_ros.node.questions import Status
from infmllm_ros.node.worker import Worker
from safetensors.numpy import load_file
from stand_ins import ask, Listener, Node, show, TIMEOUT


class Once:
    """One watch of the left camera, asked of a real session."""

    def __init__(self):
        self.answers = []

    def due_in(self):
        return float('inf') if self.answers else 0.0

    def run(self, session, show, heard):
        seen, again = show('left')
        self.answers.append(session.answer('what?', remember=False, frame=again))


def test_a_question_or_watch_about_one_camera_leaves_the_memory_bit_for_bit(tiny, tmp_path):
    listener = Listener()

    def saved():
        worker.use('save', lambda session: session.save(tmp_path / 'memory')).result(TIMEOUT)
        return {name: tensor.tobytes() for name, tensor in load_file(tmp_path / 'memory').items()}

    settings = snapshot(Node(model=tiny, cameras=['front', 'left'], budget_tokens=160,
                             max_question_tokens=32, max_answer_tokens=4, chunk_tokens=32))
    worker = Worker(listener, cameras=settings.cameras)
    worker.load(lambda: open_session(settings, print)).result(TIMEOUT)
    worker.resume()
    for stamp, camera in enumerate(('left', 'front') * 6):
        show(worker, listener, camera, stamp, 20 * stamp)
    before = saved()
    about = [ask(worker, camera=camera, settings={'remember': False})
             for camera in ('left', 'front')]
    assert [listener.outcome(one).status for one in about] == [Status.OK] * 2
    seen = {one.camera: {(e.camera, e.stamp_ns): e.weight
                         for e in listener.outcome(one).answer.evidence} for one in about}
    assert seen['left']['left', 10] > seen['front']['left', 10]  # it was shown once more
    assert saved() == before
    watches = worker._watches = Once()
    show(worker, listener, 'front', 12, 9)
    listener.wait(lambda: watches.answers)
    assert ('left', 10) in [(e.camera, e.stamp_ns) for e in watches.answers[0].evidence]
    assert saved() != before  # a frame came
    assert worker._session.frames_seen == 13
    assert not listener.failures
    assert worker.stop(TIMEOUT)
