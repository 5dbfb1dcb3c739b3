#!/usr/bin/env bash
# Checks in environments of their own, under the folder $MEC_JAX_TEMPORARY: `wheel`, or a Python to run the fast tests on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${MEC_JAX_TEMPORARY:-$(mktemp -d)}

if [ "$1" = wheel ]; then
    python=.venv/bin/python
    [ -x "$python" ] || python=$(command -v python3)
    "$python" -m pip wheel -q --no-deps -w "$folder" .
    "$python" -m venv "$folder/bare" && "$folder/bare/bin/pip" install -q -c constraints.txt numpy
    "$folder/bare/bin/pip" install -q --no-deps "$folder"/*.whl
    cd "$folder"
    bare/bin/python - "$OLDPWD"/tests/data/baseline/mahppo_state_MultiUEOffloading-v0.npz <<'PY'
import sys
import numpy as np
from mec_jax.policy import load_policy

policy = load_policy(sys.argv[1])
print(policy.act(np.zeros(policy.metadata["observation"]["size"], np.float32)))
assert "jax" not in sys.modules and "wrapt" not in sys.modules
PY
    bare/bin/pip install -q -c "$OLDPWD"/constraints.txt ./*.whl
    bare/bin/mec-jax list
    bare/bin/mec-jax train ppo --env CartPole-v1 --config.num-frames 2048 --config.num-envs 8 \
        --config.updates-per-chunk 1 --out run
    bare/bin/mec-jax evaluate run/policy.npz --episodes 4
else
    # pyenv has it beside the version of .python-version.
    python=$(PYENV_VERSION=$(ls "${PYENV_ROOT:-$HOME/.pyenv}/versions" 2>/dev/null | grep "^${1#python}" | tail -n 1) command -v "$1") ||
        { echo "no $1 here: install it" >&2; exit 1; }
    export PYENV_VERSION
    PYENV_VERSION=$(ls "${PYENV_ROOT:-$HOME/.pyenv}/versions" 2>/dev/null | grep "^${1#python}" | tail -n 1)
    "$python" -m venv "$folder/other"
    unset PYENV_VERSION
    "$folder/other/bin/pip" install -q -c constraints.txt -e '.[test]'
    "$folder/other/bin/python" -m pytest -m "not slow and not full"
fi
