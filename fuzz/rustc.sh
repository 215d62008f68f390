#!/bin/sh
# cargo calls this in place of rustc for the crates of this workspace (RUSTC_WORKSPACE_WRAPPER): those that are fuzzed tell libFuzzer
# which way an input takes through them.
case " $* " in
*" --crate-name svc_common "* | *" --crate-name svc_tests "*)
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$@" ;;
esac
