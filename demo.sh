#!/bin/sh
# The main job on a sample shop of drawn photos, 4 % of them under a wrong hashtag: crawl,
# build-dataset, train-model, check-tags, find-similar. `make demo` runs it; all its output is in
# demo-run/.
set -eu
LABELS=polo,dress,jeans,skirt,shorts,coat

rm -rf demo-run
mkdir demo-run
cd demo-run

say() { printf '\n$ %s\n' "$*"; "$@"; }

echo "Starting the sample shop: it draws its photos and serves them as lamoda.ru would."
sample-shop --url-file shop.url --seed 1 --per-label 60 --wrong-tagged 0.04 \
  --wrong-tagged-file wrong.csv >shop.log &
shop=$!
trap 'kill $shop 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
while [ ! -s shop.url ]; do
  kill -0 $shop 2>/dev/null || { echo "the sample shop did not start" >&2; exit 1; }
  sleep 0.2
done
url=$(cat shop.url)

say crawl lamoda --tags "$LABELS" --site-url "$url" --image-url "$url"
# A tenth of these photos would be too few for a useful test. Without --no-tta, check-tags would
# process each photo twice.
say build-dataset --min-per-class 50 --splits 60,15,25
say train-model --weights garments --fine-tune 0 --no-tta --out runs/demo
say check-tags --model runs/demo
say find-similar --build --model runs/demo
# The pair of jeans whose tag is most certainly right.
query=$(awk -F , '$3 == "jeans" { id = $1 } END { print id }' checked/checked.csv)
say find-similar "$query" --html similar.html

# The shop knows which products it listed under a wrong hashtag; the other commands do not.
sed 1d wrong.csv | cut -d , -f 1 >wrong-skus.txt
planted=$(grep -c -F -f wrong-skus.txt checked/checked.csv || true)
reported=$(grep -c ',mistake,' checked/checked.csv || true)
found=$(grep ',mistake,' checked/checked.csv | grep -c -F -f wrong-skus.txt || true)

echo
echo "check-tags reported $reported photos; $found of them are among the $planted that the shop listed under a wrong hashtag."
echo "Open in a browser:"
echo "  demo-run/splits/report.html        the data set: photos per label, what was excluded and why"
echo "  demo-run/runs/demo/report.html     the model: accuracy per label, confusion matrix, most confident mistakes"
echo "  demo-run/checked/report.html       products whose photo shows something else than their hashtag"
echo "  demo-run/similar.html              items that look like a pair of jeans of the shop"
echo "Decide on the findings in a browser, then build again:  cd demo-run && review"
