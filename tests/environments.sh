#!/usr/bin/env bash
# Checks in environments of their own, under the folder $MEC_JAX_TEMPORARY: `wheel`; `device`, a Python that has mec_jax,
# another one and its NumPy; or a Python and the marks of the tests to run on it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
folder=${MEC_JAX_TEMPORARY:-$(mktemp -d)}

# The first interpreter of this name that starts: pyenv's shim does not, in a folder whose .python-version is another.
interpreter() {
    local found
    for found in "$(command -v "$1")" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/"$1"; do
        "$found" -c "" 2>/dev/null && echo "$found" && return
    done
    echo "no $1 here: install it" >&2
    return 1
}

wheel() {
    python3 -m venv "$folder/bare"
    "$folder/bare/bin/pip" wheel -q --no-deps -w "$folder" .
    "$folder/bare/bin/pip" install -q -c constraints.txt numpy
    "$folder/bare/bin/pip" install -q --no-deps "$folder"/*.whl
    cd "$folder" # away from the sources
    bare/bin/python - "$root"/tests/data/baseline/mahppo_state_MultiUEOffloading-v0.npz <<'PY'
import sys
import numpy as np
from mec_jax.policy import load_policy

policy = load_policy(sys.argv[1])
print(policy.act(np.zeros(policy.metadata["observation"]["size"], np.float32)))
assert "jax" not in sys.modules and "wrapt" not in sys.modules
PY
    bare/bin/pip install -q -c "$root"/constraints.txt ./*.whl
    export XDG_CACHE_HOME=$folder/cache # not the user's
    bare/bin/mec-jax list
    bare/bin/mec-jax train ppo --env CartPole-v1 --config.num-frames 2048 --config.num-envs 8 \
        --config.updates-per-chunk 1 --out run
    bare/bin/mec-jax evaluate run/policy.npz --episodes 4
}

# What a device needs, copied from here, reads and decides as here.
device() {
    local python
    python=$(interpreter "$2")
    mkdir "$folder/copy"
    "$1" -m tests.on_device "$folder/copy"
    "$python" -m venv "$folder/device"
    "$folder/device/bin/pip" install -q --disable-pip-version-check "$3"
    cd "$folder/copy" # away from the sources
    ../device/bin/python on_device.py
}

tests_on() {
    local python
    python=$(interpreter "$1")
    "$python" -m venv "$folder/other"
    "$folder/other/bin/pip" install -q -c constraints.txt -e '.[test]'
    "$folder/other/bin/python" -m pytest -m "$2"
}

case $1 in
wheel) wheel ;;
device) device "$2" "$3" "$4" ;;
*) tests_on "$1" "$2" ;;
esac
