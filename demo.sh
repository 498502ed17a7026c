#!/bin/sh
# The main job on a sample shop of drawn photos: crawl, catalogue, build-dataset, train-model.
# `make demo` runs it; all its output is in demo-run/.
set -eu
LABELS=polo,dress,jeans,skirt,shorts,coat

rm -rf demo-run
mkdir demo-run
cd demo-run

say() { printf '\n$ %s\n' "$*"; "$@"; }

echo "Starting the sample shop: it draws its photos and serves them as lamoda.ru would."
sample-shop --url-file shop.url --seed 1 &
shop=$!
trap 'kill $shop 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
while [ ! -s shop.url ]; do
  kill -0 $shop 2>/dev/null || { echo "the sample shop did not start" >&2; exit 1; }
  sleep 0.2
done
url=$(cat shop.url)

say crawl lamoda --tags "$LABELS" --site-url "$url" --image-url "$url"
say catalogue stats --min-per-class 50
say build-dataset --min-per-class 50

# The ImageNet weights come from Keras' cache or the internet; the demo must also work without them.
if ! say train-model --weights imagenet --out runs/demo; then
  echo
  echo "Without the ImageNet weights, the demo trains the whole network from scratch (--weights none):"
  echo "a few minutes on small photos. Expect accuracy well above chance and far below a real training."
  say train-model --weights none --image-size 75 --batch-size 16 --epochs 16 --out runs/demo
fi

echo
echo "Done. Look at:"
echo "  demo-run/splits/README.md          the data set card, with contact sheets"
echo "  demo-run/runs/demo/report.html     the evaluation, with the most confident mistakes as photos"
echo "  demo-run/runs/demo/curves.png      loss and accuracy per epoch"
echo "  demo-run/runs/demo/metrics.json    all metrics"
echo "  demo-run/runs/demo/model.keras     the model; it takes raw photos"
