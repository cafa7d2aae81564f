# What the rig's scripts share: source it. Everything they make lies under $rig.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rig=${LAZYSTAR_RIG:-$(dirname "$here")/.rig}
mkdir -p "$rig"

say() { echo "rig: $*" >&2; }
die() { say "$*"; exit 1; }
need() {
    local tool
    for tool in "$@"; do command -v "$tool" >/dev/null || die "$tool is not installed"; done
}

# The mirror that this machine's own apt uses.
mirror() {
    local found
    found=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list.d/*.sources 2>/dev/null |
        awk '$1 == "URIs:" { print $2; exit }')
    [ -n "$found" ] || found=$(awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) { print $i; exit } }' \
        /etc/apt/sources.list 2>/dev/null)
    [ -n "$found" ] || die "apt has no Debian mirror"
    echo "$found"
}
