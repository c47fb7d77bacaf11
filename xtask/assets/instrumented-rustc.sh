#!/bin/sh
# Cargo runs this in place of rustc, for our own crates only, when `cargo xtask fuzz` builds. What it adds makes libFuzzer
# see which parts of them an input reaches and what numbers are compared in them; the stable compiler takes all of it.
# A build script is a program of its own, which libFuzzer is no part of.
case " $* " in
    *" --crate-name build_script_build "*) exec "$@" ;;
esac
exec "$@" \
    --cfg fuzzing \
    -Ccodegen-units=1 \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
