# make setup                 everything into .venv, once
# make test                  set up, then run all tests
# make demo [INPUT=video]    set up, then play a video (avi, mp4) or a bag into the node
# make lint                  set up, then check the style only
# make docs                  set up, then build the documentation as a site, its links checked
# make browser               install a browser for the tests of pages, from Debian's packages
# make clean                 remove what the above made
#
# PYTHON=python3.12          another interpreter (3.10 to 3.13)
# TORCH=torch==2.12.1      another version of torch, or the path of a wheel
#
# Without ROS 2, its wheels come from PyPI.  With a ROS 2 distribution sourced, that one
# is used: .venv then sees the system's Python packages.

PYTHON ?= python3
TORCH ?= torch==2.13.0
INPUT ?=

VENV := $(CURDIR)/.venv
DONE := $(VENV)/.done
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --no-compile

# Bytecode is written as it is needed, once: pip compiles none, and each test of the node is a
# process that imports torch.  Beside wheels the environment is an ament prefix by itself; after cmake's own
# install the loader must be told as well.
RUN := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= AMENT_PREFIX_PATH='$(VENV)$(if $(ROS_DISTRO),:$(AMENT_PREFIX_PATH))'
ifdef ROS_DISTRO
RUN += LD_LIBRARY_PATH='$(VENV)/lib:$(LD_LIBRARY_PATH)'
endif

# The messages compile while torch is unpacked.
MAKEFLAGS += -j2

.PHONY: setup browser test demo lint docs clean
.DELETE_ON_ERROR:

setup: $(DONE)/package $(DONE)/msgs

test: setup $(if $(CI),browser)
	@# three on two cores: tests of the node wait for other processes about half of their time
	$(RUN) $(VENV)/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --timeout 300

# Pages are looked at in a browser, where there is one. A CI machine gets Debian's, if it may.
browser:
	@$(PYTHON) test/replay/browser.py --find || { \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
	  apt-get -qq install --no-install-recommends chromium-headless-shell >/dev/null; } || \
	  echo 'No browser could be installed: tests that need one skip'

lint: setup
	$(RUN) $(VENV)/bin/python -m pytest -m linter test/test_*.py

demo: setup
	$(RUN) $(VENV)/bin/python -m infmllm_ros.demo $(if $(INPUT),'$(INPUT)')

docs: $(DONE)/docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

$(DONE)/docs: requirements-docs.txt | $(DONE)/venv
	$(INSTALL) -r requirements-docs.txt
	@touch $@

clean:
	rm -rf .venv build install log *.egg-info .pytest_cache .ruff_cache .hypothesis

$(DONE)/venv:
ifdef ROS_DISTRO
	@$(PYTHON) -c 'import rclpy' || { echo \
	  "ROS $(ROS_DISTRO) is sourced, but $(PYTHON) is not its Python: say PYTHON=/usr/bin/python3"; exit 1; }
endif
	@echo 'Setting up .venv, once: 1.8 GB, most of it torch, in some minutes without a word'
	$(PYTHON) -m venv --clear $(if $(ROS_DISTRO),--system-site-packages) $(VENV)
	@mkdir -p $(DONE) && touch $@

# First and alone: what comes later then finds it there and takes no other build.
$(DONE)/torch: | $(DONE)/venv
	$(INSTALL) $(TORCH)
	@touch $@

REQUIREMENTS := requirements.txt requirements-dev.txt $(if $(ROS_DISTRO),,requirements-ros.txt)
$(DONE)/requirements: $(REQUIREMENTS) $(DONE)/torch
	$(INSTALL) $(REQUIREMENTS:%=-r %)
	@touch $@

# The package itself, editable, and links where ROS looks for its files and its commands: to files,
# because `ros2 launch` does not look into linked folders.
SHARE := $(VENV)/share
FILES := $(wildcard config/* launch/*.py)
$(DONE)/package: setup.py setup.cfg package.xml $(FILES) $(DONE)/requirements
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@rm -rf $(SHARE)/infmllm_ros
	@mkdir -p $(addprefix $(SHARE)/,infmllm_ros/config infmllm_ros/launch ament_index/resource_index/packages) \
	  $(VENV)/lib/infmllm_ros
	@$(foreach file,package.xml $(FILES),ln -s $(CURDIR)/$(file) $(SHARE)/infmllm_ros/$(file);)
	@ln -sf $(CURDIR)/resource/infmllm_ros $(SHARE)/ament_index/resource_index/packages
	@ln -sf $(addprefix ../../bin/,infmllm_node check demo player replay replay_compare) $(VENV)/lib/infmllm_ros
	@touch $@

MSGS := $(wildcard infmllm_msgs/* infmllm_msgs/*/*)
ifdef ROS_DISTRO
$(DONE)/msgs: $(MSGS) | $(DONE)/venv
	cmake -S infmllm_msgs -B $(VENV)/build -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Release \
	  -DCMAKE_PREFIX_PATH='$(subst :,;,$(AMENT_PREFIX_PATH))' -DCMAKE_INSTALL_PREFIX=$(VENV) \
	  -DPython3_EXECUTABLE=$(VENV)/bin/python
	cmake --build $(VENV)/build --parallel 2
	cmake --install $(VENV)/build
	@touch $@
else
$(DONE)/msgs-wheel: $(MSGS) | $(DONE)/venv
	$(PIP) wheel --no-deps --wheel-dir $(VENV)/wheels ./infmllm_msgs
	@touch $@

$(DONE)/msgs: $(DONE)/msgs-wheel $(DONE)/requirements
	$(INSTALL) --no-deps --force-reinstall $(VENV)/wheels/infmllm_msgs-*.whl
	@touch $@
endif
