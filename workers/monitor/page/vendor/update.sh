#!/usr/bin/env bash
# Fetches Preact and htm from npm again: update.sh PREACT_VERSION HTM_VERSION. The one change to them: a browser
# resolves "preact" only through an import map, which would be an inline script, so hooks.js names its neighbour.
set -euo pipefail
cd "$(dirname "$0")"
preact=$1 htm=$2 folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
for package in "preact@$preact" "htm@$htm"; do
    mkdir "$folder/${package%@*}"
    tar xz --strip-components 1 -C "$folder/${package%@*}" -f <(cd "$folder" && cat "$(npm pack --silent "$package")")
done
drop_map='/^\/\/# sourceMappingURL=/d'
sed "$drop_map" "$folder/preact/dist/preact.mjs" > preact.js
sed -E "$drop_map; s/from ?\"preact\"/from\".\/preact.js\"/" "$folder/preact/hooks/dist/hooks.mjs" > hooks.js
sed "$drop_map" "$folder/htm/dist/htm.mjs" > htm.js
cp "$folder/preact/LICENSE" LICENSE-preact
cp "$folder/htm/LICENSE" LICENSE-htm
sed -i -E "s/preact [0-9.]+[0-9]/preact $preact/; s/htm [0-9.]+[0-9]/htm $htm/" README.md
