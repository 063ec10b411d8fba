#!/bin/sh
# usage: tests/chart/get-promtool.sh FOLDER     puts Debian's promtool into FOLDER, without installing it; prints its path
set -eu
folder=$1
mkdir -p "$folder"
if [ ! -x "$folder/promtool" ]; then
  work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
  # apt-get download needs no root, an update (where the lists are missing or old) does.
  fetch() { (cd "$work" && apt-get download -qq prometheus && dpkg -x prometheus_*.deb .) >&2; }
  fetch || { sleep 5; apt-get update -qq >&2; fetch; }
  # A rename, so that two test runs at once never see half a program.
  cp "$work/usr/bin/promtool" "$folder/promtool.$$" && mv "$folder/promtool.$$" "$folder/promtool"
fi
echo "$folder/promtool"
