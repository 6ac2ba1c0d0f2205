#!/usr/bin/env bash
# Makes web/dist: the npm package's files and the page, from a clean machine with Rust.
# Usage: web/build.sh [--thin] [VARIANT...]
# `--thin` compiles for tests: sooner done, larger and slower than what is published.
# Variants of the module: `plain` (SIMD, every browser), `relaxed` (relaxed SIMD), `threads` (both, with shared memory).
# The page takes the best that the browser has. `grammar` is a second module, for answers that are held to a format. IR_CONNECT="https://host ..." lets the page fetch models from there.
set -euo pipefail
cd "$(dirname "$0")"
profile=wasm
limit=900000 # bytes, gzipped
cold="'z'" # the inner loops' level of optimisation where nothing is computed: in the grammars' module
if [ "${1:-}" = --thin ]; then
    shift
    profile=wasm-thin
    limit=2000000 # says that no crate came in by accident; the size that counts is the published one
    cold=0
fi
variants=("$@")
[ $# -gt 0 ] || variants=(plain relaxed threads grammar)
target=wasm32-unknown-unknown
root=$PWD/..
dist=$PWD/dist
rustup_target=$(rustc --print sysroot)/lib/rustlib/$target/lib
linker=$(find "$(rustc --print sysroot)/lib/rustlib" -name rust-lld -path '*/bin/*' | head -n 1)

debian_rust() { # a compiler whose standard library can be built for the web
    if [ ! -x /usr/bin/rustc ] || [ ! -d /usr/lib/rustlib/src/rust/library ]; then
        echo "== installing rustc-web and rust-web-src"
        DEBIAN_FRONTEND=noninteractive apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rustc-web rust-web-src >/dev/null
    fi
}

flags() { # of a variant
    # Panics say what, not where: the places cost room, and name folders of the machine that builds.
    local remap="-Zlocation-detail=none --remap-path-prefix=$HOME=~ --remap-path-prefix=$(cd "$root" && pwd)=ir"
    case $1 in
    plain) echo "$remap -C target-feature=+simd128,+bulk-memory,+mutable-globals,+sign-ext,+nontrapping-fptoint" ;;
    relaxed) flags plain ;; # with what `compile` adds
    grammar) flags plain ;;
    threads)
        echo "$(flags plain),+relaxed-simd,+atomics -C link-arg=--shared-memory -C link-arg=--import-memory" \
            "-C link-arg=--max-memory=4294967296 -C link-arg=--export=__wasm_init_tls -C link-arg=--export=__tls_size" \
            "-C link-arg=--export=__tls_align -C link-arg=--export=__tls_base -C link-arg=--export=__heap_base"
        ;;
    *) echo "unknown variant $1" >&2 && exit 2 ;;
    esac
}

compile() { # VARIANT: leaves the module at $CARGO_TARGET_DIR/$target/$profile/ir_web.wasm
    local rust=$1 feature=engine crate
    [ "$rust" != grammar ] || feature=grammar
    # The threaded module shares no library with the others: apart, neither build throws the other's away.
    export CARGO_TARGET_DIR=$root/target/web
    [ "$rust" != threads ] || CARGO_TARGET_DIR+=-threads
    local arguments=(build --profile $profile --target $target -p ir-web --lib --manifest-path "$root/Cargo.toml")
    arguments+=(--no-default-features --features $feature)
    local lld=$CARGO_TARGET_DIR/wasm-ld
    # The relaxed module and the grammars' take the plain one's libraries: what is special goes to our own code only.
    case $rust in
    relaxed)
        arguments+=(-Zprofile-rustflags)
        for crate in ir-simd ir-web; do
            arguments+=(--config "profile.$profile.package.$crate.rustflags=['-Ctarget-feature=+relaxed-simd']")
        done
        ;;
    grammar) # its compiler recurses; the inner loops, where speed is the point, are not in it
        arguments+=(-Zprofile-rustflags --config "profile.$profile.package.ir-simd.opt-level=$cold")
        arguments+=(--config "profile.$profile.package.ir-web.rustflags=['-Clink-arg=-zstack-size=8388608']")
        ;;
    esac
    mkdir -p "$CARGO_TARGET_DIR"
    ln -sfn "$linker" "$lld"
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$lld
    if [ "$rust" != threads ] && [ -d "$rustup_target" ]; then
        RUSTC_BOOTSTRAP=1 RUSTFLAGS=$(flags "$rust") cargo "${arguments[@]}"
        return
    fi
    # The threaded module needs a standard library with atomics, which no toolchain ships.
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="$(flags "$rust") --remap-path-prefix=/usr/lib/rustlib/src=std" \
        cargo "${arguments[@]}" -Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size
}

glue() { # MODULE NAME: the JavaScript side, by a tool that has the version of wasm-bindgen that the module has
    local version
    version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/version = "\(.*\)"/\1/p}' "$root/Cargo.lock")
    grep -q "\"=$version\"" glue/Cargo.toml || {
        echo "web/glue/Cargo.toml must name wasm-bindgen-cli-support =$version, as Cargo.lock has it" >&2
        exit 1
    }
    env -u RUSTFLAGS CARGO_TARGET_DIR="$root/target/web-glue" \
        cargo run --quiet --manifest-path glue/Cargo.toml -- "$1" "$dist/wasm" "$2"
}

built() { # VARIANT: where its module is
    local folder=web
    [ "$1" != threads ] || folder=web-threads
    echo "$root/target/$folder/$target/$profile/ir_web-$1.wasm"
}

chain() { # VARIANT...: one after the other
    local variant start
    for variant in "$@"; do
        start=$SECONDS
        compile "$variant"
        cp "$CARGO_TARGET_DIR/$target/$profile/ir_web.wasm" "$(built "$variant")"
        echo "== module $variant: compiled in $((SECONDS - start)) s"
    done
}

rm -rf dist
mkdir -p dist/wasm dist/models
[ -d "$rustup_target" ] && [[ " ${variants[*]} " != *" threads "* ]] || debian_rust
# The last part of a build takes one core: the threaded module, which shares nothing with the others, is built beside them.
others=() jobs=()
for variant in "${variants[@]}"; do
    if [ "$variant" = threads ]; then chain threads & jobs+=($!); else others+=("$variant"); fi
done
chain "${others[@]}" & jobs+=($!)
failed=0
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
[ $failed = 0 ] || exit 1
over=0
for variant in "${variants[@]}"; do
    glue "$(built "$variant")" "ir_$variant"
    module=dist/wasm/ir_${variant}_bg.wasm
    bytes=$(wc -c <"$module")
    packed=$(gzip -9 -c "$module" | wc -c)
    echo "== module $variant: $bytes bytes, $packed gzipped (limit $limit)"
    [ "$packed" -le "$limit" ] || over=1
done
place() { # NAME: where a module's two files are
    echo "{ glue: () => import('./wasm/ir_$1.js'), wasm: new URL('./wasm/ir_$1_bg.wasm', import.meta.url) }"
}
{
    grammar=null
    echo "// Written by build.sh: the builds of the module that are here, and the second module."
    echo "export const VARIANTS = {"
    for variant in "${variants[@]}"; do
        if [ "$variant" = grammar ]; then grammar=$(place grammar); else echo "  $variant: $(place "$variant"),"; fi
    done
    echo "};"
    echo "export const GRAMMAR = $grammar;"
} >dist/variants.js
cp js/*.js js/*.d.ts dist/
cp page/* dist/
cp "$root/engine/models/ir-tiny/ir-tiny-q4_0.gguf" dist/models/ir-tiny.gguf
sed -i "s|connect-src 'self'|connect-src 'self'${IR_CONNECT:+ $IR_CONNECT}|" dist/index.html
if [ $over = 1 ]; then
    echo "a module is larger than $limit bytes gzipped" >&2
    exit 1
fi
du -sh dist
