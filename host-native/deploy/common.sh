# What install and uninstall share: source it.
set -euo pipefail
unit=lazystar-snapshotter.service
begin='# begin lazystar (taken out again by its uninstall)'
end='# end lazystar'
dry='' dest='' prefix=/usr/local

say() { echo "$*"; }
die() { echo "$(basename "$0"): $*" >&2; exit 1; }

# Does something, or says that it would.
try() {
    if [ -n "$dry" ]; then say "would: $*"; else say "$*"; "$@"; fi
}

# Takes its input for a file, whole or not at all.
put() { # FILE MODE
    if [ -n "$dry" ]; then
        cat >/dev/null
        say "would write $1"
        return
    fi
    mkdir -p "$(dirname "$1")"
    cat >"$1.new"
    chmod "$2" "$1.new"
    mv -f "$1.new" "$1"
    say "wrote $1"
}

# Keeps a file as it was before the first change.
keep() { # FILE
    [ ! -e "$1" ] || [ -e "$1.before-lazystar" ] || try cp -p "$1" "$1.before-lazystar"
}

# systemd of this machine, unless the files go elsewhere.
has_systemd() { [ -z "$dest" ] && [ -d /run/systemd/system ]; }
