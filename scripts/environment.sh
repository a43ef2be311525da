# Sourced by the scripts that people start: makes .venv from any Python 3.11 or newer, and installs evomerge into it.
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu spares machines without a GPU the CUDA libraries.

find_python() {
    for name in python3.11 python3.12 python3.13 python3 python; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    echo "evomerge needs Python 3.11 or newer with venv on the PATH, and there is none here; install it" \
        "(Debian, Ubuntu: apt-get install python3 python3-venv) and try again" >&2
    return 1
}

# environment EXTRAS: leaves $python pointing into .venv, with evomerge and these extras installed.
environment() {
    local stamp=".venv/installed$1" wanted
    wanted=$(cat pyproject.toml constraints.txt | cksum)
    if [ ! -x .venv/bin/python ]; then
        local found
        found=$(find_python) || exit 1
        echo "making .venv with $found"
        "$found" -m venv .venv
    fi
    python=.venv/bin/python
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "installing evomerge$1 into .venv (some minutes the first time)"
        "$python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".$1"
        echo "$wanted" >"$stamp"
    fi
}
