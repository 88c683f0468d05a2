#!/usr/bin/env bash
# Takes the benchmarks to a machine that has a GPU, Python 3.12, torch, transformers, accelerate and peft, and no network.
#
#   benchmarks/gpu.sh pack FOLDER                 here: wheels of what such a machine lacks, rows and a tokenizer
#   benchmarks/gpu.sh run FOLDER OUT [OPTION...]  there, from this repository: all benchmarks, figures and logs into OUT
#
# ROWS and TOKENIZER name other raw rows (JSON lines) and another tokenizer's folder to pack. Without any, the generated
# rows and the tokenizer that come with the package are used. OPTION: those of `python -m benchmarks.gpu`.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
SECONDS_IN_ALL=${SECONDS_IN_ALL:-530}
# What the package and its tests import beyond torch, transformers, accelerate, peft, pytest and what those need.
LACKING="asttokens comm datasets datasketch debugpy dill evaluate executing fastjsonschema gguf ipykernel ipython
ipython-pygments-lexers ipywidgets jedi jiwer jsonschema jsonschema-specifications jupyter-client jupyter-core
jupyterlab-widgets kagglehub kagglesdk liger-kernel matplotlib-inline multiprocess nbclient nbformat nest-asyncio2
papermill entrypoints parso pexpect platformdirs prompt-toolkit ptyprocess pure-eval pyzmq rapidfuzz referencing rpds-py
stack-data tenacity tornado traitlets trl wcwidth widgetsnbextension xxhash"

pack() {
    local folder=$1 platforms=() platform
    for platform in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux_2_12 manylinux1; do
        platforms+=(--platform "${platform}_x86_64")
    done
    mkdir -p "$folder/wheels"
    # shellcheck disable=SC2086
    "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version 3.12 --implementation cp "${platforms[@]}" \
        --constraint constraints.txt --dest "$folder/wheels" $LACKING
    local rows=${ROWS:-../shared/data/dev.jsonl} tokenizer=${TOKENIZER:-../shared/data/tokenizer}
    if [ -f "$rows" ]; then
        shuf -n 1500 --random-source=<(yes) "$rows" >"$folder/rows.jsonl"
    fi
    if [ -d "$tokenizer" ]; then
        rm -rf "$folder/tokenizer"
        cp -rL "$tokenizer" "$folder/tokenizer"
    fi
    echo "$(ls "$folder/wheels" | wc -l) wheels, $(du -sm "$folder" | cut -f1) MB in all: $(ls "$folder" | tr '\n' ' ')"
}

run() {
    local folder out
    folder=$(cd "$1" && pwd)
    mkdir -p "$2"
    out=$(cd "$2" && pwd)
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    if compgen -G "$folder/wheels/*.whl" >/dev/null; then
        "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
            --target "$site" "$folder"/wheels/*.whl
    fi
    echo "packages are installed after $SECONDS s"
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "nvidia-smi says nothing"
    local code=0
    PYTHONPATH=$site:$PWD timeout --kill-after=10 "$SECONDS_IN_ALL" "$PYTHON" -u -m benchmarks.gpu "$out" \
        --data "$folder/rows.jsonl" --tokenizer "$folder/tokenizer" "${@:3}" 2> >(tee "$out/errors.log" >&2) || code=$?
    echo "ended with $code after $SECONDS s; in $out: $(ls "$out" | tr '\n' ' ')"
    return "$code"
}

case "${1:-} $#" in
"pack 2") pack "$2" ;;
"run "[3-9]* | "run "[1-9][0-9]) run "${@:2}" ;;
*) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
