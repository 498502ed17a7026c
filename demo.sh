#!/bin/sh
# The whole way on a shop of drawn photos: crawl -> catalogue -> build-dataset -> train-model.
# `make demo` runs it; everything it makes is in demo-run/.
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

# The trunk's ImageNet weights are in Keras' cache or come from the internet; a demo has to do without.
if ! say train-model --weights imagenet --out runs/demo; then
  echo
  echo "Without the ImageNet weights the demo trains the whole network from nothing (--weights none):"
  echo "a few minutes, on small photos. Expect figures well above chance, far below a real training."
  say train-model --weights none --image-size 75 --batch-size 16 --epochs 16 --out runs/demo
fi

echo
echo "Done. Look at:"
echo "  demo-run/splits/README.md          what the photos are, with contact sheets"
echo "  demo-run/runs/demo/report.html     how good the model is, with its surest mistakes as photos"
echo "  demo-run/runs/demo/curves.png      how it learned"
echo "  demo-run/runs/demo/metrics.json    every figure"
echo "  demo-run/runs/demo/model.keras     the model, ready for raw photos"
