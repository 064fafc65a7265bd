#!/bin/bash
# Makes a stand-in for the Dockerfile's base image out of Debian packages, where no image registry can be reached:
#
#     tests/container/make_base_image.sh TAG
#
# Like the real one it has Debian bookworm, Python 3.11 as `python` in /usr/local/bin, pip and CA certificates, no
# compiler. What this machine needs to reach its package index (mirrors, CA bundle, pip settings) is read from its own
# configuration and written into the image. Needs root, debootstrap and a running Docker engine.
set -euo pipefail

tag=${1:?Usage: $0 TAG}
suite=bookworm
root=$(mktemp --directory)
trap 'rm --recursive --force "$root"' EXIT

# The mirror this machine's apt already uses for the suite; without one, debootstrap's own default.
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $suite" 'Created-By: Packages' | head -n 1)
debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
    "$suite" "$root" ${mirror:+"$mirror"} >&2

for name in python python3 python3.11; do ln -s /usr/bin/python3.11 "$root/usr/local/bin/$name"; done
rm --force "$root"/usr/lib/python3.11/EXTERNALLY-MANAGED
# Where the real one has its installer, so that the Dockerfile finds it there.
mv "$root"/usr/bin/pip* "$root/usr/local/bin/"
mv "$root"/usr/lib/python3/dist-packages/{pip,setuptools,wheel,pkg_resources}* "$root/usr/local/lib/python3.11/dist-packages/"
rm --recursive --force "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

# A machine behind a proxy trusts certificates of its own.
bundle=${PIP_CERT:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}
[[ ! -f $bundle ]] || install -m 644 "$bundle" "$root/etc/ssl/certs/ca-certificates.crt"

# pip's settings, whether they come from a file or the environment; a path on this machine means nothing in the image.
{
    echo "[global]"
    echo "cert = /etc/ssl/certs/ca-certificates.crt"
    { python3 -m pip config list || true; } | sed --quiet --regexp-extended \
        "/file:|'\//d; s/^(global|:env:)\.(index-url|extra-index-url|proxy|retries|default-timeout|timeout|trusted-host)='(.*)'$/\2 = \3/p" |
        sed 's/^default-timeout/timeout/' | sort --unique --field-separator='=' --key=1,1
} >"$root/etc/pip.conf"

tar --create --directory "$root" --exclude=./dev --exclude=./proc --exclude=./sys . |
    docker import \
        --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'CMD ["python3"]' - "$tag"
