#!/usr/bin/env bash
# Make the page's bundles again, after a version in package.json was changed. The product itself has no build step.
#
#     docs/page_vendor/build.sh          # needs npm; writes trace_dagster/service/page/vendor
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
vendor=$here/../../trace_dagster/service/page/vendor
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp "$here/package.json" "$here/codemirror.js" "$work"
cd "$work"
npm install --no-audit --no-fund --no-package-lock --ignore-scripts
bundle() { node_modules/.bin/esbuild "$1" --bundle --minify --format=esm --target=es2022 --charset=utf8 --legal-comments=none --outfile="$vendor/$2"; }
bundle codemirror.js codemirror.js
bundle node_modules/uplot/dist/uPlot.esm.js uplot.js
cp node_modules/uplot/dist/uPlot.min.css "$vendor/uplot.css"

# Each package that is in a bundle, with its version and its license.
for folder in node_modules/@codemirror/{autocomplete,commands,lang-sql,language,search,state,view} \
  node_modules/@lezer/{common,highlight,lr} node_modules/@marijn/find-cluster-break \
  node_modules/{crelt,style-mod,w3c-keyname,uplot}; do
  [ -d "$folder" ] || continue
  node -p "const p = require('./$folder/package.json'); p.name + ' ' + p.version"
  echo
  cat "$folder"/LICENSE*
  echo
done > "$vendor/LICENSES.txt"
