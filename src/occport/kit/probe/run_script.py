"""The shell loop that goes with the probes to wherever the compiler is: plain POSIX sh, no Python."""

from __future__ import annotations

RUN_SCRIPT = r"""#!/bin/sh
# Runs your own compile-and-run command on every probe in this folder, and keeps what comes of it.
#
#   CMD='mycompiler --model {model} --inputs {inputs} --outputs {outputs}' sh run.sh [NAME...]
#
# {model}    DIR/NAME/model.onnx
# {inputs}   DIR/NAME, where input_<i>_<port>.npy and .bin are (.bin: the same values, little-endian, row by row)
# {outputs}  DIR/NAME/result, where output_<i>.npy or output_<i>.bin may be written, i = 0, 1, ... in the order of the graph's outputs
# {name}     NAME
#
# Exit status 0 says that the probe was taken. Without outputs it counts as compiled only, which is an answer too.
# Each probe leaves result/status and result/log.txt. What is done is skipped; FORCE=1 does it again. TIMEOUT=600 gives each command
# 600 seconds, where there is a `timeout` command. Names as arguments run these probes only.

set -u
here=$(cd "$(dirname "$0")" && pwd) || exit 2
if [ -z "${CMD:-}" ]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    exit 2
fi
# Placeholders become variables, so that no character in a path can break the command; quotes around them would only get in the way.
line=$CMD
for word in model inputs outputs name; do
    variable=PROBE_$(echo "$word" | tr '[:lower:]' '[:upper:]')
    line=$(printf '%s\n' "$line" | sed -e "s/[\"']{$word}[\"']/{$word}/g" -e "s/{$word}/\"\$$variable\"/g")
done
export PROBE_MODEL PROBE_INPUTS PROBE_OUTPUTS PROBE_NAME
limit=
if [ -n "${TIMEOUT:-}" ] && command -v timeout >/dev/null 2>&1; then
    limit="timeout $TIMEOUT"
fi
trap 'echo; echo "stopped; run it again to go on"; exit 130' INT TERM

if [ $# -eq 0 ]; then
    for model in "$here"/*/model.onnx; do
        folder=${model%/model.onnx}
        set -- "$@" "${folder##*/}"
    done
fi
number=0
taken=0
for name in "$@"; do
    number=$((number + 1))
    folder=$here/$name
    result=$folder/result
    if [ ! -f "$folder/model.onnx" ]; then
        echo "$name: no such probe" >&2
        exit 2
    fi
    if [ -f "$result/status" ] && [ -z "${FORCE:-}" ]; then
        status=$(cat "$result/status")
        word=kept
    else
        rm -rf "$result"
        mkdir "$result" || exit 2
        PROBE_MODEL=$folder/model.onnx PROBE_INPUTS=$folder PROBE_OUTPUTS=$result PROBE_NAME=$name
        $limit sh -c "$line" >"$result/log.txt" 2>&1 </dev/null
        status=$?
        # the status comes last and as a whole: a probe that was broken off has none and is done again
        echo "$status" >"$result/status.part" && mv "$result/status.part" "$result/status" || exit 2
        word=done
    fi
    [ "$status" = 0 ] && taken=$((taken + 1))
    echo "[$number/$#] $name: exit status $status ($word)"
done
echo "$taken of $# probes were taken; now: occport probe --results $here"
"""
