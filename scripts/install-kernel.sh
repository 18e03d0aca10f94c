#!/bin/sh
# Run by `meson install`: the guest kernel goes where the library looks for it. What the build tree boots (a link into the
# kernel cache, made by scripts/link-guest.sh) is what gets installed.
set -eu
kernel=$MESON_BUILD_ROOT/guest/vmlinux
if [ ! -e "$kernel" ]; then
    echo "there is no guest kernel to install at $kernel: run 'make build', or scripts/link-guest.sh BUILDDIR" >&2
    exit 1
fi
install -D -m 644 "$kernel" "$MESON_INSTALL_DESTDIR_PREFIX/$1/vmlinux"
