#!/usr/bin/env bash
# Asks over HTTP with curl, whole and as a stream.  usage: curl.sh [URL]
set -euo pipefail
url=${1:-http://localhost:8000}
ask='{"messages": [{"role": "user", "content": "你好，介绍一下你自己"}], "temperature": 0'

curl -sS "$url/v1/chat/completions" -H 'Content-Type: application/json' -d "$ask}"
echo
curl -sSN "$url/v1/chat/completions" -H 'Content-Type: application/json' -d "$ask, \"stream\": true}"
