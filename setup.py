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

from glob import glob

from setuptools import find_packages, setup

package_name = 'infmllm_ros'

setup(
    name=package_name,
    version='0.1.0',
    # Named, because colcon's build/ and install/ may lie beside this file.
    packages=find_packages(include=[package_name, f'{package_name}.*']),
    package_data={package_name: ['bundled/model/*', 'replay/report/pages/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{package_name}']),
        (f'share/{package_name}', ['package.xml']),
        (f'share/{package_name}/config', sorted(glob('config/*'))),
        (f'share/{package_name}/launch', sorted(glob('launch/*.py'))),
    ],
    python_requires='>=3.10',
    install_requires=[
        'setuptools',
        'jinja2',
        'numpy',
        'pillow',
        'pyyaml',
        'torch',
        'transformers>=5.18,<6',
    ],
    extras_require={
        'big': ['accelerate'],  # models on several devices, or over several processes
        'cluster': ['ray>=2.40,<3'],  # many replays at once
        'replay': ['opencv-python-headless', 'rosbags>=0.11,<0.12'],
        'schema': ['jsonschema', 'llguidance'],
        'test': ['hypothesis', 'pytest'],  # colcon test runs pytest because it is named here
    },
    zip_safe=False,
    maintainer='The infmllm_ros authors',
    maintainer_email='maintainers@infmllm-ros.example',
    description='A multimodal language model with a bounded memory, as a ROS 2 node.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'infmllm_node = infmllm_ros.node.__main__:main',
            'check = infmllm_ros.engine.check:main',
            'demo = infmllm_ros.demo:main',
            'player = infmllm_ros.replay.player:main',
            'replay = infmllm_ros.replay.__main__:main',
            'replay_compare = infmllm_ros.replay.compare:main',
        ],
    },
)
